//! PCI Express memory-mapped configuration (PCI Firmware Specification 3.3, 4.1.2, table 4-2).

use arrayvec::ArrayVec;

use crate::list::Filler;
use crate::problem::{Problem, TableFault};
use crate::table::Table;

const ENTRIES: usize = 44;
const ENTRY_SIZE: usize = 16;

/// Configuration space of one bus: 32 devices of 8 functions of 4 KiB each.
const BUS_SIZE: u64 = 1 << 20;

/// The MCFG's content; empty if the table is absent or corrupt.
#[derive(Debug)]
pub struct Mcfg {
    /// Ranges of buses, none overlapping another.
    pub segments: ArrayVec<Segment, 16>,
}

/// Consecutive buses of one PCI segment group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Host-physical address of bus 0 of the group, even where `first_bus` is not 0.
    pub address: u64,
    /// Segment group number.
    pub group: u16,
    /// First bus that the range decodes.
    pub first_bus: u8,
    /// Last bus that the range decodes.
    pub last_bus: u8,
}

impl Mcfg {
    pub(crate) const ABSENT: Self = Self { segments: ArrayVec::new_const() };

    pub(crate) fn clear(&mut self) {
        self.segments.clear();
    }

    pub(crate) fn read(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        let entries = table.fields.tail(ENTRIES).ok_or_else(|| table.wrong_length())?;
        let mut segments = Filler::new(&mut self.segments);
        for (offset, entry) in (ENTRIES..).step_by(ENTRY_SIZE).zip(entries.0.chunks(ENTRY_SIZE)) {
            let segment = decode(entry).ok_or(TableFault::EntryLength { offset })?;
            let impossible = |field| TableFault::EntryValue { offset, field };
            if segment.address == 0 || !segment.fits() {
                return Err(impossible("Base Address"));
            }
            if segment.first_bus > segment.last_bus {
                return Err(impossible("Start Bus Number"));
            }
            if segments.iter().any(|other| other.overlaps(segment)) {
                return Err(impossible("PCI Segment Group Number"));
            }
            segments.push(segment);
        }
        segments.finish(table.signature, "segments", report);
        Ok(())
    }
}

impl Segment {
    /// The range ends within the address space.
    fn fits(self) -> bool {
        self.address.is_multiple_of(BUS_SIZE) && self.address.checked_add(256 * BUS_SIZE).is_some()
    }

    fn overlaps(self, other: Self) -> bool {
        self.group == other.group && self.first_bus <= other.last_bus && other.first_bus <= self.last_bus
    }
}

fn decode(entry: &[u8]) -> Option<Segment> {
    let fields = crate::fields::Fields(entry.get(..ENTRY_SIZE)?);
    Some(Segment {
        address: fields.u64(0)?,
        group: fields.u16(8)?,
        first_bus: fields.u8(10)?,
        last_bus: fields.u8(11)?,
    })
}
