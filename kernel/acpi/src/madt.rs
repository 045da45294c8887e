//! Multiple APIC Description Table (ACPI 6.5, 5.2.12): processors and I/O APICs.

use arrayvec::ArrayVec;

use crate::fields::Fields;
use crate::list::Filler;
use crate::problem::{Problem, TableFault};
use crate::table::Table;

/// Bytes of the fixed fields (table 5.19), after which entries follow.
const ENTRIES: usize = 44;

// Entry types (table 5.21).
const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const LOCAL_X2APIC: u8 = 9;

/// Local APIC flag (table 5.23): the processor may be started.
const PROCESSOR_ENABLED: u32 = 1 << 0;

/// An 8-bit APIC ID of 0xff is the broadcast address: firmware writes it for "none here".
const APIC_ID_BROADCAST: u32 = 0xff;

/// The MADT's content. Lists keep the table's order; all are empty if the table is absent or corrupt.
#[derive(Debug)]
pub struct Madt {
    /// APIC IDs of the processors that may be started, each once. Above 254 only x2APIC mode reaches one.
    pub processors: ArrayVec<u32, 256>,
    /// I/O APICs.
    pub io_apics: ArrayVec<IoApic, 16>,
}

/// An I/O APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// Host-physical address of its registers.
    pub address: u64,
    /// Global system interrupt of its first input.
    pub gsi_base: u32,
}

impl Madt {
    pub(crate) const ABSENT: Self = Self { processors: ArrayVec::new_const(), io_apics: ArrayVec::new_const() };

    pub(crate) fn read(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        table.at_least(ENTRIES)?;
        let mut processors = Filler::new(&mut self.processors);
        let mut io_apics = Filler::new(&mut self.io_apics);
        let mut offset = ENTRIES;
        while offset < table.fields.len() {
            let wrong_length = TableFault::EntryLength { offset };
            let length = table.fields.u8(offset.saturating_add(1)).map(usize::from).filter(|length| *length >= 2);
            let end = offset.saturating_add(length.ok_or(wrong_length)?);
            match Entry::read(Fields(table.fields.0.get(offset..end).ok_or(wrong_length)?)).ok_or(wrong_length)? {
                // Firmware may list one processor both as local APIC and as local x2APIC; starting it twice would be
                // fatal.
                Entry::Processor(id) if processors.iter().all(|known| *known != id) => processors.push(id),
                Entry::IoApic(io_apic) => io_apics.push(io_apic),
                Entry::Processor(_) | Entry::Other => {}
            }
            offset = end;
        }
        processors.finish(table.signature, "processors", report);
        io_apics.finish(table.signature, "I/O APICs", report);
        Ok(())
    }
}

/// What an entry means to the kernel.
enum Entry {
    /// The APIC ID of a processor that may be started.
    Processor(u32),
    IoApic(IoApic),
    /// A processor that cannot be started, wiring, another architecture's controller, or a type to come.
    Other,
}

impl Entry {
    /// `None` if the entry is too short for its type.
    fn read(fields: Fields<'_>) -> Option<Self> {
        let (id, flags) = match fields.u8(0)? {
            // Tables 5.22 and 5.35.
            LOCAL_APIC => (u32::from(fields.u8(3)?), fields.u32(4)?),
            LOCAL_X2APIC => (fields.u32(4)?, fields.u32(8)?),
            // Table 5.24.
            IO_APIC => {
                return Some(Self::IoApic(IoApic { address: u64::from(fields.u32(4)?), gsi_base: fields.u32(8)? }));
            }
            _ => return Some(Self::Other),
        };
        let is_none = fields.u8(0)? == LOCAL_APIC && id == APIC_ID_BROADCAST;
        Some(if flags & PROCESSOR_ENABLED == 0 || is_none { Self::Other } else { Self::Processor(id) })
    }
}
