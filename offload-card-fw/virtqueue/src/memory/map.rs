//! Guest memory as a few regions, mapped anywhere.

use core::ptr::NonNull;

use arrayvec::ArrayVec;
use thiserror::Error;

use super::{GuestAddress, GuestMemory, GuestSlice, MemoryError};

/// How many regions a [`MemoryMap`] holds: more than a VMM makes of a guest's memory, memory slots included.
pub const MAX_REGIONS: usize = 64;

/// Why a region cannot be added to a [`MemoryMap`]: the fault of who describes the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RegionError {
    /// the region has no bytes
    #[error("the region has no bytes")]
    Empty,
    /// the region ends beyond the last address
    #[error("the region ends beyond the last address")]
    Wraps,
    /// the region overlaps another
    #[error("the region overlaps another")]
    Overlaps,
    /// there are too many regions
    #[error("there are more than {MAX_REGIONS} regions")]
    TooMany,
}

/// Guest memory, by the regions in which it is mapped.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    /// By address, apart from each other.
    regions: ArrayVec<Region, MAX_REGIONS>,
}

#[derive(Clone, Copy, Debug)]
struct Region {
    base: u64,
    len: u64,
    mapped: NonNull<u8>,
}

// SAFETY: A region is a promise about memory that all threads share (`MemoryMap::add`).
unsafe impl Send for Region {}
// SAFETY: As above.
unsafe impl Sync for Region {}

impl MemoryMap {
    /// A map of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { regions: ArrayVec::new_const() }
    }

    /// Adds the `len` bytes at guest address `base`, which are mapped at `mapped`.
    ///
    /// # Errors
    /// [`RegionError`]; then nothing is added.
    ///
    /// # Safety
    /// As long as this map or a clone of it lives, the bytes stay mapped, readable and writable, and this program
    /// touches them only through [`GuestSlice`]s.
    pub unsafe fn add(&mut self, base: GuestAddress, len: u64, mapped: NonNull<u8>) -> Result<(), RegionError> {
        let end = base.0.checked_add(len).ok_or(RegionError::Wraps)?;
        if len == 0 {
            return Err(RegionError::Empty);
        }
        if usize::try_from(len).is_err() || isize::try_from(len).is_err() {
            return Err(RegionError::Wraps);
        }
        let at = self.regions.partition_point(|region| region.base < base.0);
        let overlaps_next = self.regions.get(at).is_some_and(|next| next.base < end);
        let last = at.checked_sub(1).and_then(|last| self.regions.get(last));
        if overlaps_next || last.is_some_and(|last| last.base + last.len > base.0) {
            return Err(RegionError::Overlaps);
        }
        self.regions.try_insert(at, Region { base: base.0, len, mapped }).map_err(|_| RegionError::TooMany)
    }

    /// Removes the region that begins at guest address `base`, and returns where it was mapped and how long it was.
    pub fn remove(&mut self, base: GuestAddress) -> Option<(NonNull<u8>, u64)> {
        let at = self.regions.iter().position(|region| region.base == base.0)?;
        let region = self.regions.remove(at);
        Some((region.mapped, region.len))
    }

    /// The guest addresses and lengths of all regions, in order.
    pub fn regions(&self) -> impl Iterator<Item = (GuestAddress, u64)> {
        self.regions.iter().map(|region| (GuestAddress(region.base), region.len))
    }
}

impl GuestMemory for MemoryMap {
    #[inline]
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        if limit == 0 {
            return Ok(GuestSlice::empty());
        }
        for region in &self.regions {
            let offset = address.0.wrapping_sub(region.base);
            if offset < region.len {
                // `add` has checked that lengths fit `usize`.
                let len = (region.len - offset) as usize;
                // SAFETY: `offset` is in the region, whose bytes `add`'s caller vouches for as long as `self` lives.
                return Ok(unsafe { GuestSlice::new(region.mapped.add(offset as usize), len.min(limit)) });
            }
        }
        Err(MemoryError::Unmapped(address))
    }
}
