//! Reading and writing a chain's bytes in order, however the driver has cut them up.

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::chain::Segment;
use crate::memory::{GuestMemory, GuestSlice, MemoryError};

/// Why a chain cannot be read or written: the driver's fault. What that means is for the device to say; it may fail the
/// request, or stop the queue with [`Queue::stop`](crate::Queue::stop).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChainError {
    /// The chain has fewer bytes than are needed.
    #[error("the chain has fewer bytes than are needed")]
    TooShort,
    /// A segment is not in the guest's memory.
    #[error("a segment is not in the guest's memory: {0}")]
    Memory(#[from] MemoryError),
}

/// A place in some segments.
#[derive(Clone, Copy, Debug)]
struct Cursor<'a, M> {
    memory: &'a M,
    /// Those that have not been begun.
    segments: &'a [Segment],
    /// What is left of the piece that was looked up last.
    piece: GuestSlice<'a>,
    /// What is left of the segment behind that piece.
    behind: Segment,
    /// Bytes left in all.
    remaining: u64,
    /// Bytes gone past.
    passed: u64,
}

impl<'a, M: GuestMemory> Cursor<'a, M> {
    #[inline]
    fn new(memory: &'a M, segments: &'a [Segment], remaining: u64) -> Self {
        let behind = Segment { address: crate::memory::GuestAddress(0), len: 0, is_writable: false };
        Self { memory, segments, piece: GuestSlice::empty(), behind, remaining, passed: 0 }
    }

    /// Goes past the next bytes that lie together, at least 1 and at most `limit`; nothing if none are left or asked for.
    #[inline]
    fn next_piece(&mut self, limit: usize) -> Result<Option<GuestSlice<'a>>, MemoryError> {
        if limit == 0 || self.remaining == 0 {
            return Ok(None);
        }
        while self.piece.is_empty() {
            while self.behind.len == 0 {
                let Some((first, rest)) = self.segments.split_first() else { return Ok(None) };
                (self.behind, self.segments) = (*first, rest);
            }
            self.piece = self.memory.piece(self.behind.address, self.behind.len as usize)?;
            // A piece is no longer than was asked for.
            let len = self.piece.len() as u32;
            self.behind.address.0 = self.behind.address.0.wrapping_add(u64::from(len));
            self.behind.len = self.behind.len.saturating_sub(len);
        }
        let limit = usize::try_from(self.remaining).map_or(limit, |remaining| limit.min(remaining));
        let (now, rest) = self.piece.split_at(limit);
        self.piece = rest;
        self.pass(now.len() as u64);
        Ok(Some(now))
    }

    #[inline]
    const fn pass(&mut self, bytes: u64) {
        self.remaining = self.remaining.saturating_sub(bytes);
        self.passed = self.passed.saturating_add(bytes);
    }

    /// Goes past bytes without looking whether they are mapped.
    #[inline]
    fn skip(&mut self, bytes: u64) -> Result<(), ChainError> {
        if bytes > self.remaining {
            return Err(ChainError::TooShort);
        }
        self.pass(bytes);
        let mut left = bytes;
        loop {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(self.piece.len());
            self.piece = self.piece.split_at(now).1;
            left -= now as u64;
            let now = left.min(u64::from(self.behind.len));
            self.behind.address.0 = self.behind.address.0.wrapping_add(now);
            self.behind.len = self.behind.len.saturating_sub(now as u32);
            left -= now;
            if left == 0 {
                return Ok(());
            }
            let Some((first, rest)) = self.segments.split_first() else { return Err(ChainError::TooShort) };
            (self.behind, self.segments) = (*first, rest);
        }
    }

    /// Cuts this off behind `bytes` and returns what follows.
    #[inline]
    fn split_off(&mut self, bytes: u64) -> Result<Self, ChainError> {
        let mut rest = Self { passed: 0, ..*self };
        rest.skip(bytes)?;
        rest.passed = 0;
        self.remaining = bytes;
        Ok(rest)
    }
}

macro_rules! cursor {
    ($name:ident) => {
        impl<'a, M: GuestMemory> $name<'a, M> {
            #[inline]
            pub(crate) fn new(memory: &'a M, segments: &'a [Segment], len: u64) -> Self {
                Self(Cursor::new(memory, segments, len))
            }

            /// Bytes that are left.
            #[inline]
            #[must_use]
            pub const fn remaining(&self) -> u64 {
                self.0.remaining
            }

            /// Goes past `bytes` without touching them.
            ///
            /// # Errors
            /// [`ChainError::TooShort`]; then this has not moved.
            #[inline]
            pub fn skip(&mut self, bytes: u64) -> Result<(), ChainError> {
                self.0.skip(bytes)
            }

            /// Keeps the next `bytes` and returns what follows them.
            ///
            /// # Errors
            /// [`ChainError::TooShort`]; then this is as it was.
            #[inline]
            pub fn split_at(&mut self, bytes: u64) -> Result<Self, ChainError> {
                self.0.split_off(bytes).map(Self)
            }

            /// Goes past the next bytes that lie together in memory, at most `limit`, and returns where they are: for
            /// backends that copy them themselves. `None` if no bytes are left, or `limit` is 0.
            ///
            /// # Errors
            /// [`ChainError::Memory`].
            #[inline]
            pub fn next_piece(&mut self, limit: usize) -> Result<Option<GuestSlice<'a>>, ChainError> {
                Ok(self.0.next_piece(limit)?)
            }
        }

        impl<M> Clone for $name<'_, M> {
            fn clone(&self) -> Self {
                Self(Cursor { ..self.0 })
            }
        }
    };
}

