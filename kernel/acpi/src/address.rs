//! Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).

use crate::fields::Fields;

/// Where a register lies; an open enumeration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressSpace(pub u8);

impl AddressSpace {
    /// Host-physical memory.
    pub const SYSTEM_MEMORY: Self = Self(0);
    /// I/O ports.
    pub const SYSTEM_IO: Self = Self(1);
    /// Configuration space of a PCI function of segment 0, bus 0.
    pub const PCI_CONFIGURATION: Self = Self(2);
}

/// Address of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GenericAddress {
    /// The space that `address` counts in.
    pub space: AddressSpace,
    /// Width of the register in bits.
    pub bit_width: u8,
    /// Offset of the register at the address, in bits.
    pub bit_offset: u8,
    /// Size of an access: 0 undefined, 1 byte, 2 word, 3 double word, 4 quad word.
    pub access_size: u8,
    /// The address; never 0, which means "no register" everywhere in ACPI's fixed tables.
    pub address: u64,
}

impl GenericAddress {
    /// Bytes of the structure.
    pub(crate) const SIZE: usize = 12;

    /// The port, if the register is one.
    #[must_use]
    pub fn port(self) -> Option<u16> {
        if self.space != AddressSpace::SYSTEM_IO {
            return None;
        }
        u16::try_from(self.address).ok()
    }

    /// The host-physical address, if the register lies in memory.
    #[must_use]
    pub fn memory(self) -> Option<u64> {
        (self.space == AddressSpace::SYSTEM_MEMORY).then_some(self.address)
    }

    /// The structure at `offset`; `None` if it is cut off, null, or a port above 0xffff.
    pub(crate) fn read(fields: Fields<'_>, offset: usize) -> Option<Self> {
        let fields = Fields(fields.tail(offset)?.0.get(..Self::SIZE)?);
        let address = Self {
            space: AddressSpace(fields.u8(0)?),
            bit_width: fields.u8(1)?,
            bit_offset: fields.u8(2)?,
            access_size: fields.u8(3)?,
            address: fields.u64(4)?,
        };
        let usable = address.address != 0 && (address.space != AddressSpace::SYSTEM_IO || address.port().is_some());
        usable.then_some(address)
    }

    /// A port of `bit_width` bits from a field of ACPI 1.0; `None` if it is null or above 0xffff.
    pub(crate) fn from_port(port: u32, bit_width: u8) -> Option<Self> {
        let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
        Some(Self {
            space: AddressSpace::SYSTEM_IO,
            bit_width,
            bit_offset: 0,
            access_size: 0,
            address: u64::from(port),
        })
    }
}
