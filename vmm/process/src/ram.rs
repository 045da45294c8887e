//! The guest's RAM: one memory object, mapped into the guest and into the own domain.

use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::{Rights, Status};
use dragonfly_rt::Mapping;
use dragonfly_rt::sys::{Commit, Memory, Owned, Vm};

/// Where RAM ends at the latest below 4 GiB: above are the devices.
const LOW_END: u64 = 3 << 30;

/// Where RAM goes on that has no place below.
pub(crate) const HIGH_START: u64 = 4 << 30;

/// Where RAM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes from address 0 on.
    pub(crate) low: u64,
    /// Bytes from 4 GiB on.
    pub(crate) high: u64,
}

impl Layout {
    /// The layout of so many bytes.
    pub(crate) const fn new(size: u64) -> Self {
        let low = if size < LOW_END { size } else { LOW_END };
        Self { low, high: size - low }
    }

    /// Where in the memory object a range of guest-physical addresses lies; `None` if it is not all RAM.
    pub(crate) fn offset(self, address: u64, size: u64) -> Option<u64> {
        let end = address.checked_add(size)?;
        if end <= self.low {
            return Some(address);
        }
        let above = address.checked_sub(HIGH_START)?;
        (above.checked_add(size)? <= self.high).then_some(above + self.low)
    }
}

/// An access to an address that is not RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotRam;

/// The guest's RAM. It is fresh: all zeros when the machine starts.
pub(crate) struct Ram {
    layout: Layout,
    mapping: Mapping,
    memory: Owned<Memory>,
}

impl Ram {
    /// Makes RAM of so many bytes and maps it into the guest. Frames are given when they are touched.
    pub(crate) fn new(vm: Vm, size: u64) -> Result<Self, Status> {
        let layout = Layout::new(size);
        let memory = Memory::create(size, Commit::OnDemand)?;
        let mapping = Mapping::new(*memory, 0, size, Rights::READ | Rights::WRITE)?;
        let rights = Rights::READ | Rights::WRITE | Rights::EXECUTE;
        vm.map(*memory, 0, 0, layout.low, rights)?;
        if layout.high > 0 {
            vm.map(*memory, HIGH_START, layout.low, layout.high, rights)?;
        }
        Ok(Self { layout, mapping, memory })
    }

    /// Where it is.
    pub(crate) const fn layout(&self) -> Layout {
        self.layout
    }

    /// The memory object.
    pub(crate) fn memory(&self) -> Memory {
        *self.memory
    }

    /// The aligned word that has an address, read at once; `None` if it is not RAM.
    #[inline]
    pub(crate) fn word_at(&self, address: u64) -> Option<u64> {
        let offset = if address < self.layout.low { address } else { self.layout.offset(address, 1)? };
        let word = self.mapping.words().get(usize::try_from(offset / 8).ok()?)?;
        Some(word.load(Ordering::Relaxed))
    }

    /// Copies bytes out; a naturally aligned value of up to 8 bytes at once.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> Result<(), NotRam> {
        let offset = self.layout.offset(address, into.len() as u64).ok_or(NotRam)?;
        let Some((word, part)) = self.word(offset, into.len()) else {
            return self.mapping.read(offset, into).map_err(|_| NotRam);
        };
        into.copy_from_slice(part.of(&word.load(Ordering::Relaxed).to_le_bytes()));
        Ok(())
    }

    /// Copies bytes in; a naturally aligned value of up to 8 bytes at once.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), NotRam> {
        let offset = self.layout.offset(address, bytes.len() as u64).ok_or(NotRam)?;
        let Some((word, part)) = self.word(offset, bytes.len()) else {
            return self.mapping.write(offset, bytes).map_err(|_| NotRam);
        };
        // Its neighbours in the word stay what other vCPUs make of them meanwhile. The update never gives up.
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(part.replaced(old, bytes)));
        Ok(())
    }

    /// Writes `new` if `current` is still there; whether it did. In one step for what lies in an aligned word of 8
    /// bytes; what crosses one is compared first and written then.
    pub(crate) fn compare_exchange(&self, address: u64, current: &[u8], new: &[u8]) -> Result<bool, NotRam> {
        let offset = self.layout.offset(address, new.len() as u64).ok_or(NotRam)?;
        let Some((word, part)) = self.word(offset, new.len()) else {
            let mut found = [0; MAX_COMPARED];
            let found = found.get_mut(..new.len()).ok_or(NotRam)?;
            self.read(address, found)?;
            if found != current {
                return Ok(false);
            }
            return self.write(address, new).map(|()| true);
        };
        let exchanged = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| {
            (part.of(&old.to_le_bytes()) == current).then(|| part.replaced(old, new))
        });
        Ok(exchanged.is_ok())
    }

    /// The aligned word that has all of a value, and where in it the value is.
    fn word(&self, offset: u64, size: usize) -> Option<(&AtomicU64, Part)> {
        let part = Part::of_word(offset, size)?;
        Some((self.mapping.word(offset & !7).ok()?, part))
    }
}

