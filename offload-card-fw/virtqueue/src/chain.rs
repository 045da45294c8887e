//! What a driver makes available at once: a chain of buffers.

use arrayvec::ArrayVec;

use crate::memory::{GuestAddress, GuestMemory};
use crate::{QueueError, Reader, Writer};

/// The most segments that a chain may have. Drivers stay far below: those of network devices at a few dozens, those of
/// block devices at the `seg_max` that the device tells them, plus two.
pub const MAX_SEGMENTS: usize = 256;

/// Where a piece of a buffer is in the guest's memory. Its address does not wrap, but it need not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first byte.
    pub address: GuestAddress,
    /// Bytes.
    pub len: u32,
    /// Whether the device may write it, and not read it.
    pub is_writable: bool,
}

/// By what a chain is given back: once, with [`Queue::push`](crate::Queue::push).
///
/// Four numbers in one, for it is written and read at once for every chain, where partial stores would stall the loads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainId {
    bits: u64,
    /// Which incarnation of the queue it was taken from.
    generation: u16,
}

impl ChainId {
    /// Of a chain that takes up `descriptors` of a packed ring, and is at `entry` of the memory that tracks what is in
    /// flight, if there is one.
    #[inline(always)]
    pub(crate) const fn new(index: u16, descriptors: u16, entry: u16) -> Self {
        Self { bits: index as u64 | (descriptors as u64) << 16 | (entry as u64) << 32, generation: 0 }
    }

    /// With how many chains were taken before it, and of which incarnation of the queue.
    #[inline(always)]
    pub(crate) const fn taken(self, sequence: u16, generation: u16) -> Self {
        Self { bits: self.bits | (sequence as u64) << 48, generation }
    }

    /// The number by which the driver knows the chain: of a split ring its first descriptor, of a packed one its buffer id.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u16 {
        self.bits as u16
    }

    #[inline(always)]
    pub(crate) const fn descriptors(self) -> u16 {
        (self.bits >> 16) as u16
    }

    #[inline(always)]
    pub(crate) const fn entry(self) -> u16 {
        (self.bits >> 32) as u16
    }

    #[inline(always)]
    pub(crate) const fn sequence(self) -> u16 {
        (self.bits >> 48) as u16
    }

    #[inline(always)]
    pub(crate) const fn generation(self) -> u16 {
        self.generation
    }
}

/// A chain of segments: first those to read, then those to write. A copy of what the driver wrote, already checked.
///
/// It is large, so [`Queue::pop_into`](crate::Queue::pop_into) fills one that exists.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    id: ChainId,
    segments: ArrayVec<Segment, MAX_SEGMENTS>,
    readable: usize,
    readable_len: u64,
    writable_len: u64,
}

impl Chain {
    /// A chain of nothing, to be filled.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            id: ChainId::new(0, 0, 0),
            segments: ArrayVec::new_const(),
            readable: 0,
            readable_len: 0,
            writable_len: 0,
        }
    }

    /// By what it is given back.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> ChainId {
        self.id
    }

    /// All segments, those to read first.
    #[inline]
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments to read.
    #[inline]
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    /// The segments to write.
    #[inline]
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or_default()
    }

    /// Bytes to read, at most 2^32.
    #[inline]
    #[must_use]
    pub const fn readable_len(&self) -> u64 {
        self.readable_len
    }

    /// Bytes to write, at most 2^32.
    #[inline]
    #[must_use]
    pub const fn writable_len(&self) -> u64 {
        self.writable_len
    }

    /// Reads what the driver sent, from its beginning.
    #[inline]
    pub fn reader<'a, M: GuestMemory>(&'a self, memory: &'a M) -> Reader<'a, M> {
        Reader::new(memory, self.readable(), self.readable_len)
    }

    /// Writes what the driver shall receive, from its beginning.
    #[inline]
    pub fn writer<'a, M: GuestMemory>(&'a self, memory: &'a M) -> Writer<'a, M> {
        Writer::new(memory, self.writable(), self.writable_len)
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        (self.readable, self.readable_len, self.writable_len) = (0, 0, 0);
    }

    #[inline(always)]
    pub(crate) const fn set_id(&mut self, id: ChainId) {
        self.id = id;
    }

    /// Adds what one descriptor describes.
    #[inline(always)]
    pub(crate) fn append(&mut self, segment: Segment) -> Result<(), QueueError> {
        let Segment { address, len, is_writable } = segment;
        if address.checked_add(u64::from(len)).is_none() {
            return Err(QueueError::SegmentWraps(address));
        }
        if is_writable {
            self.writable_len += u64::from(len);
        } else {
            if self.readable != self.segments.len() {
                return Err(QueueError::ReadableAfterWritable);
            }
            self.readable += 1;
            self.readable_len += u64::from(len);
        }
        // No overflow: at most MAX_SEGMENTS lengths of 32 bits.
        if self.readable_len + self.writable_len > 1 << 32 {
            return Err(QueueError::ChainTooLarge);
        }
        self.segments.try_push(segment).map_err(|_| QueueError::TooManySegments)
    }
}
