//! What the detection of either back end uses.
#![expect(unsafe_code, reason = "permission maps are written through the direct map")]

use dragonfly_memory::{FrameUse, HostPhys, PAGE_SIZE, PhysicalMemory};

use crate::arch::x86_64::{FRAMES, X86, boot};

/// Names with commas.
pub struct Names<I>(pub I);

impl<I: Iterator<Item = &'static str> + Clone> core::fmt::Display for Names<I> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut is_empty = true;
        for name in self.0.clone() {
            if !is_empty {
                formatter.write_str(", ")?;
            }
            is_empty = false;
            formatter.write_str(name)?;
        }
        if is_empty { formatter.write_str("none") } else { Ok(()) }
    }
}

/// Whether a feature is not switched off on the kernel's command line.
pub fn is_wanted(option: &str) -> bool {
    boot::command_line().value(option) != Some("off")
}

/// Whether a feature is switched on there.
pub fn is_asked_for(option: &str) -> bool {
    boot::command_line().value(option) == Some("on")
}

/// A permission map that intercepts everything.
pub fn new_map(bytes: usize) -> Option<HostPhys> {
    let pages = (bytes as u64).div_ceil(PAGE_SIZE).next_power_of_two();
    let frame = FRAMES.lock().alloc(pages.trailing_zeros(), 0, FrameUse::Kernel)?;
    // SAFETY: The block was just taken, and is this large.
    unsafe { X86.pointer(frame).write_bytes(0xff, (pages * PAGE_SIZE) as usize) };
    Some(frame)
}
