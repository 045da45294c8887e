//! Frames for page tables, charged to a domain's account.
#![expect(unsafe_code, reason = "it vouches for the frames that it gives out")]

use core::ptr::NonNull;

use dragonfly_abi::Status;
use dragonfly_memory::{Account, FrameSource, FrameUse, HostPhys, MapError, PAGE_SIZE, PhysicalMemory};

use crate::Ref;
use crate::arch::Arch;

/// A source of kernel frames that charges an account.
pub struct DomainFrames<'a, A: Arch> {
    /// The machine.
    pub arch: A,
    /// Who pays.
    pub account: &'a Ref<Account<A::Heap>, A>,
}

impl<A: Arch> DomainFrames<'_, A> {
    /// Why a mapping could not be made: the walker only knows that it got no frame.
    pub fn status(&self, error: MapError) -> Status {
        match error {
            MapError::OutOfMemory if self.account.left() < PAGE_SIZE => Status::QuotaExceeded,
            MapError::OutOfMemory => Status::OutOfMemory,
            MapError::AlreadyMapped => Status::Overlap,
            MapError::Misaligned => Status::BadArgument,
        }
    }
}

// SAFETY: It is the machine's view.
unsafe impl<A: Arch> PhysicalMemory for DomainFrames<'_, A> {
    #[inline]
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        self.arch.pointer(address)
    }

    #[inline]
    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        self.arch.address(pointer)
    }
}

// SAFETY: The allocator gives out a frame once, as the kernel's, and takes such frames back only from their owner.
unsafe impl<A: Arch> FrameSource for DomainFrames<'_, A> {
    fn take_frame(&self) -> Option<HostPhys> {
        self.account.take(PAGE_SIZE).ok()?;
        let frame = self.arch.frames().lock().alloc(0, 0, FrameUse::Kernel);
        if frame.is_none() {
            self.account.give_back(PAGE_SIZE);
        }
        frame
    }

    unsafe fn give_frame(&self, frame: HostPhys) {
        // SAFETY: The caller owns the frame, as the contract says.
        let freed = unsafe { self.arch.frames().lock().free_kernel(frame, 0) };
        debug_assert!(freed.is_ok());
        self.account.give_back(PAGE_SIZE);
    }
}

/// A zeroed frame of the kernel's own that a domain pays for, for as long as this lives.
pub struct OwnedFrame<A: Arch> {
    arch: A,
    account: Ref<Account<A::Heap>, A>,
    frame: HostPhys,
}

impl<A: Arch> OwnedFrame<A> {
    /// Takes a frame.
    pub fn new(arch: A, account: &Ref<Account<A::Heap>, A>) -> Result<Self, Status> {
        let frames = DomainFrames { arch, account };
        let frame = frames.take_frame().ok_or_else(|| frames.status(MapError::OutOfMemory))?;
        arch.zero(frame, PAGE_SIZE);
        Ok(Self { arch, account: account.clone(), frame })
    }

    /// Where it is.
    pub fn address(&self) -> HostPhys {
        self.frame
    }

    /// Where the kernel sees it.
    pub fn pointer(&self) -> NonNull<u8> {
        self.arch.pointer(self.frame)
    }
}

impl<A: Arch> Drop for OwnedFrame<A> {
    fn drop(&mut self) {
        // SAFETY: `new` took it, and whoever used it is gone with this.
        unsafe { DomainFrames { arch: self.arch, account: &self.account }.give_frame(self.frame) };
    }
}
