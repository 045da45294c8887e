//! I/O Virtualization Reporting Structure (AMD I/O Virtualization Technology specification, 48882, 5.2): the IOMMUs of
//! AMD platforms.

use arrayvec::ArrayVec;

use crate::list::Filler;
use crate::problem::{Problem, TableFault};
use crate::subtables::{Entries, Entry, Layout};
use crate::table::Table;

// Fixed fields (5.2.1).
const IV_INFO: usize = 36;
const BLOCKS: usize = 48;

/// I/O virtualization hardware definition of the first kind (5.2.2.1).
const IVHD_10: u16 = 0x10;
/// With the IOMMU's extended features (5.2.2.2).
const IVHD_11: u16 = 0x11;
/// With device entries that name ACPI devices (5.2.2.3).
const IVHD_40: u16 = 0x40;
/// Bytes before the device entries of kind 10h; the other kinds have 16 more.
const IVHD_10_SIZE: usize = 24;
const IVHD_SIZE: usize = 40;

/// The IVRS's content; no units if the table is absent or corrupt.
#[derive(Debug)]
pub struct Ivrs {
    /// `IVinfo`: address sizes and ATS ranges, by the bits of 5.2.1; 0 if the table is absent.
    pub info: u32,
    /// IOMMUs, each once.
    pub units: ArrayVec<VirtualizationUnit, 32>,
}

/// An IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtualizationUnit {
    /// Kind of the block that describes it: 10h, 11h or 40h. Firmware describes a unit once for each kind that it
    /// knows; this is the highest.
    pub kind: u8,
    /// The block's flags (5.2.2.1).
    pub flags: u8,
    /// Bus, device and function of the IOMMU.
    pub device_id: u16,
    /// Offset of the IOMMU's capability block in its configuration space.
    pub capability_offset: u16,
    /// Host-physical address of its registers, 16 KiB aligned.
    pub address: u64,
    /// PCI segment group whose devices it serves.
    pub segment: u16,
}

impl Ivrs {
    pub(crate) const ABSENT: Self = Self { info: 0, units: ArrayVec::new_const() };

    pub(crate) fn clear(&mut self) {
        self.info = 0;
        self.units.clear();
    }

    pub(crate) fn read(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        table.at_least(BLOCKS)?;
        self.info = table.fields.u32(IV_INFO).ok_or_else(|| table.wrong_length())?;
        let mut units = Filler::new(&mut self.units);
        for entry in Entries::new(table.fields, BLOCKS, Layout::ByteThenWord) {
            let entry = entry?;
            // Memory definitions (IVMD) are not needed yet.
            if matches!(entry.kind, IVHD_10 | IVHD_11 | IVHD_40) {
                add_unit(&mut units, virtualization_unit(entry)?);
            }
        }
        units.finish(table.signature, "IOMMUs", report);
        Ok(())
    }
}

fn add_unit<const N: usize>(units: &mut Filler<'_, VirtualizationUnit, N>, unit: VirtualizationUnit) {
    match units.iter_mut().find(|known| (known.segment, known.device_id) == (unit.segment, unit.device_id)) {
        Some(known) if known.kind < unit.kind => *known = unit,
        Some(_) => {}
        None => units.push(unit),
    }
}

fn virtualization_unit(entry: Entry<'_>) -> Result<VirtualizationUnit, TableFault> {
    entry.at_least(if entry.kind == IVHD_10 { IVHD_10_SIZE } else { IVHD_SIZE })?;
    let wrong_length = || entry.wrong_length();
    let address = entry.fields.u64(8).ok_or_else(wrong_length)?;
    if address == 0 || !address.is_multiple_of(16384) {
        return Err(entry.impossible("IOMMU base address"));
    }
    Ok(VirtualizationUnit {
        kind: entry.fields.u8(0).ok_or_else(wrong_length)?,
        flags: entry.fields.u8(1).ok_or_else(wrong_length)?,
        device_id: entry.fields.u16(4).ok_or_else(wrong_length)?,
        capability_offset: entry.fields.u16(6).ok_or_else(wrong_length)?,
        address,
        segment: entry.fields.u16(16).ok_or_else(wrong_length)?,
    })
}
