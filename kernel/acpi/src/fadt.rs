//! Fixed ACPI Description Table (ACPI 6.5, 5.2.9, table 5.9): the registers for power-off, reset and the PM timer.

use crate::address::{AddressSpace, GenericAddress};
use crate::fields::Fields;
use crate::problem::TableFault;
use crate::table::Table;

const DSDT: usize = 40;
const SMI_CMD: usize = 48;
const ACPI_ENABLE: usize = 52;
const PM1A_CNT_BLK: usize = 64;
const PM1B_CNT_BLK: usize = 68;
const PM_TMR_BLK: usize = 76;
const PM_TMR_LEN: usize = 91;
const CENTURY: usize = 108;
const IAPC_BOOT_ARCH: usize = 109;
const FLAGS: usize = 112;
/// Bytes of the table in ACPI 1.0; what follows may be missing.
const SIZE_1_0: usize = 116;
const RESET_REG: usize = 116;
const RESET_VALUE: usize = 128;
const X_DSDT: usize = 140;
const X_PM1A_CNT_BLK: usize = 172;
const X_PM1B_CNT_BLK: usize = 184;
const X_PM_TMR_BLK: usize = 208;
const SLEEP_CONTROL_REG: usize = 244;

// Flags (table 5.10).
const TMR_VAL_EXT: u32 = 1 << 8;
const RESET_REG_SUP: u32 = 1 << 10;
const HW_REDUCED_ACPI: u32 = 1 << 20;

/// CMOS RTC not present (table 5.11).
const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

/// The FADT's content, as far as a kernel uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fadt {
    /// Host-physical address of the DSDT, 0 if there is none.
    pub dsdt_address: u64,
    /// Hardware-reduced ACPI: no PM1 blocks, no PM timer, no SMI command; the fields below are `None` then.
    pub hardware_reduced: bool,
    /// Port to which `acpi_enable` is written to leave legacy mode; `None` if the platform is always in ACPI mode.
    pub smi_command: Option<u16>,
    /// Value for `smi_command`.
    pub acpi_enable: u8,
    /// PM1a control register: `SLP_TYPa` and `SLP_EN` are written here (4.8.3.2.1).
    pub pm1a_control: Option<GenericAddress>,
    /// PM1b control register: the same with `SLP_TYPb`.
    pub pm1b_control: Option<GenericAddress>,
    /// Sleep control register of hardware-reduced platforms (4.8.3.7).
    pub sleep_control: Option<GenericAddress>,
    /// Power management timer.
    pub pm_timer: Option<PmTimer>,
    /// How to reset the platform.
    pub reset: Option<ResetRegister>,
    /// Index of the century in the CMOS RTC's memory, 0 if it has none.
    pub century: u8,
    /// The platform has a CMOS RTC.
    pub has_cmos_rtc: bool,
}

/// The power management timer (4.8.3.3); it counts at 3.579545 MHz.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PmTimer {
    /// Its register, 32 bits wide.
    pub register: GenericAddress,
    /// It counts 32 bits; otherwise 24.
    pub is_32_bit: bool,
}

/// The reset register (4.8.3.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ResetRegister {
    /// Where to write.
    pub register: GenericAddress,
    /// What to write.
    pub value: u8,
}

impl Fadt {
    pub(crate) fn read(table: Table<'_>) -> Result<Self, TableFault> {
        table.at_least(SIZE_1_0)?;
        Self::decode(table.fields).ok_or_else(|| table.wrong_length())
    }

    fn decode(fields: Fields<'_>) -> Option<Self> {
        let flags = fields.u32(FLAGS)?;
        let hardware_reduced = flags & HW_REDUCED_ACPI != 0;
        let fixed = |address: Option<GenericAddress>| address.filter(|_| !hardware_reduced);
        let smi_command = u16::try_from(fields.u32(SMI_CMD)?).ok().filter(|port| *port != 0);
        Some(Self {
            dsdt_address: dsdt_address(fields)?,
            hardware_reduced,
            smi_command: smi_command.filter(|_| !hardware_reduced),
            acpi_enable: fields.u8(ACPI_ENABLE)?,
            pm1a_control: fixed(register(fields, X_PM1A_CNT_BLK, PM1A_CNT_BLK, 16)),
            pm1b_control: fixed(register(fields, X_PM1B_CNT_BLK, PM1B_CNT_BLK, 16)),
            sleep_control: GenericAddress::read(fields, SLEEP_CONTROL_REG).filter(|_| hardware_reduced),
            pm_timer: fixed(pm_timer_register(fields))
                .map(|register| PmTimer { register, is_32_bit: flags & TMR_VAL_EXT != 0 }),
            reset: reset(fields).filter(|_| flags & RESET_REG_SUP != 0),
            century: fields.u8(CENTURY)?,
            has_cmos_rtc: fields.u16(IAPC_BOOT_ARCH)? & CMOS_RTC_NOT_PRESENT == 0,
        })
    }
}

/// `X_DSDT` rules over `DSDT` where it is there and not null.
fn dsdt_address(fields: Fields<'_>) -> Option<u64> {
    match fields.u64(X_DSDT) {
        Some(address) if address != 0 => Some(address),
        _ => fields.u32(DSDT).map(u64::from),
    }
}

/// A register block: the extended field rules where it is there and usable, else the port of ACPI 1.0.
fn register(fields: Fields<'_>, extended: usize, port: usize, bit_width: u8) -> Option<GenericAddress> {
    GenericAddress::read(fields, extended)
        .filter(|address| matches!(address.space, AddressSpace::SYSTEM_IO | AddressSpace::SYSTEM_MEMORY))
        .or_else(|| GenericAddress::from_port(fields.u32(port)?, bit_width))
}

/// A length other than 4 means that the timer is not supported.
fn pm_timer_register(fields: Fields<'_>) -> Option<GenericAddress> {
    if fields.u8(PM_TMR_LEN)? != 4 {
        return None;
    }
    register(fields, X_PM_TMR_BLK, PM_TMR_BLK, 32)
}

fn reset(fields: Fields<'_>) -> Option<ResetRegister> {
    Some(ResetRegister { register: GenericAddress::read(fields, RESET_REG)?, value: fields.u8(RESET_VALUE)? })
}
