//! System Resource Affinity Table (ACPI 6.5, 5.2.16): which processors and memory are near each other.

use arrayvec::ArrayVec;

use crate::list::Filler;
use crate::problem::{Problem, TableFault};
use crate::subtables::{Entries, Entry, Layout};
use crate::table::Table;

const ENTRIES: usize = 48;

// Entry types.
const PROCESSOR_AFFINITY: u16 = 0;
const MEMORY_AFFINITY: u16 = 1;
const X2APIC_AFFINITY: u16 = 2;

/// In all three entries.
const ENABLED: u32 = 1 << 0;
const HOT_PLUGGABLE: u32 = 1 << 1;
const NON_VOLATILE: u32 = 1 << 2;

/// Before revision 2 (ACPI 3.0) a proximity domain had 8 bits and its other bytes were reserved.
const WIDE_DOMAINS_REVISION: u8 = 2;

/// The SRAT's content, entries that are not enabled left out; empty if the table is absent or corrupt.
#[derive(Debug)]
pub struct Srat {
    /// The proximity domains that occur, ascending; the index of one is its NUMA node.
    pub domains: ArrayVec<u32, 64>,
    /// Processors.
    pub processors: ArrayVec<CpuAffinity, 512>,
    /// Memory ranges; ranges of different domains do not overlap.
    pub memory: ArrayVec<MemoryAffinity, 512>,
}

/// Where a processor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuAffinity {
    /// ID of its local APIC.
    pub apic_id: u32,
    /// Its proximity domain.
    pub domain: u32,
}

/// Where memory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryAffinity {
    /// Host-physical address of the range.
    pub base: u64,
    /// Bytes of the range; `base + size` does not overflow.
    pub size: u64,
    /// Its proximity domain.
    pub domain: u32,
    /// The range may be empty until memory is plugged in.
    pub hot_pluggable: bool,
    /// The memory keeps its content without power.
    pub non_volatile: bool,
}

impl Srat {
    pub(crate) const ABSENT: Self =
        Self { domains: ArrayVec::new_const(), processors: ArrayVec::new_const(), memory: ArrayVec::new_const() };

    /// The NUMA node of a proximity domain; `None` if it is unknown or beyond the 64 that are kept.
    #[must_use]
    pub fn node(&self, domain: u32) -> Option<usize> {
        self.domains.binary_search(&domain).ok()
    }

    pub(crate) fn clear(&mut self) {
        self.domains.clear();
        self.processors.clear();
        self.memory.clear();
    }

    pub(crate) fn read(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        table.at_least(ENTRIES)?;
        let domain_mask = if table.revision < WIDE_DOMAINS_REVISION { 0xff } else { u32::MAX };
        let mut domains = Filler::new(&mut self.domains);
        let mut processors = Filler::new(&mut self.processors);
        let mut memory = Filler::new(&mut self.memory);
        for entry in Entries::new(table.fields, ENTRIES, Layout::Byte) {
            let entry = entry?;
            let wrong_length = || entry.wrong_length();
            let domain = match entry.kind {
                PROCESSOR_AFFINITY | X2APIC_AFFINITY => {
                    let (flags, mut affinity) = processor_affinity(entry).ok_or_else(wrong_length)?;
                    affinity.domain &= domain_mask;
                    if flags & ENABLED == 0 {
                        continue;
                    }
                    processors.push(affinity);
                    affinity.domain
                }
                MEMORY_AFFINITY => {
                    let (flags, mut affinity) = memory_affinity(entry).ok_or_else(wrong_length)?;
                    affinity.domain &= domain_mask;
                    if flags & ENABLED == 0 || affinity.size == 0 {
                        continue;
                    }
                    if affinity.base.checked_add(affinity.size).is_none() {
                        return Err(entry.impossible("Length"));
                    }
                    if memory.iter().any(|other| other.contradicts(affinity)) {
                        return Err(entry.impossible("Proximity Domain"));
                    }
                    memory.push(affinity);
                    affinity.domain
                }
                // Initiators and interrupt translation of other architectures, and types to come.
                _ => continue,
            };
            if domains.iter().all(|known| *known != domain) {
                domains.push(domain);
            }
        }
        domains.finish(table.signature, "proximity domains", report);
        processors.finish(table.signature, "processors", report);
        memory.finish(table.signature, "memory ranges", report);
        self.domains.sort_unstable();
        Ok(())
    }
}

impl MemoryAffinity {
    fn contradicts(self, other: Self) -> bool {
        let overlaps =
            self.base < other.base.saturating_add(other.size) && other.base < self.base.saturating_add(self.size);
        overlaps && self.domain != other.domain
    }
}

/// Flags and affinity of tables 5.56 and 5.58; `None` if the entry is too short.
fn processor_affinity(entry: Entry<'_>) -> Option<(u32, CpuAffinity)> {
    let fields = entry.fields;
    if entry.kind == X2APIC_AFFINITY {
        return Some((fields.u32(12)?, CpuAffinity { apic_id: fields.u32(8)?, domain: fields.u32(4)? }));
    }
    // The domain's lowest byte is apart from the other three, which follow the SAPIC EID.
    let [_, high @ ..] = fields.array::<4>(8)?;
    let domain = u32::from_le_bytes([fields.u8(2)?, high[0], high[1], high[2]]);
    Some((fields.u32(4)?, CpuAffinity { apic_id: u32::from(fields.u8(3)?), domain }))
}

/// Flags and affinity of table 5.57; `None` if the entry is too short.
fn memory_affinity(entry: Entry<'_>) -> Option<(u32, MemoryAffinity)> {
    let fields = entry.fields;
    let flags = fields.u32(28)?;
    let affinity = MemoryAffinity {
        base: fields.u64(8)?,
        size: fields.u64(16)?,
        domain: fields.u32(2)?,
        hot_pluggable: flags & HOT_PLUGGABLE != 0,
        non_volatile: flags & NON_VOLATILE != 0,
    };
    Some((flags, affinity))
}
