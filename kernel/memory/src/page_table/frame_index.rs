//! The index of a memory object: from an offset to the frame that holds it. No hardware reads it.
#![expect(unsafe_code, reason = "it vouches for the format")]

use super::format::{Access, Entry, MAX_LEVELS, PageFormat, span_mask};
use crate::address::{HostPhys, ObjectOffset, PageSize};

/// Tables of as few levels as the object's size needs: none for one page.
#[derive(Clone, Copy, Debug)]
pub struct FrameIndex {
    levels: u32,
}

const PRESENT: u64 = 1 << 0;
const LEAF: u64 = 1 << 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const COUNT_SHIFT: u32 = 52;

impl FrameIndex {
    /// The index of an object of so many bytes. It holds no offset far beyond.
    #[must_use]
    pub const fn for_size(bytes: u64) -> Self {
        let mut levels = 0;
        while levels < MAX_LEVELS && bytes > span_mask(levels) + 1 {
            levels += 1;
        }
        Self { levels }
    }
}

// SAFETY: The encoding is read back by the same bits.
unsafe impl PageFormat for FrameIndex {
    type Input = ObjectOffset;

    #[inline]
    fn levels(self) -> u32 {
        self.levels
    }

    #[inline]
    fn largest_page(self) -> PageSize {
        PageSize::Size1G
    }

    #[inline]
    fn leaf(self, frame: HostPhys, _size: PageSize, _access: Access) -> u64 {
        frame.as_u64() | PRESENT | LEAF
    }

    #[inline]
    fn table(self, frame: HostPhys, count: u32) -> u64 {
        frame.as_u64() | PRESENT | u64::from(count) << COUNT_SHIFT
    }

    #[inline]
    fn decode(self, entry: u64, _level: u32) -> Entry {
        let frame = HostPhys::new(entry & ADDRESS);
        match (entry & PRESENT != 0, entry & LEAF != 0) {
            (false, _) => Entry::Empty,
            (true, true) => Entry::Leaf { frame, access: Access::NONE },
            (true, false) => Entry::Table { frame, count: (entry >> COUNT_SHIFT) as u32 },
        }
    }
}
