//! Descriptors, as both layouts have them, and the tables that indirect ones refer to.

use bitflags::bitflags;

use crate::chain::Segment;
use crate::memory::{GuestAddress, GuestMemory, GuestSlice, MemoryError};
use crate::{QueueError, RingFeatures};

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR_SIZE: usize = 16;

bitflags! {
    /// A descriptor's flags (virtio 1.2, 2.7.5 and 2.8.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Flags: u16 {
        /// VIRTQ_DESC_F_NEXT: the chain goes on.
        const NEXT = 1 << 0;
        /// VIRTQ_DESC_F_WRITE: the device may write the buffer, and not read it.
        const WRITE = 1 << 1;
        /// VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors.
        const INDIRECT = 1 << 2;
        /// VIRTQ_DESC_F_AVAIL of packed rings.
        const AVAIL = 1 << 7;
        /// VIRTQ_DESC_F_USED of packed rings.
        const USED = 1 << 15;
    }
}

/// A copy of a split ring's descriptor (virtio 1.2, 2.7.5): its two words, from the lowest bits on address; length, flags
/// and next.
///
/// Words, as registers hold them: fields that go through memory are loaded otherwise than they were stored, and a CPU
/// then waits for all stores before them, those to lines of the guest's CPU among them.
#[derive(Clone, Copy)]
pub(crate) struct SplitDescriptor([u64; 2]);

impl SplitDescriptor {
    #[inline(always)]
    pub(crate) const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    #[inline(always)]
    pub(crate) const fn flags(self) -> Flags {
        Flags::from_bits_retain((self.0[1] >> 32) as u16)
    }

    #[inline(always)]
    pub(crate) const fn next(self) -> u16 {
        (self.0[1] >> 48) as u16
    }

    #[inline(always)]
    pub(crate) const fn segment(self) -> Segment {
        segment(self.0, self.flags())
    }
}

/// A copy of a packed ring's descriptor (virtio 1.2, 2.8.13): its two words, from the lowest bits on address; length,
/// buffer id and flags. Words for the same reason.
#[derive(Clone, Copy)]
pub(crate) struct PackedDescriptor([u64; 2]);

impl PackedDescriptor {
    pub(crate) const fn new(address: u64, len: u32, id: u16, flags: u16) -> Self {
        Self([address, len as u64 | (id as u64) << 32 | (flags as u64) << 48])
    }

    #[inline(always)]
    pub(crate) const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    /// Takes the flags from an earlier look at them.
    #[inline(always)]
    pub(crate) const fn with_flags(self, flags: Flags) -> Self {
        let Self([address, rest]) = self;
        Self([address, rest & !(0xffff << 48) | (flags.bits() as u64) << 48])
    }

    #[inline(always)]
    pub(crate) const fn id(self) -> u16 {
        (self.0[1] >> 32) as u16
    }

    #[inline(always)]
    pub(crate) const fn flags(self) -> Flags {
        Flags::from_bits_retain((self.0[1] >> 48) as u16)
    }

    #[inline(always)]
    pub(crate) const fn segment(self) -> Segment {
        segment(self.0, self.flags())
    }
}

const fn segment([address, rest]: [u64; 2], flags: Flags) -> Segment {
    Segment { address: GuestAddress(address), len: rest as u32, is_writable: flags.contains(Flags::WRITE) }
}

/// Copies the words of descriptor `index` of a table, once. An indirect table may have any alignment, so this is no atomic
/// access: what orders it is an Acquire that the caller has made.
#[inline(always)]
pub(crate) fn read(table: &GuestSlice<'_>, index: usize) -> Result<[u64; 2], MemoryError> {
    table.read_pair(index.checked_mul(DESCRIPTOR_SIZE).ok_or(MemoryError::OutOfBounds)?)
}

/// The table to which an indirect descriptor refers, and how many descriptors it has. VIRTQ_DESC_F_WRITE in the
/// descriptor means nothing (virtio 1.2, 2.7.5.3.2 and 2.8.7).
#[inline]
pub(crate) fn indirect_table<M: GuestMemory>(
    memory: &M,
    segment: Segment,
    features: RingFeatures,
) -> Result<(GuestSlice<'_>, u32), QueueError> {
    let Segment { address, len, .. } = segment;
    if !features.contains(RingFeatures::INDIRECT_DESC) {
        return Err(QueueError::IndirectNotNegotiated);
    }
    if len == 0 || len % DESCRIPTOR_SIZE as u32 != 0 {
        return Err(QueueError::IndirectLength(len));
    }
    let table = memory.slice(address, len as usize).map_err(|_| QueueError::IndirectUnmapped(address))?;
    Ok((table, len / DESCRIPTOR_SIZE as u32))
}
