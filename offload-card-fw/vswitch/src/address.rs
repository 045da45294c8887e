//! Addresses of Ethernet and prefixes of IP.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An Ethernet address (IEEE 802 EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address in the low 48 bits of a number.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = bits.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// The address as the low 48 bits of a number.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// Whether it names a group: multicast or broadcast.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Which Internet protocol an address or a packet belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4: addresses are the low 32 bits of a number.
    V4,
    /// IPv6: addresses are all 128 bits of a number.
    V6,
}

impl Family {
    /// Bits of an address.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address that a number stands for.
    #[must_use]
    pub fn address(self, bits: u128) -> IpAddr {
        match self {
            // The low 32 bits are the address, by the definition of this type.
            Self::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

/// An address as family and number, the form in which tables hold it.
#[must_use]
pub fn address_bits(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(address) => (Family::V4, u128::from(address.to_bits())),
        IpAddr::V6(address) => (Family::V6, address.to_bits()),
    }
}

/// All addresses of a family that share their first bits, as in `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    family: Family,
    value: u128,
    mask: u128,
}

impl Prefix {
    /// The addresses that share their first `length` bits with `address`; bits behind those are ignored.
    /// `None` if the family's addresses have fewer bits than `length`.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (family, bits) = address_bits(address);
        let rest = family.bits().checked_sub(length)?;
        let all = u128::MAX >> (128 - u32::from(family.bits()));
        let mask = all & u128::MAX.checked_shl(u32::from(rest)).unwrap_or(0);
        Some(Self { family, value: bits & mask, mask })
    }

    /// The prefix that holds one address.
    #[must_use]
    pub fn host(address: IpAddr) -> Self {
        let (family, value) = address_bits(address);
        Self { family, value, mask: u128::MAX >> (128 - u32::from(family.bits())) }
    }

    /// Whether an address lies in it.
    #[inline]
    #[must_use]
    pub const fn contains(&self, family: Family, address: u128) -> bool {
        self.family as u8 == family as u8 && address & self.mask == self.value
    }
}
