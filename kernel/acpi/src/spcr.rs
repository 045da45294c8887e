//! Serial Port Console Redirection table (Microsoft, revision 1.08).

use crate::address::GenericAddress;
use crate::problem::TableFault;
use crate::table::Table;

const INTERFACE_TYPE: usize = 36;
const BASE_ADDRESS: usize = 40;

/// The serial port that firmware uses as its console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SerialConsole {
    /// Kind of port, as in the debug port table 2: 0 full 16550, 1 16450-compatible, 3 ARM PL011, 18 16550 by
    /// generic address.
    pub interface_type: u8,
    /// Its first register.
    pub base: GenericAddress,
}

impl SerialConsole {
    /// `None` if the table says that console redirection is off.
    pub(crate) fn read(table: Table<'_>) -> Result<Option<Self>, TableFault> {
        table.at_least(BASE_ADDRESS + GenericAddress::SIZE)?;
        let interface_type = table.fields.u8(INTERFACE_TYPE).ok_or_else(|| table.wrong_length())?;
        Ok(GenericAddress::read(table.fields, BASE_ADDRESS).map(|base| Self { interface_type, base }))
    }
}
