//! Hints to the CPU: a line that another CPU has written last takes as long to come as a frame's whole way through the card,
//! but many can be on their way at once.

/// What lines are fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read; the guest's CPU keeps its copies.
    Read,
    /// To be written; the guest's CPU loses its copies now.
    Write,
}

/// Bytes of a cache line: what is fetched at once.
pub const LINE: usize = 64;

/// Begins to fetch the line of a byte, which need not be mapped. Elsewhere than on x86-64 nothing is done.
#[inline(always)]
pub(super) fn prefetch(byte: *const u8, access: Access) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: A prefetch changes no register and no memory, and never faults (APM 3, PREFETCHlevel and PREFETCHW; every CPU with
    // long mode has both).
    unsafe {
        match access {
            Access::Read => core::arch::asm!(
                "prefetcht0 [{}]", in(reg) byte, options(nostack, preserves_flags, readonly)
            ),
            Access::Write => core::arch::asm!(
                "prefetchw [{}]", in(reg) byte, options(nostack, preserves_flags, readonly)
            ),
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (byte, access);
}
