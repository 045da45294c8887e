//! DMA Remapping Reporting table (Intel VT-d specification 4.1, chapter 8): the IOMMUs of Intel platforms.

use arrayvec::ArrayVec;

use crate::list::Filler;
use crate::problem::{Problem, TableFault};
use crate::subtables::{Entries, Entry, Layout};
use crate::table::Table;

// Fixed fields (8.1).
const HOST_ADDRESS_WIDTH: usize = 36;
const FLAGS: usize = 37;
const ENTRIES: usize = 48;

const INTR_REMAP: u8 = 1 << 0;
const X2APIC_OPT_OUT: u8 = 1 << 1;

/// DMA remapping hardware unit definition (8.3).
const DRHD: u16 = 0;
const DEVICE_SCOPES: usize = 16;
const INCLUDE_PCI_ALL: u8 = 1 << 0;
/// Type, length, two reserved bytes, enumeration ID, start bus (8.3.1).
const DEVICE_SCOPE_SIZE: usize = 6;

/// The DMAR's content; no units if the table is absent or corrupt.
#[derive(Debug)]
pub struct Dmar {
    /// Bits of address that DMA can reach, 0 if the table is absent.
    pub host_address_bits: u8,
    /// The platform supports interrupt remapping.
    pub interrupt_remapping: bool,
    /// Firmware asks that x2APIC mode is not used.
    pub x2apic_opt_out: bool,
    /// Remapping units.
    pub units: ArrayVec<RemappingUnit, 32>,
}

/// A remapping hardware unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemappingUnit {
    /// Host-physical address of its registers, 4 KiB aligned.
    pub address: u64,
    /// PCI segment group whose devices it serves.
    pub segment: u16,
    /// It serves all devices of the group that no other unit names.
    pub include_pci_all: bool,
    /// How many device scopes name what it serves.
    pub device_scopes: u16,
}

impl Dmar {
    pub(crate) const ABSENT: Self =
        Self { host_address_bits: 0, interrupt_remapping: false, x2apic_opt_out: false, units: ArrayVec::new_const() };

    pub(crate) fn clear(&mut self) {
        self.host_address_bits = 0;
        self.interrupt_remapping = false;
        self.x2apic_opt_out = false;
        self.units.clear();
    }

    pub(crate) fn read(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        table.at_least(ENTRIES)?;
        let wrong_length = || table.wrong_length();
        // The table holds the width less one.
        let width = table.fields.u8(HOST_ADDRESS_WIDTH).ok_or_else(wrong_length)?;
        if width >= 64 {
            return Err(TableFault::Value { field: "Host Address Width" });
        }
        self.host_address_bits = width.saturating_add(1);
        let flags = table.fields.u8(FLAGS).ok_or_else(wrong_length)?;
        self.interrupt_remapping = flags & INTR_REMAP != 0;
        self.x2apic_opt_out = flags & X2APIC_OPT_OUT != 0;

        let mut units = Filler::new(&mut self.units);
        for entry in Entries::new(table.fields, ENTRIES, Layout::Word) {
            let entry = entry?;
            // Reserved memory, root port ATS, affinity and what else describes the devices is not needed yet.
            if entry.kind == DRHD {
                units.push(remapping_unit(entry)?);
            }
        }
        units.finish(table.signature, "remapping units", report);
        Ok(())
    }
}

fn remapping_unit(entry: Entry<'_>) -> Result<RemappingUnit, TableFault> {
    entry.at_least(DEVICE_SCOPES)?;
    let wrong_length = || entry.wrong_length();
    let address = entry.fields.u64(8).ok_or_else(wrong_length)?;
    if address == 0 || !address.is_multiple_of(4096) {
        return Err(entry.impossible("Register Base Address"));
    }
    let mut device_scopes = 0u16;
    for scope in Entries::new(entry.fields, DEVICE_SCOPES, Layout::Byte) {
        if scope.and_then(|scope| scope.at_least(DEVICE_SCOPE_SIZE)).is_err() {
            return Err(entry.impossible("Device Scope"));
        }
        device_scopes = device_scopes.saturating_add(1);
    }
    Ok(RemappingUnit {
        address,
        segment: entry.fields.u16(6).ok_or_else(wrong_length)?,
        include_pci_all: entry.fields.u8(4).ok_or_else(wrong_length)? & INCLUDE_PCI_ALL != 0,
        device_scopes,
    })
}
