//! A page that the kernel shares with a domain.
//!
//! The domain writes the page whenever it likes, so every access is an atomic word, and what is read is an allegation:
//! it is read once and checked by whoever asked.
#![expect(unsafe_code, reason = "the page is reached through the direct map")]

use core::sync::atomic::AtomicU64;

use dragonfly_memory::{HostPhys, PAGE_SIZE};

use crate::Ref;
use crate::arch::Arch;
use crate::memory_object::Memory;

/// Words of a page.
pub const WORDS: usize = PAGE_SIZE as usize / 8;

/// One frame of a memory object that lives as long as this does.
pub struct SharedPage<A: Arch> {
    arch: A,
    memory: Ref<Memory<A>, A>,
    frame: HostPhys,
}

impl<A: Arch> SharedPage<A> {
    /// The page of a memory object whose first frame is committed for as long as the object lives.
    pub fn new(arch: A, memory: Ref<Memory<A>, A>) -> Option<Self> {
        let frame = memory.pinned_frame()?;
        Some(Self { arch, memory, frame })
    }

    /// The memory object.
    pub fn memory(&self) -> &Ref<Memory<A>, A> {
        &self.memory
    }

    /// Its content.
    #[inline]
    pub fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: `memory` pins the frame, so it is RAM that this object owns; the direct map reaches it whole, it is
        // page-aligned, any content is valid, and all of the kernel's accesses to it are atomic.
        unsafe { self.arch.pointer(self.frame).cast().as_ref() }
    }
}