/// The most bytes that are compared: two words.
const MAX_COMPARED: usize = 16;

/// Bytes of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: usize,
    size: usize,
}

impl Part {
    /// The part of its word that a value of this size at this offset is; `None` if it is not in one word.
    fn of_word(offset: u64, size: usize) -> Option<Self> {
        let start = (offset & 7) as usize;
        (start + size.min(9) <= 8).then_some(Self { start, size })
    }

    /// Its bytes of a word.
    fn of(self, word: &[u8; 8]) -> &[u8] {
        word.get(self.start..self.start + self.size).unwrap_or_default()
    }

    /// The word with its bytes replaced.
    fn replaced(self, word: u64, bytes: &[u8]) -> u64 {
        let mut word = word.to_le_bytes();
        for (into, from) in word.iter_mut().skip(self.start).zip(bytes) {
            *into = *from;
        }
        u64::from_le_bytes(word)
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, Part};

    const GIB: u64 = 1 << 30;

    #[test]
    fn little_memory_lies_below_the_devices() {
        let layout = Layout::new(GIB);
        assert_eq!(layout, Layout { low: GIB, high: 0 });
        assert_eq!(layout.offset(0, GIB), Some(0));
        assert_eq!(layout.offset(GIB - 1, 2), None);
        assert_eq!(layout.offset(4 * GIB, 1), None);
    }

    #[test]
    fn what_has_no_place_below_the_devices_goes_on_at_4_gib() {
        let layout = Layout::new(5 * GIB);
        assert_eq!(layout, Layout { low: 3 * GIB, high: 2 * GIB });
        assert_eq!(layout.offset(3 * GIB - 8, 8), Some(3 * GIB - 8));
        assert_eq!(layout.offset(4 * GIB, 8), Some(3 * GIB));
        assert_eq!(layout.offset(6 * GIB - 8, 8), Some(5 * GIB - 8));
    }

    #[test]
    fn a_range_that_leaves_ram_is_not_ram() {
        let layout = Layout::new(5 * GIB);
        for (address, size) in
            [(3 * GIB - 8, 9), (3 * GIB, 1), (4 * GIB - 1, 2), (6 * GIB - 8, 9), (u64::MAX, 1), (u64::MAX, u64::MAX)]
        {
            assert_eq!(layout.offset(address, size), None, "{address:#x}");
        }
    }

    #[test]
    fn a_part_of_a_word_is_replaced_and_its_neighbours_are_not() {
        let part = Part::of_word(0x1002, 4).unwrap();
        assert_eq!(part.replaced(0x1122_3344_5566_7788, &[1, 2, 3, 4]), 0x1122_0403_0201_7788);
        assert_eq!(part.of(&[0, 1, 2, 3, 4, 5, 6, 7]), [2, 3, 4, 5]);
        assert_eq!(Part::of_word(8, 8).unwrap().replaced(5, &[9, 0, 0, 0, 0, 0, 0, 0]), 9);
    }

    #[test]
    fn what_crosses_a_word_is_no_part_of_one() {
        for (offset, size) in [(1, 8), (5, 4), (7, 2), (0, 9), (0, usize::MAX)] {
            assert_eq!(Part::of_word(offset, size), None, "{offset} {size}");
        }
    }
}
