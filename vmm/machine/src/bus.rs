//! Which device an address belongs to.

use alloc::vec::Vec;
use core::ops::Range;

/// How many unclaimed addresses are remembered, so that each is named once in the log.
const MAX_REMEMBERED: usize = 64;

/// A range that overlaps another one, or that is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the range is empty or overlaps another one")]
pub struct Taken;

/// An address space that devices claim ranges of: the ports, or the memory beside the RAM.
#[derive(Clone, Debug)]
pub struct Bus<T> {
    /// Ascending, without overlap.
    claims: Vec<(Range<u64>, T)>,
    unclaimed: Unclaimed,
}

/// Accesses that no device answered.
#[derive(Clone, Default, Debug)]
struct Unclaimed {
    count: u64,
    /// The first addresses, at most [`MAX_REMEMBERED`].
    remembered: Vec<u64>,
}

impl<T: Copy> Bus<T> {
    /// One without devices.
    #[must_use]
    pub const fn new() -> Self {
        Self { claims: Vec::new(), unclaimed: Unclaimed { count: 0, remembered: Vec::new() } }
    }

    /// Gives `range` to a device.
    ///
    /// # Errors
    /// If a part of it is taken.
    pub fn claim(&mut self, range: Range<u64>, target: T) -> Result<(), Taken> {
        let index = self.claims.partition_point(|(claimed, _)| claimed.end <= range.start);
        if range.is_empty() || self.claims.get(index).is_some_and(|(next, _)| next.start < range.end) {
            return Err(Taken);
        }
        self.claims.insert(index, (range, target));
        Ok(())
    }

    /// Takes away all that `is_of` names.
    pub fn release(&mut self, mut is_of: impl FnMut(T) -> bool) {
        self.claims.retain(|(_, target)| !is_of(*target));
    }

    /// The device that has all of the `length` bytes at `address`, and their offset in its range.
    #[must_use]
    pub fn find(&self, address: u64, length: usize) -> Option<(T, u64)> {
        let end = address.checked_add(u64::try_from(length).ok()?)?;
        let index = self.claims.partition_point(|(claimed, _)| claimed.end <= address);
        let (range, target) = self.claims.get(index)?;
        (range.start <= address && end <= range.end).then_some((*target, address.wrapping_sub(range.start)))
    }

    /// Counts an access that no device answers. True if this address has not been seen before, as far as that is
    /// remembered: then it may be worth a line in the log.
    pub fn count_unclaimed(&mut self, address: u64) -> bool {
        let Unclaimed { count, remembered } = &mut self.unclaimed;
        *count = count.saturating_add(1);
        let is_new = remembered.len() < MAX_REMEMBERED && !remembered.contains(&address);
        if is_new {
            remembered.push(address);
        }
        is_new
    }

    /// How many accesses no device answered.
    #[must_use]
    pub const fn unclaimed(&self) -> u64 {
        self.unclaimed.count
    }
}

impl<T: Copy> Default for Bus<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Bus<char> {
        let mut bus = Bus::new();
        bus.claim(0x100..0x110, 'b').unwrap();
        bus.claim(0x10..0x20, 'a').unwrap();
        bus.claim(0x110..0x111, 'c').unwrap();
        bus
    }

    #[test]
    fn an_access_finds_the_device_that_has_all_of_it() {
        for (address, length, expected) in [
            (0x10, 1, Some(('a', 0))),
            (0x1c, 4, Some(('a', 0xc))),
            (0x1d, 4, None),
            (0xf, 1, None),
            (0x20, 1, None),
            (0x10f, 1, Some(('b', 0xf))),
            (0x10f, 2, None),
            (0x110, 1, Some(('c', 0))),
            (u64::MAX, 8, None),
        ] {
            assert_eq!(bus().find(address, length), expected, "{address:#x} {length}");
        }
    }

    #[test]
    fn a_range_is_taken_once() {
        for range in [0x1f..0x21, 0xf..0x11, 0x12..0x13, 0x0..0x200, 0x30..0x30] {
            assert_eq!(bus().claim(range.clone(), 'x'), Err(Taken), "{range:x?}");
        }
        assert_eq!(bus().claim(0x20..0x100, 'x'), Ok(()));
    }

    #[test]
    fn a_released_range_can_be_claimed_again() {
        let mut bus = bus();
        bus.release(|target| target == 'b');
        assert_eq!(bus.find(0x100, 1), None);
        assert_eq!(bus.claim(0x100..0x110, 'x'), Ok(()));
    }

    #[test]
    fn each_unclaimed_address_is_new_once_and_all_accesses_are_counted() {
        let mut bus = bus();
        assert!(bus.count_unclaimed(0x80));
        assert!(!bus.count_unclaimed(0x80));
        assert_eq!(bus.unclaimed(), 2);
    }

    #[test]
    fn a_guest_that_tries_all_addresses_fills_no_more_than_a_bounded_list() {
        let mut bus = bus();
        let new = (0..0x1_0000).filter(|address| bus.count_unclaimed(*address)).count();
        assert_eq!(new, MAX_REMEMBERED);
        assert_eq!(bus.unclaimed(), 0x1_0000);
    }
}
