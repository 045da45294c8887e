//! Fixed ACPI Description Table (ACPI 6.5, 5.2.9).

use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::platform::{PM_PORTS, RESET_PORT, SCI_PIN};
use crate::pm::{CONTROL_OFFSET, EVENT_OFFSET, TIMER_OFFSET};
use crate::reset::RESET_VALUE;
use crate::rtc::CENTURY;

// Bytes of the register blocks.
const EVENT_SIZE: u8 = 4;
const CONTROL_SIZE: u8 = 2;
const TIMER_SIZE: u8 = 4;

/// IAPC_BOOT_ARCH: VGA not present (table 5.11). All other bits are clear: no legacy devices, no 8042, MSI works, there is
/// a CMOS clock.
const VGA_NOT_PRESENT: u16 = 1 << 2;

// Latencies that say that C2 and C3 are not there (table 5.9, P_LVL2_LAT and P_LVL3_LAT).
const NO_C2_US: u16 = 101;
const NO_C3_US: u16 = 1001;

pub fn fadt(dsdt: u64, facs: u64) -> FADT {
    let (event, control, timer) =
        (PM_PORTS.start + EVENT_OFFSET, PM_PORTS.start + CONTROL_OFFSET, PM_PORTS.start + TIMER_OFFSET);
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // The power button is a fixed feature (its flag is clear), a sleep button is not there, nor can the clock wake.
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    // The whole image is below 4 GiB, so the 32-bit fields hold it; kernels warn of tables whose two fields differ.
    fadt.firmware_ctrl = (facs as u32).into();
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = u16::from(SCI_PIN).into();
    fadt.pm1a_evt_blk = u32::from(event).into();
    fadt.pm1a_cnt_blk = u32::from(control).into();
    fadt.pm_tmr_blk = u32::from(timer).into();
    fadt.pm1_evt_len = EVENT_SIZE;
    fadt.pm1_cnt_len = CONTROL_SIZE;
    fadt.pm_tmr_len = TIMER_SIZE;
    fadt.x_pm1a_evt_blk = ports(event, EVENT_SIZE, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = ports(control, CONTROL_SIZE, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = ports(timer, TIMER_SIZE, AccessSize::DwordAccess);
    fadt.p_lvl2_lat = NO_C2_US.into();
    fadt.p_lvl3_lat = NO_C3_US.into();
    fadt.century = CENTURY;
    fadt.iapc_boot_arch = VGA_NOT_PRESENT.into();
    fadt.reset_reg = ports(RESET_PORT, 1, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.finalize()
}

fn ports(first: u16, size: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8 * size, 0, access, u64::from(first))
}
