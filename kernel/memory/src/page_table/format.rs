//! What page-table formats have in common, and what they decide.
#![expect(unsafe_code, reason = "the walker follows the addresses that a format decodes")]

use crate::address::{Address, HostPhys, PageSize};

/// Levels above the lowest that an entry can be at.
pub const MAX_LEVELS: u32 = 5;

/// What a mapped page may be used for, beside being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// It may be written.
    pub is_writable: bool,
    /// It may be executed. Without hardware support everything may.
    pub is_executable: bool,
    /// Code of domains may use it, not only the kernel's.
    pub is_user: bool,
    /// It is registers of a device: accesses are neither cached nor combined.
    pub is_device: bool,
}

impl Access {
    /// Ordinary memory that the kernel may read.
    pub const NONE: Self = Self { is_writable: false, is_executable: false, is_user: false, is_device: false };
}

/// A page in a page table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping<I> {
    /// The page's first address.
    pub base: I,
    /// What it is mapped to.
    pub phys: HostPhys,
    /// Its size.
    pub size: PageSize,
    /// What it may be used for.
    pub access: Access,
}

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing.
    Empty,
    /// The next table, and how many of its entries are not empty.
    Table {
        /// The table.
        frame: HostPhys,
        /// Entries in use, at most 512.
        count: u32,
    },
    /// A page.
    Leaf {
        /// The page.
        frame: HostPhys,
        /// What it may be used for.
        access: Access,
    },
}

/// A format of page tables: tables of 512 entries of 64 bits, each of which maps a page, leads to a table of the next
/// lower level or is empty. An entry of level n covers 2^(12 + 9n) bytes of input addresses: a page of 4 KiB at level
/// 0.
///
/// An entry that leads to a table holds the number of the table's used entries in bits that the hardware ignores, so
/// that a table that became empty is found without searching it.
///
/// # Safety
/// `decode` of what `table` and `leaf` gave for a level gives the same values again, except that a format may
/// lack some kinds of access; `decode` of 0 is empty. A leaf is at a level that has a page size, and a table is not at
/// level 0.
pub unsafe trait PageFormat: Copy {
    /// What is translated.
    type Input: Address;

    /// The level of the one entry that covers all input addresses, at most 5: with hardware, the root register.
    fn levels(self) -> u32;

    /// The size of the largest page.
    fn largest_page(self) -> PageSize;

    /// The input address whose translated bits are these. Some formats want the others to be copies of the highest.
    fn extend(self, bits: u64) -> u64 {
        bits
    }

    /// The entry for a page.
    fn leaf(self, frame: HostPhys, size: PageSize, access: Access) -> u64;

    /// The entry for a table with so many used entries.
    fn table(self, frame: HostPhys, count: u32) -> u64;

    /// What an entry of this level says.
    fn decode(self, entry: u64, level: u32) -> Entry;

    /// The bit of a leaf that is set once somebody has written to its page, 0 if there is none. Where the processor does
    /// not set it, it is the right to write, and a write to a page that lacks it comes to whoever handles faults.
    fn dirty(self) -> u64 {
        0
    }

    /// The bit of an entry that leads to a table which says that pages below may be dirty, as noted by
    /// [`PageTable::note_dirty`](super::PageTable::note_dirty), 0 if nobody is told and each page has to be looked at.
    fn dirty_below(self) -> u64 {
        0
    }
}

impl PageSize {
    /// The level of entries that map pages of this size.
    #[inline]
    pub(super) const fn level(self) -> u32 {
        match self {
            Self::Size4K => 0,
            Self::Size2M => 1,
            Self::Size1G => 2,
        }
    }

    /// The size of the pages that entries of this level map.
    #[inline]
    pub(super) const fn of_level(level: u32) -> Option<Self> {
        match level {
            0 => Some(Self::Size4K),
            1 => Some(Self::Size2M),
            2 => Some(Self::Size1G),
            _ => None,
        }
    }
}

/// Binary logarithm of the bytes that an entry of this level covers.
#[inline]
pub(super) const fn span_shift(level: u32) -> u32 {
    12 + 9 * level
}

/// Bits of an input address within what an entry of this level covers.
#[inline]
pub(super) const fn span_mask(level: u32) -> u64 {
    (1 << span_shift(level)) - 1
}
