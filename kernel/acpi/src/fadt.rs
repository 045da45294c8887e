//! Fixed ACPI Description Table (ACPI 6.5, 5.2.9, table 5.9): the power management timer.

use crate::address::Register;
use crate::fields::Fields;
use crate::problem::TableFault;
use crate::table::Table;

const PM_TMR_BLK: usize = 76;
const PM_TMR_LEN: usize = 91;
const FLAGS: usize = 112;
/// Bytes of the table in ACPI 1.0; what follows may be missing.
const SIZE_1_0: usize = 116;
const X_PM_TMR_BLK: usize = 208;

/// In the flags (table 5.10): there is no such timer, whatever its fields say.
const HW_REDUCED_ACPI: u32 = 1 << 20;

/// Port of the power management timer (4.8.3.3), if there is one at a port.
pub(crate) fn pm_timer(table: Table<'_>) -> Result<Option<u16>, TableFault> {
    table.at_least(SIZE_1_0)?;
    Ok(decode(table.fields))
}

fn decode(fields: Fields<'_>) -> Option<u16> {
    // A length other than 4 means that the timer is not supported.
    if fields.u32(FLAGS)? & HW_REDUCED_ACPI != 0 || fields.u8(PM_TMR_LEN)? != 4 {
        return None;
    }
    // The extended field rules where it is there and usable, else the port of ACPI 1.0.
    match Register::read(fields, X_PM_TMR_BLK) {
        Some(Register::Port(port)) => Some(port),
        Some(Register::Memory(_)) => None,
        None => u16::try_from(fields.u32(PM_TMR_BLK)?).ok().filter(|port| *port != 0),
    }
}
