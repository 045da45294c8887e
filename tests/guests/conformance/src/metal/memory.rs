//! RAM.

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::playground::FREE_RAM;
use dragonfly_guest_kit::{Check, equal, memory_end};

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;

/// The RAM that lies below 4 GiB in one piece, less the last 64 KiB, where the loader may have put tables.
fn end() -> u64 {
    memory_end().min(3 << 30) - (1 << 20)
}

pub fn each_page_is_zero_and_keeps_what_is_written() -> Check {
    let marker = |page: u64| page ^ 0x5a5a_0000_a5a5_0000;
    // A second round finds the first one's marks.
    let is_first = peek::<u64>(FREE_RAM) == 0;
    for page in (FREE_RAM..end()).step_by(PAGE as usize) {
        if is_first {
            equal("a page that was never touched", peek(page + 8), 0)?;
            equal("its end", peek(page + PAGE - 8), 0)?;
        }
        poke(page, marker(page));
    }
    for page in (FREE_RAM..end()).step_by(PAGE as usize) {
        equal("a page's mark", peek(page), marker(page))?;
    }
    Ok(())
}

pub fn accesses_across_large_pages() -> Check {
    for border in (FREE_RAM + LARGE_PAGE..end()).step_by(LARGE_PAGE as usize) {
        let kept = peek::<u64>(border);
        poke(border - 3, 0x1122_3344_5566_7788_u64);
        equal("across the border", peek(border - 3), 0x1122_3344_5566_7788)?;
        equal("behind it", peek::<u32>(border).into(), 0x2233_4455)?;
        poke(border, kept);
    }
    Ok(())
}
