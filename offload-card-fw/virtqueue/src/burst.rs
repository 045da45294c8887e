//! Bursts: many chains at once that are one buffer each, as most are that carry frames.

use core::slice;

use arrayvec::ArrayVec;

use crate::chain::{ChainId, Segment};
use crate::descriptor::Flags;
use crate::memory::{Access, GuestMemory, GuestSlice, LINE};

/// The most chains of a burst.
pub const MAX_BURST: usize = 64;

/// A chain of one descriptor, whose buffer is mapped in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Single<'m> {
    id: ChainId,
    buffer: GuestSlice<'m>,
}

impl<'m> Single<'m> {
    /// The number by which the driver knows the chain, and its queue.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> ChainId {
        self.id
    }

    /// The buffer: at least one byte.
    #[inline]
    #[must_use]
    pub const fn buffer(&self) -> &GuestSlice<'m> {
        &self.buffer
    }
}

/// Such chains, in the order in which the driver made them available.
#[derive(Debug, Default)]
pub struct Burst<'m> {
    singles: ArrayVec<Single<'m>, MAX_BURST>,
}

impl<'m> Burst<'m> {
    /// No chains.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self { singles: ArrayVec::new_const() }
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.singles.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty()
    }

    /// The chains, the first one first.
    #[inline]
    pub fn iter(&self) -> slice::Iter<'_, Single<'m>> {
        self.singles.iter()
    }

    /// Takes the last one out.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Single<'m>> {
        self.singles.pop()
    }

    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        self.singles.clear();
    }
}

impl<'a, 'm> IntoIterator for &'a Burst<'m> {
    type Item = &'a Single<'m>;
    type IntoIter = slice::Iter<'a, Single<'m>>;

    #[inline]
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Collects a burst, for a ring.
pub(crate) struct Collector<'a, 'm, M> {
    pub(crate) memory: &'m M,
    /// What is to be done with the buffers.
    pub(crate) access: Access,
    /// How many chains the queue had taken before.
    pub(crate) popped: u16,
    /// The queue's incarnation.
    pub(crate) generation: u16,
    pub(crate) burst: &'a mut Burst<'m>,
}

impl<M: GuestMemory> Collector<'_, '_, M> {
    /// Takes a chain that begins with this descriptor; `false`, and nothing is taken, unless it is one buffer of the kind that
    /// is wanted. Who looks at it more closely finds out whether it is right.
    #[inline(always)]
    pub(crate) fn take(&mut self, id: ChainId, segment: Segment, flags: Flags) -> bool {
        let Segment { address, len, .. } = segment;
        let wanted = if self.access == Access::Write { Flags::WRITE } else { Flags::empty() };
        if flags & (Flags::NEXT | Flags::INDIRECT | Flags::WRITE) != wanted || len == 0 {
            return false;
        }
        let Ok(buffer) = self.memory.piece(address, len as usize) else { return false };
        if buffer.len() != len as usize {
            return false;
        }
        buffer.prefetch(0, self.access);
        if buffer.len() > LINE {
            buffer.prefetch(LINE, self.access);
        }
        let id = id.taken(self.popped, self.generation);
        self.popped = self.popped.wrapping_add(1);
        self.burst.singles.try_push(Single { id, buffer }).is_ok()
    }
}
