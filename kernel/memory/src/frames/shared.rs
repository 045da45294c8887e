//! The frame allocator as all CPUs share it, and as a source of the kernel's own frames.
#![expect(unsafe_code, reason = "it vouches for the frames that it gives out")]

use core::ptr::NonNull;

use super::{FrameAllocator, FrameUse};
use crate::address::HostPhys;
use crate::lock::{Guard, Lock, Relax};
use crate::physical::{FrameSource, PhysicalMemory};
use crate::sync::const_unless_loom;

/// The machine's frames behind a lock, and the view through which the kernel reaches them.
pub struct Frames<M, R> {
    memory: M,
    allocator: Lock<FrameAllocator<M>, R>,
}

impl<M: PhysicalMemory + Copy, R: Relax> Frames<M, R> {
    const_unless_loom! {
        /// No frames yet: see [`FrameAllocator::add_range`].
        #[must_use]
        pub fn new(memory: M) -> Self {
            Self { memory, allocator: Lock::new(FrameAllocator::new(memory)) }
        }
    }

    /// Waits for the allocator.
    #[inline]
    pub fn lock(&self) -> Guard<'_, FrameAllocator<M>, R> {
        self.allocator.lock()
    }

    /// The view of physical memory.
    #[inline]
    pub const fn memory(&self) -> M {
        self.memory
    }
}

/// Frames for the kernel's own structures, from one zone as long as that has any.
pub struct NodeFrames<'a, M, R> {
    frames: &'a Frames<M, R>,
    zone: usize,
}

impl<'a, M, R> NodeFrames<'a, M, R> {
    /// Takes from `frames`, preferably those of `zone`.
    #[must_use]
    pub const fn new(frames: &'a Frames<M, R>, zone: usize) -> Self {
        Self { frames, zone }
    }
}

impl<M, R> Clone for NodeFrames<'_, M, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, R> Copy for NodeFrames<'_, M, R> {}

// SAFETY: It is the view of the allocator that gives out the frames.
unsafe impl<M: PhysicalMemory, R> PhysicalMemory for NodeFrames<'_, M, R> {
    #[inline]
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        self.frames.memory.pointer(address)
    }

    #[inline]
    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        self.frames.memory.address(pointer)
    }
}

// SAFETY: The allocator gives out a frame once, as the kernel's, and takes such frames back only from their owner.
unsafe impl<M: PhysicalMemory + Copy, R: Relax> FrameSource for NodeFrames<'_, M, R> {
    fn take_frame(&self) -> Option<HostPhys> {
        self.frames.lock().alloc(0, self.zone, FrameUse::Kernel)
    }

    unsafe fn give_frame(&self, frame: HostPhys) {
        // SAFETY: The caller owns the frame.
        let freed = unsafe { self.frames.lock().free_kernel(frame, 0) };
        // By the contract it cannot fail; were the contract broken, losing the frame is the lesser evil.
        debug_assert_eq!(freed, Ok(()));
    }
}
