//! Reading and writing a chain's bytes in order, however the driver has cut them up.

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::chain::Segment;
use crate::memory::{GuestAddress, GuestMemory, GuestSlice, MemoryError};

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
    /// What is left of the segment behind that piece: where it is, and its bytes. Apart, as they were stored just now: a CPU
    /// waits until stores are done when it loads two of them in one.
    behind: GuestAddress,
    behind_len: u32,
    /// Bytes left in all.
    remaining: u64,
    /// Bytes gone past.
    passed: u64,
}

impl<'a, M: GuestMemory> Cursor<'a, M> {
    #[inline]
    fn new(memory: &'a M, segments: &'a [Segment], remaining: u64) -> Self {
        let (behind, behind_len) = (GuestAddress(0), 0);
        Self { memory, segments, piece: GuestSlice::empty(), behind, behind_len, remaining, passed: 0 }
    }

    /// Goes past the next bytes that lie together, at least 1 and at most `limit`; nothing if none are left or asked for.
    #[inline]
    fn next_piece(&mut self, limit: usize) -> Result<Option<GuestSlice<'a>>, MemoryError> {
        if limit == 0 || self.remaining == 0 {
            return Ok(None);
        }
        while self.piece.is_empty() {
            while self.behind_len == 0 {
                let Some((first, rest)) = self.segments.split_first() else { return Ok(None) };
                (self.behind, self.behind_len, self.segments) = (first.address, first.len, rest);
            }
            self.piece = self.memory.piece(self.behind, self.behind_len as usize)?;
            // A piece is no longer than was asked for.
            let len = self.piece.len() as u32;
            self.behind.0 = self.behind.0.wrapping_add(u64::from(len));
            self.behind_len = self.behind_len.saturating_sub(len);
        }
        let limit = usize::try_from(self.remaining).map_or(limit, |remaining| limit.min(remaining));
        let (now, rest) = self.piece.split_at(limit);
        self.piece = rest;
        self.pass(now.len() as u64);
        Ok(Some(now))
    }

    /// Goes past the next `len` bytes, of which as many are left, if they lie together: most buffers are in one piece.
    #[inline(always)]
    fn together(&mut self, len: usize) -> Option<GuestSlice<'a>> {
        if self.piece.is_empty() && self.behind_len == 0 {
            let (first, rest) = self.segments.split_first()?;
            let piece = self.memory.piece(first.address, first.len as usize).ok()?;
            if piece.len() != first.len as usize {
                return None;
            }
            (self.piece, self.segments) = (piece, rest);
        }
        if self.piece.len() < len {
            return None;
        }
        let (now, rest) = self.piece.split_at(len);
        self.piece = rest;
        self.pass(len as u64);
        Some(now)
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
            let now = left.min(u64::from(self.behind_len));
            self.behind.0 = self.behind.0.wrapping_add(now);
            self.behind_len = self.behind_len.saturating_sub(now as u32);
            left -= now;
            if left == 0 {
                return Ok(());
            }
            let Some((first, rest)) = self.segments.split_first() else { return Err(ChainError::TooShort) };
            (self.behind, self.behind_len, self.segments) = (first.address, first.len, rest);
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
    #[inline(always)]
    pub fn read_exact(&mut self, into: &mut [u8]) -> Result<(), ChainError> {
        if into.len() as u64 > self.0.remaining {
            return Err(ChainError::TooShort);
        }
        match self.0.together(into.len()) {
            Some(piece) => Ok(piece.read(0, into)?),
            None => self.read_pieces(into),
        }
    }

    #[inline(never)]
    fn read_pieces(&mut self, mut into: &mut [u8]) -> Result<(), ChainError> {
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
    #[inline(always)]
    pub fn write_all(&mut self, from: &[u8]) -> Result<(), ChainError> {
        if from.len() as u64 > self.0.remaining {
            return Err(ChainError::TooShort);
        }
        match self.0.together(from.len()) {
            Some(piece) => Ok(piece.write(0, from)?),
            None => self.write_pieces(from),
        }
    }

    #[inline(never)]
    fn write_pieces(&mut self, mut from: &[u8]) -> Result<(), ChainError> {
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
