//! Where kernel objects get their memory.
#![expect(unsafe_code, reason = "memory of freed objects is handed back by pointer")]

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

/// There is no memory for a new object. The caller's quota allowed it, so the machine is short of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("no memory left for kernel objects")
    }
}

/// A handle to memory for kernel objects. Every object keeps a copy of the handle to find its way back, so it should
/// have no size: the real kernel's names a static, a simulated one's is a reference to the pool of its simulated
/// machine.
///
/// # Safety
/// `allocate` gives memory of the size and alignment asked for, which belongs to the caller alone until it is
/// deallocated through a copy of the same handle.
pub unsafe trait Heap: Copy + 'static {
    /// Uninitialised memory for `layout`, whose size is not 0; `None` if there is none or the layout is larger than the
    /// heap supports.
    fn allocate(self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes memory back.
    ///
    /// # Safety
    /// `memory` came from `allocate` of this handle with the same layout, and nobody uses it any more.
    unsafe fn deallocate(self, memory: NonNull<u8>, layout: Layout);
}
