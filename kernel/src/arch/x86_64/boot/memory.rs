//! Which RAM the frame allocator gets, and when.
#![expect(unsafe_code, reason = "it vouches for RAM that nobody uses")]

use dragonfly_handoff::MemoryKind;
use dragonfly_memory::{HostPhys, PAGE_SIZE};
use spin::Once;

use super::handoff::BootInfo;
use crate::arch::{
    Arch as _,
    x86_64::{FRAMES, X86},
};

/// End of the memory that a start-up message can reach.
const LOW_MEMORY_END: u64 = 1 << 20;
/// A frame below 1 MiB to start CPUs from.
pub static START_UP_PAGE: Once<HostPhys> = Once::new();

/// Gives usable RAM to the frame allocator, but for one page below 1 MiB and page zero.
pub fn set_up(boot: &BootInfo) {
    let mut frames = FRAMES.lock();
    for range in boot.map.usable() {
        let (mut start, end) = (range.base().0.max(PAGE_SIZE), range.end().0);
        if start < LOW_MEMORY_END && end > start && START_UP_PAGE.get().is_none() {
            START_UP_PAGE.call_once(|| HostPhys::new(start));
            start += PAGE_SIZE;
        }
        if start >= end {
            continue;
        }
        // SAFETY: Usable RAM belongs to nobody, and the loader's direct map reaches it.
        if let Err(error) = unsafe { frames.add_range(HostPhys::new(start), end - start, 0) } {
            ::log::warn!("{} KiB of RAM at {start:#x} stay unused: {error}", (end - start) >> 10);
        }
    }
}

/// Takes the loader's memory into use, now that nothing of it is. It is cleared: an emulator that has translated the loader's
/// code looks at each write to a page of it, as long as there is any.
pub fn reclaim(boot: &BootInfo) {
    let mut frames = FRAMES.lock();
    for range in boot.map.of_kind(MemoryKind::BOOTLOADER) {
        X86.zero(HostPhys::new(range.base().0), range.size());
        // SAFETY: The loader's contract: the kernel has left its tables and stack, and copied what the handoff names.
        let added = unsafe { frames.add_range(HostPhys::new(range.base().0), range.size(), 0) };
        if let Err(error) = added {
            ::log::warn!("{} KiB of the loader's memory stay unused: {error}", range.size() >> 10);
        }
    }
}
