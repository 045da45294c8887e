//! ACPI tables (ACPI 6.5): what a kernel learns of the machine without trying it.
//!
//! The platform is always in ACPI mode and has no legacy devices beside COM1 and the real-time clock: no 8259, 8254, 8042,
//! HPET or VGA.

mod dsdt;
mod fadt;
mod madt;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use crate::platform::{ACPI_TABLES, ECAM};

// Who made the tables, in their headers (5.2.6).
const OEM_ID: [u8; 6] = *b"DRAGON";
const OEM_TABLE_ID: [u8; 8] = *b"DRAGNFLY";
const OEM_REVISION: u32 = 1;

/// Bytes of a table's header (5.2.6).
const HEADER_SIZE: u32 = 36;
/// Tables begin at multiples of this: the FACS wants it (5.2.10), the others do not mind.
const ALIGNMENT: usize = 64;

/// The tables of a guest with so many vCPUs and bytes of RAM, to be put at [`ACPI_TABLES`]`.start`. The root pointer (RSDP)
/// is the first of them.
#[must_use]
pub fn tables(vcpus: u32, memory_bytes: u64) -> Vec<u8> {
    let mut image = Image { bytes: Vec::new() };
    // The root pointer has a fixed size and is filled in when the address of what it points to is known.
    image.append(&Rsdp::new(OEM_ID, 0));
    let facs = image.append(&FACS::new());
    let dsdt = image.append(&Table(dsdt::dsdt(memory_bytes)));
    let fadt = image.append(&fadt::fadt(dsdt, facs));
    let madt = image.append(&Table(madt::madt(vcpus)));
    let mcfg = image.append(&mcfg());
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = image.append(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    image.bytes.splice(..rsdp.len(), rsdp);
    image.bytes
}

/// PCI Firmware Specification 3.3, 4.1.2.
fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM.start, 0, 0, 0);
    mcfg
}

fn header(signature: [u8; 4], revision: u8) -> Sdt {
    Sdt::new(signature, HEADER_SIZE, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION)
}

/// A table that was put together by hand, as the others are.
struct Table(Sdt);

impl Aml for Table {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(self.0.as_slice());
    }
}

/// What will be at [`ACPI_TABLES`]`.start`.
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Adds a table; gives its address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        let address = ACPI_TABLES.start + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}
