//! HPET description table (IA-PC HPET Specification 1.0a, 3.2.4).

use crate::address::GenericAddress;
use crate::problem::TableFault;
use crate::table::Table;

const BASE_ADDRESS: usize = 40;
const HPET_NUMBER: usize = 52;
const MINIMUM_TICK: usize = 53;

/// A High Precision Event Timer. Its period is read from its own registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hpet {
    /// Host-physical address of its registers.
    pub address: u64,
    /// Sequence number of the timer block.
    pub number: u8,
    /// Smallest number of ticks that periodic mode takes without losing interrupts.
    pub minimum_tick: u16,
}

impl Hpet {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, TableFault> {
        let wrong_length = || table.wrong_length();
        let number = table.fields.u8(HPET_NUMBER).ok_or_else(wrong_length)?;
        let minimum_tick = table.fields.u16(MINIMUM_TICK).ok_or_else(wrong_length)?;
        let address = GenericAddress::read(table.fields, BASE_ADDRESS)
            .and_then(GenericAddress::memory)
            .ok_or(TableFault::Value { field: "BASE_ADDRESS" })?;
        Ok(Self { address, number, minimum_tick })
    }
}
