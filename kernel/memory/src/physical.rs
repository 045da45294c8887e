//! How the kernel reaches physical memory, and where it takes single frames from.
#![expect(unsafe_code, reason = "implementors of these traits vouch for memory")]

use core::ptr::NonNull;

use crate::address::HostPhys;

/// A view of physical memory through which the kernel reads and writes frames: the direct map.
///
/// # Safety
/// For each range of RAM that the kernel manages, `pointer` gives pointers that can be read and written throughout the
/// range, as long as the view exists, and that are as far apart as their addresses; `address` is its inverse. All views
/// in one kernel are of the same memory, so an address that one of them gave may be used with another. Addresses
/// elsewhere give any pointer.
pub unsafe trait PhysicalMemory {
    /// The pointer to the byte at `address`.
    fn pointer(&self, address: HostPhys) -> NonNull<u8>;

    /// The address of the byte at `pointer`.
    fn address(&self, pointer: NonNull<u8>) -> HostPhys;
}

/// A source of single frames for the kernel's own structures.
///
/// # Safety
/// A frame belongs to the caller of `take_frame` alone until it is given back, and the source's own `pointer`
/// reaches it.
pub unsafe trait FrameSource: PhysicalMemory {
    /// A frame with any content; `None` if there is none.
    fn take_frame(&self) -> Option<HostPhys>;

    /// Takes a frame back.
    ///
    /// # Safety
    /// `frame` came from `take_frame` of this source, and neither software nor a processor's table walk uses
    /// it any more.
    unsafe fn give_frame(&self, frame: HostPhys);
}

// SAFETY: It is the same view.
unsafe impl<M: PhysicalMemory> PhysicalMemory for &M {
    #[inline]
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        M::pointer(self, address)
    }

    #[inline]
    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        M::address(self, pointer)
    }
}

// SAFETY: It is the same source.
unsafe impl<S: FrameSource> FrameSource for &S {
    #[inline]
    fn take_frame(&self) -> Option<HostPhys> {
        S::take_frame(self)
    }

    #[inline]
    unsafe fn give_frame(&self, frame: HostPhys) {
        // SAFETY: The caller keeps the same contract.
        unsafe { S::give_frame(self, frame) };
    }
}
