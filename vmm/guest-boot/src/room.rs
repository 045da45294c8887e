//! Which RAM is still free while a guest is loaded.

use core::ops::Range;

use arrayvec::ArrayVec;

use crate::layout::{MapEntry, MemoryKind, MemoryMap};

/// Conventional memory without its first page, which holds what the BIOS of a real machine keeps there and so traps null
/// pointers of the loaders.
pub const LOW: Range<u64> = 0x1000..0xa_0000;

/// First byte above what a PC's BIOS knows, up to where 32-bit addresses end.
pub const EXTENDED: Range<u64> = 0x10_0000..1 << 32;

/// More pieces than any loader takes: a kernel's segments and a handful of structures.
const MAX_TAKEN: usize = 48;

/// RAM with the pieces that have been given away.
#[derive(Clone, Debug)]
pub struct Room<'m> {
    map: &'m MemoryMap,
    taken: ArrayVec<Range<u64>, MAX_TAKEN>,
}

impl<'m> Room<'m> {
    /// All RAM of the map is free.
    pub fn new(map: &'m MemoryMap) -> Self {
        Self { map, taken: ArrayVec::new() }
    }

    /// Takes this range; false if it is not RAM, not free, or there are too many pieces. An empty one is always free.
    #[must_use]
    pub fn take(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        self.is_free(&range) && self.taken.try_push(range).is_ok()
    }

    /// The lowest free place within `bounds`, taken.
    pub fn lowest(&mut self, size: u64, alignment: u64, bounds: Range<u64>) -> Option<u64> {
        let starts = self.ram().map(|ram| ram.start).chain(self.taken.iter().map(|taken| taken.end));
        let fitting = starts.filter_map(|start| {
            let start = start.max(bounds.start).checked_next_multiple_of(alignment)?;
            self.fits(start, size, &bounds).then_some(start)
        });
        let start = fitting.min()?;
        self.take(start..start + size).then_some(start)
    }

    /// The highest free place within `bounds`, taken.
    pub fn highest(&mut self, size: u64, alignment: u64, bounds: Range<u64>) -> Option<u64> {
        let ends = self.ram().map(|ram| ram.end).chain(self.taken.iter().map(|taken| taken.start));
        let fitting = ends.filter_map(|end| {
            let start = end.min(bounds.end).checked_sub(size)?;
            let start = start - start.checked_rem(alignment)?;
            self.fits(start, size, &bounds).then_some(start)
        });
        let start = fitting.max()?;
        self.take(start..start + size).then_some(start)
    }

    /// Bytes up to the end of the highest RAM below 4 GiB.
    pub fn low_ram_end(&self) -> u64 {
        self.ram().map(|ram| ram.end).filter(|end| *end <= EXTENDED.end).max().unwrap_or(0)
    }

    /// Whether a RAM range holds all of it, taken or not.
    pub fn is_ram(&self, range: &Range<u64>) -> bool {
        self.ram().any(|ram| ram.start <= range.start && range.end <= ram.end)
    }

    fn fits(&self, start: u64, size: u64, bounds: &Range<u64>) -> bool {
        start
            .checked_add(size)
            .is_some_and(|end| bounds.start <= start && end <= bounds.end && self.is_free(&(start..end)))
    }

    fn is_free(&self, range: &Range<u64>) -> bool {
        self.is_ram(range) && self.taken.iter().all(|taken| taken.end <= range.start || range.end <= taken.start)
    }

    fn ram(&self) -> impl Iterator<Item = &Range<u64>> {
        self.map.iter().filter(|entry| entry.kind == MemoryKind::Ram).map(|MapEntry { range, .. }| range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> MemoryMap {
        let entry = |range, kind| MapEntry { range, kind };
        [
            entry(0..0xa_0000, MemoryKind::Ram),
            entry(0xa_0000..0x10_0000, MemoryKind::Reserved),
            entry(0x10_0000..0x100_0000, MemoryKind::Ram),
            entry(1 << 32..5 << 30, MemoryKind::Ram),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn the_lowest_place_is_after_what_is_taken_and_aligned() {
        let map = map();
        let mut room = Room::new(&map);
        assert!(room.take(0x10_0000..0x10_0801));
        assert_eq!(room.lowest(0x1000, 0x1000, EXTENDED), Some(0x10_1000));
        assert_eq!(room.lowest(0x10, 0x10, EXTENDED), Some(0x10_0810));
    }

    #[test]
    fn the_highest_place_is_below_the_bound_and_aligned() {
        let map = map();
        let mut room = Room::new(&map);
        assert_eq!(room.highest(0x1800, 0x1000, EXTENDED), Some(0xff_e000));
        assert_eq!(room.highest(0x1800, 0x1000, 0..0x90_0000), Some(0x8f_e000));
        assert_eq!(room.highest(0x1000, 0x1000, EXTENDED), Some(0xff_d000));
    }

    #[test]
    fn nothing_is_given_twice_or_outside_of_ram() {
        let map = map();
        let mut room = Room::new(&map);
        assert!(room.take(0x10_0000..0x20_0000));
        assert!(!room.take(0x1f_ffff..0x20_0001));
        assert!(!room.take(0x9_ffff..0xa_0001));
        assert_eq!(room.lowest(0xf0_0000, 1, EXTENDED), None);
        assert_eq!(room.highest(u64::MAX, 1, EXTENDED), None);
    }
}
