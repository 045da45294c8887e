//! A page that the kernel shares with a domain.
//!
//! The domain writes the page whenever it likes, so every access is an atomic word, and what is read is an allegation:
//! it is read once and checked by whoever asked.
#![expect(unsafe_code, reason = "the page is reached through the direct map")]

use core::sync::atomic::AtomicU64;

use dragonfly_abi::guest::RECORD_WORDS;
use dragonfly_memory::{HostPhys, PAGE_SIZE};

use crate::Ref;
use crate::arch::Arch;
use crate::memory_object::Memory;

/// Words of a page.
pub const WORDS: usize = PAGE_SIZE as usize / 8;

/// Where a record is that the kernel shares with a guest: a memory object and an offset in it.
pub type RecordPlace<A> = (Ref<Memory<A>, A>, u64);

/// Does something with a record of a memory object that its domain may write at the same time; nothing if no frame is there.
/// `offset` is a multiple of the record's size.
pub fn with_record<A: Arch, R>(
    memory: &Memory<A>,
    arch: A,
    offset: u64,
    work: impl FnOnce(&[AtomicU64; RECORD_WORDS]) -> R,
) -> Option<R> {
    memory.with_frame(offset, |frame| {
        let first = (offset % PAGE_SIZE) as usize / 8;
        // SAFETY: The frame is the memory object's while this runs.
        unsafe { words_of(arch, frame) }.get(first..)?.first_chunk().map(work)
    })?
}

/// The words of a frame.
///
/// # Safety
/// The frame is given to nobody else for as long as `'a` lives, and the kernel accesses it by atomic words only.
unsafe fn words_of<'a, A: Arch>(arch: A, frame: HostPhys) -> &'a [AtomicU64; WORDS] {
    // SAFETY: The direct map reaches RAM frames whole, they are page-aligned, any content is valid, and the caller promises
    // the rest.
    unsafe { arch.pointer(frame).cast().as_ref() }
}

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
        // SAFETY: `memory` pins the frame, so it is RAM that this object owns, and all of the kernel's accesses to it are
        // atomic.
        unsafe { words_of(self.arch, self.frame) }
    }
}
