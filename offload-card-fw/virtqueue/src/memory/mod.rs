//! Guest memory: shared with CPUs that change it at any time, and the only module with `unsafe`.
//!
//! What is relied on:
//! - Guest memory is not part of a Rust allocation; whoever maps it promises so, and that it stays mapped, when making a
//!   [`GuestSlice`] or adding a region to a [`MemoryMap`]. No reference to it is ever made, so the compiler assumes
//!   nothing about its contents.
//! - Fields of rings are accessed by naturally aligned atomics, whose orderings order them against the guest's CPUs as
//!   against any other.
//! - Buffers are copied by volatile accesses, or by one opaque instruction: none after the copy is done, so that what was
//!   checked on it is what is used. If the guest writes a buffer meanwhile, the copy holds some mixture of bytes: its own loss.
//! - Every access is checked against the bounds of its slice, and every slice against its region.
#![expect(unsafe_code, reason = "guest memory is reached by pointers, as it is shared with the guest's CPUs")]

#[cfg(not(loom))]
mod copy;
#[cfg(test)]
pub(crate) mod death;
#[cfg(all(not(loom), any(test, feature = "host")))]
mod host;
#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
mod map;
#[cfg_attr(loom, expect(dead_code, reason = "loom has no caches"))]
mod prefetch;
#[cfg(not(loom))]
mod slice;
#[cfg(all(test, not(loom)))]
mod tests;

use core::fmt;
use core::sync::atomic::Ordering;

#[cfg(all(not(loom), any(test, feature = "host")))]
pub use host::HostMemory;
#[cfg(loom)]
pub use loom::{GuestSlice, LoomMemory, Plain};
#[cfg(not(loom))]
pub use map::{MAX_REGIONS, MemoryMap, RegionError};
pub use prefetch::Access;
pub(crate) use prefetch::LINE;
#[cfg(not(loom))]
pub use slice::GuestSlice;
use thiserror::Error;

/// An address in a guest's memory, as its driver names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct GuestAddress(pub u64);

impl GuestAddress {
    /// The address `bytes` further on, unless that wraps.
    #[inline]
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Why memory cannot be accessed: the fault of who gave the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// no memory is mapped at guest address {0}
    #[error("no memory is mapped at guest address {0}")]
    Unmapped(GuestAddress),
    /// the access leaves the memory that was given
    #[error("the access leaves the memory that was given")]
    OutOfBounds,
    /// the field is not aligned to its size
    #[error("the field is not aligned to its size")]
    Misaligned,
}

/// A guest's memory, by the addresses that its drivers use.
pub trait GuestMemory {
    /// The longest piece at `address` that is mapped in one, but at most `limit` bytes: at least one, unless `limit` is 0.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`].
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError>;

    /// Where the queue that is being served keeps what is in flight, if it shall outlive this program
    /// (see [`Queue::recover`](crate::Queue::recover)).
    #[inline]
    fn in_flight(&self) -> Option<GuestSlice<'_>> {
        None
    }

    /// The `len` bytes at `address`, if they are mapped in one piece.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`], [`MemoryError::OutOfBounds`].
    #[inline]
    fn slice(&self, address: GuestAddress, len: usize) -> Result<GuestSlice<'_>, MemoryError> {
        let piece = self.piece(address, len)?;
        if piece.len() == len { Ok(piece) } else { Err(MemoryError::OutOfBounds) }
    }

    /// Copies the bytes at `address`, which may lie in several regions.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`]; `into` may have been filled in part.
    #[inline]
    fn read(&self, mut address: GuestAddress, mut into: &mut [u8]) -> Result<(), MemoryError> {
        while !into.is_empty() {
            let piece = self.piece(address, into.len())?;
            let (now, rest) = into.split_at_mut_checked(piece.len()).ok_or(MemoryError::OutOfBounds)?;
            piece.read(0, now)?;
            into = rest;
            address = next(address, piece.len());
        }
        Ok(())
    }

    /// Copies `from` to `address`; the bytes there may lie in several regions.
    ///
    /// # Errors
    /// [`MemoryError::Unmapped`]; a part may have been written.
    #[inline]
    fn write(&self, mut address: GuestAddress, mut from: &[u8]) -> Result<(), MemoryError> {
        while !from.is_empty() {
            let piece = self.piece(address, from.len())?;
            let (now, rest) = from.split_at_checked(piece.len()).ok_or(MemoryError::OutOfBounds)?;
            piece.write(0, now)?;
            from = rest;
            address = next(address, piece.len());
        }
        Ok(())
    }

    /// The little-endian `u16` at `address`.
    ///
    /// # Errors
    /// Every [`MemoryError`].
    #[inline]
    fn load_u16(&self, address: GuestAddress, order: Ordering) -> Result<u16, MemoryError> {
        self.slice(address, 2)?.load_u16(0, order)
    }

    /// Writes a little-endian `u16` at `address`.
    ///
    /// # Errors
    /// Every [`MemoryError`].
    #[inline]
    fn store_u16(&self, address: GuestAddress, value: u16, order: Ordering) -> Result<(), MemoryError> {
        self.slice(address, 2)?.store_u16(0, value, order)
    }
}

/// Where memory goes on after a piece. Memory ends before the last address, so no piece ends beyond it.
#[inline]
fn next(address: GuestAddress, len: usize) -> GuestAddress {
    GuestAddress(address.0.wrapping_add(len as u64))
}

/// A guest's memory together with the place where one queue keeps what is in flight.
#[derive(Clone, Copy, Debug)]
pub struct WithInFlight<'a, M> {
    /// The guest's memory.
    pub memory: &'a M,
    /// The queue's part of the memory that it shares with the front end.
    pub region: GuestSlice<'a>,
}

impl<M: GuestMemory> GuestMemory for WithInFlight<'_, M> {
    #[inline]
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.memory.piece(address, limit)
    }

    #[inline]
    fn in_flight(&self) -> Option<GuestSlice<'_>> {
        Some(self.region)
    }
}
