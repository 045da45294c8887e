//! Multiple APIC Description Table (ACPI 6.5, 5.2.12).

use acpi_tables::Aml;
use acpi_tables::madt::{EnabledStatus, IoApic, ProcessorLocalApic};
use acpi_tables::sdt::Sdt;

use super::header;
use crate::platform::{IOAPIC, LOCAL_APIC, SCI_PIN};

const REVISION: u8 = 5;
/// No 8259s (table 5.20).
const FLAGS: u32 = 0;

/// Interrupt source override (5.2.12.5): type and length.
const OVERRIDE: [u8; 2] = [2, 10];
/// Active high, level-triggered (table 5.25).
const ACTIVE_HIGH_LEVEL: u16 = 0b01 | 0b11 << 2;

/// Local APICs with their numbers as IDs, the I/O APIC after them, and the system control interrupt as it is wired: unlike
/// other ISA interrupts it is a level.
pub fn madt(vcpus: u32) -> Sdt {
    let mut madt = header(*b"APIC", REVISION);
    madt.append(LOCAL_APIC as u32);
    madt.append(FLAGS);
    for id in 0..vcpus as u8 {
        ProcessorLocalApic::new(id, id, EnabledStatus::Enabled).to_aml_bytes(&mut madt);
    }
    IoApic::new(vcpus as u8, IOAPIC.start as u32, 0).to_aml_bytes(&mut madt);
    madt.append_slice(&OVERRIDE);
    // Bus 0 is ISA; its interrupt 9 is pin 9.
    madt.append([0, SCI_PIN]);
    madt.append(u32::from(SCI_PIN));
    madt.append(ACTIVE_HIGH_LEVEL);
    madt.update_checksum();
    madt
}
