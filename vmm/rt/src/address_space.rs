//! Addresses of the domain that nothing uses yet.
//!
//! The range that the start page gives is cut in two: the heap grows in the first part, stacks, message buffers and
//! mappings get their places in the rest.

use dragonfly_abi::{PAGE_SIZE, StartInfo};

use crate::ranges::Ranges;
use crate::start::start_info;
use crate::sync::Mutex;

/// The largest heap in bytes.
const MAX_HEAP: u64 = 1 << 30;

/// An unmapped page before each part, so that running past the end of the part below it faults.
const GUARD: u64 = PAGE_SIZE;

struct AddressSpace {
    ranges: Ranges,
    started: bool,
}

static ADDRESS_SPACE: Mutex<AddressSpace> = Mutex::new(AddressSpace { ranges: Ranges::new(), started: false });

/// Takes a range of addresses with an unmapped page before and after it. `None` if there is none so large.
pub(crate) fn take(size: u64, alignment: u64) -> Option<u64> {
    let mut space = ADDRESS_SPACE.lock();
    if !space.started {
        let info = start_info()?;
        space.ranges.add(heap_end(info), info.heap_end.saturating_sub(GUARD));
        space.started = true;
    }
    // The alignment may lie beyond the guard, so that the guard is not always the page just taken: take as much as
    // holds both wherever the aligned address falls, and give back what is too much.
    let whole = size.checked_add(alignment)?.checked_add(GUARD)?;
    let start = space.ranges.take(whole, PAGE_SIZE)?;
    let address = (start + GUARD).next_multiple_of(alignment);
    space.ranges.add(start, address - GUARD);
    space.ranges.add(address + size, start + whole);
    Some(address)
}

/// Gives a range back that nothing is mapped in any more.
pub(crate) fn give(address: u64, size: u64) {
    ADDRESS_SPACE.lock().ranges.add(address - GUARD, address + size);
}

/// Where the heap may grow: start and end.
#[cfg(target_os = "none")]
pub(crate) fn heap_range() -> Option<(u64, u64)> {
    start_info().map(|info| (info.heap_start, heap_end(info)))
}

fn heap_end(info: &StartInfo) -> u64 {
    let size = info.heap_end.saturating_sub(info.heap_start);
    info.heap_start + (size / 4).min(MAX_HEAP) / PAGE_SIZE * PAGE_SIZE
}
