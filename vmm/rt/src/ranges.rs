//! Free ranges of addresses.

use alloc::collections::BTreeMap;

/// Address ranges that are free, from which parts are taken and to which they come back.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// End of each free range by its start; no two touch.
    free: BTreeMap<u64, u64>,
}

impl Ranges {
    pub(crate) const fn new() -> Self {
        Self { free: BTreeMap::new() }
    }

    /// Adds a range that is not free yet. An empty one is nothing.
    pub(crate) fn add(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        if let Some((&before, &before_end)) = self.free.range(..start).next_back()
            && before_end == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(after_end) = self.free.remove(&end) {
            end = after_end;
        }
        self.free.insert(start, end);
    }

    /// Takes `size` bytes whose address is a multiple of `alignment`, a power of two, from the lowest range that has
    /// them.
    pub(crate) fn take(&mut self, size: u64, alignment: u64) -> Option<u64> {
        let (start, end, address) = self.free.iter().find_map(|(&start, &end)| {
            let address = start.checked_next_multiple_of(alignment)?;
            (address.checked_add(size)? <= end).then_some((start, end, address))
        })?;
        self.free.remove(&start);
        for (start, end) in [(start, address), (address + size, end)] {
            if start < end {
                self.free.insert(start, end);
            }
        }
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::Ranges;
    use crate::testing::property_config;

    #[test]
    fn what_comes_back_joins_its_neighbours() {
        let mut ranges = Ranges::new();
        ranges.add(0x1000, 0x4000);
        let parts: Vec<_> = (0..3).filter_map(|_| ranges.take(0x1000, 0x1000)).collect();
        assert_eq!(parts, [0x1000, 0x2000, 0x3000]);
        assert_eq!(ranges.take(1, 1), None);
        ranges.add(0x1000, 0x2000);
        ranges.add(0x3000, 0x4000);
        ranges.add(0x2000, 0x3000);
        assert_eq!(ranges.take(0x3000, 0x1000), Some(0x1000));
    }

    #[test]
    fn an_aligned_part_leaves_what_is_before_it_free() {
        let mut ranges = Ranges::new();
        ranges.add(0x1000, 0x4_0000);
        assert_eq!(ranges.take(0x1_0000, 0x1_0000), Some(0x1_0000));
        assert_eq!(ranges.take(0xf000, 0x1000), Some(0x1000));
        assert_eq!(ranges.take(0x2_0000, 0x1000), Some(0x2_0000));
    }

    #[test]
    fn ranges_at_the_end_of_the_numbers_do_not_wrap() {
        let mut ranges = Ranges::new();
        ranges.add(u64::MAX - 0x1000, u64::MAX);
        assert_eq!(ranges.take(0x1001, 1), None);
        assert_eq!(ranges.take(1, 1 << 63), None);
        assert_eq!(ranges.take(0x1000, 1), Some(u64::MAX - 0x1000));
    }

    proptest! {
        #![proptest_config(property_config())]

        #[test]
        fn no_address_is_taken_twice_and_none_is_lost(
            steps in prop::collection::vec((1_u64..40, 0_u32..6, prop::bool::ANY), 1..60)
        ) {
            const END: u64 = 256;
            let mut ranges = Ranges::new();
            ranges.add(0, END);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (size, power, give_back) in steps {
                if give_back && !taken.is_empty() {
                    let (start, size) = taken.swap_remove(size as usize % taken.len());
                    ranges.add(start, start + size);
                } else if let Some(start) = ranges.take(size, 1 << power) {
                    prop_assert_eq!(start % (1 << power), 0);
                    prop_assert!(start + size <= END);
                    prop_assert!(taken.iter().all(|(other, length)| start >= other + length || start + size <= *other));
                    taken.push((start, size));
                }
            }
            for (start, size) in taken {
                ranges.add(start, start + size);
            }
            prop_assert_eq!(ranges.take(END, 1), Some(0));
        }
    }
}
