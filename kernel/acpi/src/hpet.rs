//! HPET description table (IA-PC HPET Specification 1.0a, 3.2.4).

use crate::address::Register;
use crate::problem::TableFault;
use crate::table::Table;

const BASE_ADDRESS: usize = 40;
/// Bytes of the table.
const SIZE: usize = 56;

/// Host-physical address of the registers of a High Precision Event Timer.
pub(crate) fn read(table: Table<'_>) -> Result<u64, TableFault> {
    table.at_least(SIZE)?;
    match Register::read(table.fields, BASE_ADDRESS) {
        Some(Register::Memory(address)) => Ok(address),
        _ => Err(TableFault::Value { field: "BASE_ADDRESS" }),
    }
}
