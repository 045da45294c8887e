//! Descriptors, as both layouts have them, and the tables that indirect ones refer to.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, little_endian};

use crate::chain::Segment;
use crate::memory::{Access, GuestAddress, GuestMemory, GuestSlice, MemoryError};
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

/// A copy of a split ring's descriptor (virtio 1.2, 2.7.5).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct SplitDescriptor {
    address: little_endian::U64,
    len: little_endian::U32,
    flags: little_endian::U16,
    next: little_endian::U16,
}

impl SplitDescriptor {
    #[inline(always)]
    pub(crate) fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.flags.get())
    }

    pub(crate) const fn next(&self) -> u16 {
        self.next.get()
    }

    #[inline(always)]
    pub(crate) fn segment(&self) -> Segment {
        segment(self.address, self.len, self.flags())
    }
}

/// A copy of a packed ring's descriptor (virtio 1.2, 2.8.13).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct PackedDescriptor {
    address: little_endian::U64,
    len: little_endian::U32,
    pub(crate) id: little_endian::U16,
    flags: little_endian::U16,
}

impl PackedDescriptor {
    pub(crate) const fn new(address: u64, len: u32, id: u16, flags: u16) -> Self {
        Self {
            address: little_endian::U64::new(address),
            len: little_endian::U32::new(len),
            id: little_endian::U16::new(id),
            flags: little_endian::U16::new(flags),
        }
    }

    /// Takes the flags from an earlier look at them.
    #[inline(always)]
    pub(crate) fn with_flags(self, flags: Flags) -> Self {
        Self { flags: little_endian::U16::new(flags.bits()), ..self }
    }

    #[inline(always)]
    pub(crate) fn flags(&self) -> Flags {
        Flags::from_bits_retain(self.flags.get())
    }

    #[inline(always)]
    pub(crate) fn segment(&self) -> Segment {
        segment(self.address, self.len, self.flags())
    }
}

fn segment(address: little_endian::U64, len: little_endian::U32, flags: Flags) -> Segment {
    Segment { address: GuestAddress(address.get()), len: len.get(), is_writable: flags.contains(Flags::WRITE) }
}

/// Copies descriptor `index` of a table, once. An indirect table may have any alignment, so this is no atomic access:
/// what orders it is an Acquire that the caller has made.
#[inline(always)]
pub(crate) fn read<T: FromBytes>(table: &GuestSlice<'_>, index: usize) -> Result<T, MemoryError> {
    let offset = index.checked_mul(DESCRIPTOR_SIZE).ok_or(MemoryError::OutOfBounds)?;
    let words = table.read_pair(offset)?;
    // Both have `DESCRIPTOR_SIZE` bytes.
    T::read_from_bytes(words.as_bytes()).map_err(|_| MemoryError::OutOfBounds)
}

/// Lets the CPU fetch the first `bytes` of what a descriptor refers to, which may be anything yet.
#[inline(always)]
pub(crate) fn prefetch<M: GuestMemory>(memory: &M, segment: Segment, flags: Flags, bytes: usize) {
    let access =
        if flags.contains(Flags::WRITE) && !flags.contains(Flags::INDIRECT) { Access::Write } else { Access::Read };
    if let Ok(piece) = memory.piece(segment.address, bytes.min(segment.len as usize)) {
        piece.prefetch(access);
    }
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
