//! The guest's memory as the front end tells of it.

use arrayvec::ArrayVec;

use crate::error::SessionError;
pub use crate::wire::MemoryRegion as Region;

/// The most regions that a guest's memory has here.
pub const MAX_REGIONS: usize = 32;

/// Checked regions: none is empty, none overlaps another in the guest's or in the front end's addresses.
#[derive(Debug, Default)]
pub(crate) struct MemoryTable {
    regions: ArrayVec<Region, MAX_REGIONS>,
}

impl MemoryTable {
    /// Whether a region may be added.
    ///
    /// # Errors
    /// It is empty, reaches beyond 64 bits or overlaps another, or there are too many.
    pub fn check<D, P>(&self, region: &Region) -> Result<(), SessionError<D, P>> {
        let Region { guest_address, size, user_address, mmap_offset } = *region;
        let ends = |start: u64| start.checked_add(size).is_some();
        if size == 0 || !(ends(guest_address) && ends(user_address) && ends(mmap_offset)) {
            return Err(SessionError::RegionSize { guest_address, size });
        }
        if self.regions.is_full() {
            return Err(SessionError::TooManyRegions);
        }
        let overlaps = |one: u64, other: u64, other_size| {
            let after = one.checked_sub(other).is_some_and(|distance| distance >= other_size);
            let before = other.checked_sub(one).is_some_and(|distance| distance >= size);
            !(after || before)
        };
        let is_taken = self.regions.iter().any(|other| {
            overlaps(guest_address, other.guest_address, other.size)
                || overlaps(user_address, other.user_address, other.size)
        });
        if is_taken { Err(SessionError::RegionOverlaps { guest_address }) } else { Ok(()) }
    }

    /// Adds a region that was checked.
    pub fn add(&mut self, region: Region) {
        // Full tables take no region, which `check` has said before.
        let _ = self.regions.try_push(region);
    }

    /// Removes the region with these addresses and size.
    pub fn remove(&mut self, wanted: &Region) -> Option<Region> {
        let key = |region: &Region| (region.guest_address, region.user_address, region.size);
        let place = self.regions.iter().position(|region| key(region) == key(wanted))?;
        Some(self.regions.remove(place))
    }

    /// Removes any region.
    pub fn pop(&mut self) -> Option<Region> {
        self.regions.pop()
    }

    /// The guest-physical address of an address of the front end.
    pub fn guest_address(&self, user_address: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user_address.checked_sub(region.user_address).filter(|offset| *offset < region.size)?;
            region.guest_address.checked_add(offset)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Checked = Result<(), SessionError<(), ()>>;

    const fn region(guest_address: u64, user_address: u64, size: u64) -> Region {
        Region { guest_address, size, user_address, mmap_offset: 0 }
    }

    fn table(regions: &[Region]) -> MemoryTable {
        let mut table = MemoryTable::default();
        regions.iter().for_each(|region| table.add(*region));
        table
    }

    #[test]
    fn addresses_of_the_front_end_are_found_in_the_guest() {
        let table = table(&[region(0, 0x7000_0000, 0x1000), region(0x10_0000, 0x5000_0000, 0x2000)]);
        for (user, guest) in [
            (0x7000_0000, Some(0)),
            (0x7000_0fff, Some(0xfff)),
            (0x7000_1000, None),
            (0x5000_1234, Some(0x10_1234)),
            (0x4fff_ffff, None),
            (0x5000_2000, None),
        ] {
            assert_eq!(table.guest_address(user), guest, "{user:#x}");
        }
    }

    #[test]
    fn regions_that_cannot_be_are_refused() {
        let table = table(&[region(0x1000, 0x1_1000, 0x1000), region(0x4000, 0x1_4000, 0x1000)]);
        let overlaps = |guest_address| Err(SessionError::RegionOverlaps { guest_address });
        let bad_size = |guest_address, size| Err(SessionError::RegionSize { guest_address, size });
        for (candidate, expected) in [
            (region(0x2000, 0x1_2000, 0x2000), Ok(())),
            (region(0x2000, 0x1_2000, 0x2001), overlaps(0x2000)),
            (region(0x0, 0x2_0000, 0x1001), overlaps(0)),
            (region(0x1800, 0x2_0000, 1), overlaps(0x1800)),
            (region(0x9000, 0x1_1fff, 1), overlaps(0x9000)),
            (region(0x9000, 0x9000, 0), bad_size(0x9000, 0)),
            (region(u64::MAX, 0x9000, 2), bad_size(u64::MAX, 2)),
            (region(0x9000, u64::MAX, 2), bad_size(0x9000, 2)),
        ] {
            let checked: Checked = table.check(&candidate);
            assert_eq!(checked, expected, "{candidate:?}");
        }
    }

    #[test]
    fn a_table_has_an_end() {
        let mut table = MemoryTable::default();
        for place in 0..MAX_REGIONS as u64 {
            table.add(region(place * 0x1000, place * 0x1000, 0x1000));
        }
        let checked: Checked = table.check(&region(u64::MAX - 0x1000, u64::MAX - 0x1000, 0x1000));
        assert_eq!(checked, Err(SessionError::TooManyRegions));
    }

    #[test]
    fn only_the_very_same_region_is_removed() {
        let mut table = table(&[region(0x1000, 0x1_1000, 0x1000)]);
        assert_eq!(table.remove(&region(0x1000, 0x1_1000, 0x800)), None);
        assert_eq!(table.remove(&region(0x1000, 0x1_1000, 0x1000)), Some(region(0x1000, 0x1_1000, 0x1000)));
        assert_eq!(table.guest_address(0x1_1000), None);
    }
}
