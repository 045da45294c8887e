//! Addresses as types: a number is host physical, host virtual, user virtual, guest physical or an offset in a memory
//! object, and becomes another only where code says so.

use core::fmt;

/// Binary logarithm of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in the smallest page and in a frame.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// The sizes of page that one entry of a page table can map.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum PageSize {
    /// 4 KiB
    Size4K,
    /// 2 MiB
    Size2M,
    /// 1 GiB
    Size1G,
}

impl PageSize {
    /// All sizes, the largest first: the order in which a range is covered with as few pages as possible.
    pub const LARGEST_FIRST: [Self; 3] = [Self::Size1G, Self::Size2M, Self::Size4K];

    /// Bytes in a page of this size.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// Binary logarithm of [`bytes`](Self::bytes).
    #[inline]
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Size4K => 12,
            Self::Size2M => 21,
            Self::Size1G => 30,
        }
    }

    /// Number of 4 KiB frames in a page of this size.
    #[inline]
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << self.order()
    }

    /// Order of the frame allocator's block that holds one page of this size.
    #[inline]
    #[must_use]
    pub const fn order(self) -> u32 {
        self.shift() - PAGE_SHIFT
    }
}

/// What all kinds of address have in common, for code that is generic over the kind (page tables).
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display {
    /// The address with this number.
    fn new(value: u64) -> Self;
    /// The number of this address.
    fn as_u64(self) -> u64;
}

macro_rules! address {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this number.
            #[inline]
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The number of this address.
            #[inline]
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The address `bytes` further up; `None` if there is none.
            #[inline]
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The address `bytes` further up, for a caller that has checked the whole range already: wraps.
            #[inline]
            #[must_use]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// Bytes from `start` up to this address; `None` if `start` is above it.
            #[inline]
            #[must_use]
            pub const fn checked_offset_from(self, start: Self) -> Option<u64> {
                self.0.checked_sub(start.0)
            }

            /// Start of the page of this size that holds the address.
            #[inline]
            #[must_use]
            pub const fn align_down(self, size: PageSize) -> Self {
                Self(self.0 & !(size.bytes() - 1))
            }

            /// The first page start at or above the address; `None` if there is none.
            #[inline]
            #[must_use]
            pub const fn align_up(self, size: PageSize) -> Option<Self> {
                match self.0.checked_add(size.bytes() - 1) {
                    Some(sum) => Some(Self(sum).align_down(size)),
                    None => None,
                }
            }

            /// Whether a page of this size can start here.
            #[inline]
            #[must_use]
            pub const fn is_aligned(self, size: PageSize) -> bool {
                self.page_offset(size) == 0
            }

            /// Bytes from the start of the page of this size that holds the address.
            #[inline]
            #[must_use]
            pub const fn page_offset(self, size: PageSize) -> u64 {
                self.0 & (size.bytes() - 1)
            }

            /// Number of the 4 KiB page or frame that holds the address.
            #[inline]
            #[must_use]
            pub const fn page_number(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }
        }

        impl Address for $name {
            #[inline]
            fn new(value: u64) -> Self {
                Self(value)
            }

            #[inline]
            fn as_u64(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// A physical address of the machine: what the memory bus sees.
    HostPhys
}
address! {
    /// A virtual address in the kernel's tables, of either half.
    HostVirt
}
address! {
    /// A virtual address that a user domain gave: an allegation until it is checked against the domain's address space.
    UserVirt
}
address! {
    /// A physical address as a guest sees it: input of the second-stage tables.
    GuestPhys
}
address! {
    /// An address in an address space: a virtual one of a domain, or a guest's physical one.
    SpaceAddr
}
address! {
    /// A byte offset into a memory object.
    ObjectOffset
}

impl UserVirt {
    /// The same address as an input of the host's page tables, which hold both halves.
    #[inline]
    #[must_use]
    pub const fn as_host(self) -> HostVirt {
        HostVirt::new(self.0)
    }
}

impl From<UserVirt> for SpaceAddr {
    #[inline]
    fn from(address: UserVirt) -> Self {
        Self(address.0)
    }
}

impl From<GuestPhys> for SpaceAddr {
    #[inline]
    fn from(address: GuestPhys) -> Self {
        Self(address.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn sizes_shifts_and_orders_agree() {
        for (size, bytes, order) in
            [(PageSize::Size4K, 4096, 0), (PageSize::Size2M, 2 << 20, 9), (PageSize::Size1G, 1 << 30, 18)]
        {
            assert_eq!((size.bytes(), size.order(), size.frames()), (bytes, order, bytes / PAGE_SIZE));
        }
    }

    #[test]
    fn alignment_moves_to_the_page_boundary_below_or_above() {
        let address = HostPhys::new(0x20_1001);
        assert_eq!(address.align_down(PageSize::Size4K), HostPhys::new(0x20_1000));
        assert_eq!(address.align_up(PageSize::Size4K), Some(HostPhys::new(0x20_2000)));
        assert_eq!(address.align_up(PageSize::Size2M), Some(HostPhys::new(0x40_0000)));
        assert_eq!(address.page_offset(PageSize::Size2M), 0x1001);
        assert!(HostPhys::new(0x40_0000).is_aligned(PageSize::Size2M));
        assert!(!HostPhys::new(0x40_0000).is_aligned(PageSize::Size1G));
    }

    #[test]
    fn arithmetic_past_the_last_address_gives_none() {
        let last = UserVirt::new(u64::MAX);
        assert_eq!(last.checked_add(1), None);
        assert_eq!(last.align_up(PageSize::Size4K), None);
        assert_eq!(UserVirt::new(1).checked_offset_from(last), None);
        assert_eq!(last.checked_offset_from(UserVirt::new(1)), Some(u64::MAX - 1));
    }

    #[test]
    fn addresses_print_in_hexadecimal() {
        assert_eq!(format!("{} {:?}", GuestPhys::new(0x1000), HostVirt::new(0xa)), "0x1000 HostVirt(0xa)");
    }
}