/// Reads the device-readable bytes of a chain.
#[derive(Debug)]
pub struct Reader<'a, M>(Cursor<'a, M>);

/// Writes the device-writable bytes of a chain.
#[derive(Debug)]
pub struct Writer<'a, M>(Cursor<'a, M>);

cursor!(Reader);
cursor!(Writer);

impl<M: GuestMemory> Reader<'_, M> {
    /// Fills `into`.
    ///
    /// # Errors
    /// [`ChainError::TooShort`], then nothing was read; [`ChainError::Memory`], then some may have been.
    #[inline]
    pub fn read_exact(&mut self, mut into: &mut [u8]) -> Result<(), ChainError> {
        if into.len() as u64 > self.0.remaining {
            return Err(ChainError::TooShort);
        }
        while let Some(piece) = self.0.next_piece(into.len())? {
            let (now, rest) = into.split_at_mut_checked(piece.len()).ok_or(MemoryError::OutOfBounds)?;
            piece.read(0, now)?;
            into = rest;
        }
        Ok(())
    }

    /// Reads a value, such as a request's header.
    ///
    /// # Errors
    /// As [`Self::read_exact`].
    #[inline]
    pub fn read_value<T: FromBytes + IntoBytes>(&mut self) -> Result<T, ChainError> {
        let mut value = T::new_zeroed();
        self.read_exact(value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies the next `bytes` from guest memory to guest memory, with no copy between.
    ///
    /// # Errors
    /// [`ChainError::TooShort`] if either has fewer, then nothing was copied; [`ChainError::Memory`], then some may have
    /// been.
    #[inline]
    pub fn copy_to<N: GuestMemory>(&mut self, writer: &mut Writer<'_, N>, bytes: u64) -> Result<(), ChainError> {
        if bytes > self.0.remaining || bytes > writer.0.remaining {
            return Err(ChainError::TooShort);
        }
        let mut left = bytes;
        while let Some(from) = self.0.next_piece(usize::try_from(left).unwrap_or(usize::MAX))? {
            left -= from.len() as u64;
            let mut rest = from;
            while let Some(to) = writer.0.next_piece(rest.len())? {
                rest = rest.split_at(rest.copy_to(&to)).1;
            }
        }
        Ok(())
    }
}

impl<M: GuestMemory> Writer<'_, M> {
    /// Writes all of `from`.
    ///
    /// # Errors
    /// [`ChainError::TooShort`], then nothing was written; [`ChainError::Memory`], then some may have been.
    #[inline]
    pub fn write_all(&mut self, mut from: &[u8]) -> Result<(), ChainError> {
        if from.len() as u64 > self.0.remaining {
            return Err(ChainError::TooShort);
        }
        while let Some(piece) = self.0.next_piece(from.len())? {
            let (now, rest) = from.split_at_checked(piece.len()).ok_or(MemoryError::OutOfBounds)?;
            piece.write(0, now)?;
            from = rest;
        }
        Ok(())
    }

    /// Writes a value, such as a header.
    ///
    /// # Errors
    /// As [`Self::write_all`].
    #[inline]
    pub fn write_value<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<(), ChainError> {
        self.write_all(value.as_bytes())
    }

    /// Writes zeros.
    ///
    /// # Errors
    /// As [`Self::write_all`].
    #[inline]
    pub fn write_zeros(&mut self, bytes: u64) -> Result<(), ChainError> {
        if bytes > self.0.remaining {
            return Err(ChainError::TooShort);
        }
        let mut left = bytes;
        while let Some(piece) = self.0.next_piece(usize::try_from(left).unwrap_or(usize::MAX))? {
            piece.zero();
            left -= piece.len() as u64;
        }
        Ok(())
    }

    /// Bytes gone past since this writer was made: what to tell [`Queue::push`](crate::Queue::push), if all of them were
    /// written. 2^32 - 1 if there are more, for the ring cannot say 2^32.
    #[inline]
    #[must_use]
    pub fn written(&self) -> u32 {
        u32::try_from(self.0.passed).unwrap_or(u32::MAX)
    }
}
