//! Addresses and ranges of physical memory.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of the smallest page, in bytes, on every architecture that the handoff serves.
pub const PAGE_SIZE: u64 = 4096;

/// A physical address of the machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

/// A virtual address in the kernel's address space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct VirtAddr(pub u64);

impl PhysAddr {
    /// Whether the address is the first byte of a page.
    pub const fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_SIZE)
    }
}

impl VirtAddr {
    /// Whether the address is the first byte of a page.
    pub const fn is_page_aligned(self) -> bool {
        self.0.is_multiple_of(PAGE_SIZE)
    }
}

macro_rules! show_as_hexadecimal {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}

show_as_hexadecimal!(PhysAddr VirtAddr);

/// Physical bytes from a first one up to, not including, an end; never wraps around.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct PhysRange {
    base: PhysAddr,
    size: u64,
}

impl PhysRange {
    /// `size` bytes from `base`; none if the end would not be an address.
    pub const fn new(base: PhysAddr, size: u64) -> Option<Self> {
        match base.0.checked_add(size) {
            Some(_) => Some(Self { base, size }),
            None => None,
        }
    }

    /// First byte.
    pub const fn base(self) -> PhysAddr {
        self.base
    }

    /// Length in bytes.
    pub const fn size(self) -> u64 {
        self.size
    }

    /// The byte after the last one.
    pub const fn end(self) -> PhysAddr {
        PhysAddr(self.base.0.saturating_add(self.size))
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.size == 0
    }

    /// Whether `other` lies in this range wholly. An empty range lies where its base does.
    pub fn contains(self, other: Self) -> bool {
        self.base <= other.base && other.end() <= self.end()
    }

    /// Whether there is a byte in both.
    pub fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.base < other.end() && other.base < self.end()
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.base, self.end())
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(base: u64, size: u64) -> PhysRange {
        PhysRange::new(PhysAddr(base), size).unwrap()
    }

    #[test]
    fn a_range_that_wraps_around_cannot_be_made() {
        assert_eq!(PhysRange::new(PhysAddr(u64::MAX), 1), None);
        assert!(PhysRange::new(PhysAddr(u64::MAX), 0).is_some());
    }

    #[test]
    fn neighbours_do_not_overlap() {
        assert!(!range(0x1000, 0x1000).overlaps(range(0x2000, 0x1000)));
        assert!(range(0x1000, 0x1001).overlaps(range(0x2000, 0x1000)));
    }

    #[test]
    fn an_empty_range_overlaps_nothing() {
        assert!(!range(0x1800, 0).overlaps(range(0x1000, 0x1000)));
    }

    #[test]
    fn a_range_contains_itself_but_not_one_that_is_longer() {
        assert!(range(0x1000, 0x1000).contains(range(0x1000, 0x1000)));
        assert!(!range(0x1000, 0x1000).contains(range(0x1000, 0x1001)));
    }

    #[test]
    fn ranges_are_shown_in_hexadecimal() {
        assert_eq!(range(0x1000, 0x234).to_string(), "0x1000..0x1234");
    }
}
