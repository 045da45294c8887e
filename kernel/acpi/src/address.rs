//! Generic Address Structure (ACPI 6.5, 5.2.3.2, table 5.1).

use crate::fields::Fields;

const SYSTEM_MEMORY: u8 = 0;
const SYSTEM_IO: u8 = 1;

/// Where a register lies.
#[derive(Clone, Copy)]
pub(crate) enum Register {
    /// At a host-physical address, which is not 0.
    Memory(u64),
    /// At an I/O port, which is not 0.
    Port(u16),
}

impl Register {
    /// The structure at `offset`; `None` if it is cut off, null, a port above 0xffff or neither memory nor a port.
    pub(crate) fn read(fields: Fields<'_>, offset: usize) -> Option<Self> {
        let fields = fields.tail(offset)?;
        let address = fields.u64(4).filter(|address| *address != 0)?;
        match fields.u8(0)? {
            SYSTEM_MEMORY => Some(Self::Memory(address)),
            SYSTEM_IO => u16::try_from(address).ok().map(Self::Port),
            _ => None,
        }
    }
}
