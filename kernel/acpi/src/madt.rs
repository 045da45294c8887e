//! Multiple APIC Description Table (ACPI 6.5, 5.2.12): processors, I/O APICs and how interrupts reach them.

use arrayvec::ArrayVec;

use crate::list::Filler;
use crate::problem::{Problem, TableFault};
use crate::subtables::{Entries, Entry, Layout};
use crate::table::Table;

// Fixed fields (table 5.19).
const LOCAL_APIC_ADDRESS: usize = 36;
const FLAGS: usize = 40;
const ENTRIES: usize = 44;

const FLAG_PCAT_COMPAT: u32 = 1 << 0;

// Entry types (table 5.21) and their sizes.
const LOCAL_APIC: u16 = 0;
const IO_APIC: u16 = 1;
const INTERRUPT_SOURCE_OVERRIDE: u16 = 2;
const NMI_SOURCE: u16 = 3;
const LOCAL_APIC_NMI: u16 = 4;
const LOCAL_APIC_ADDRESS_OVERRIDE: u16 = 5;
const LOCAL_X2APIC: u16 = 9;
const LOCAL_X2APIC_NMI: u16 = 10;

// Local APIC flags (table 5.23).
const PROCESSOR_ENABLED: u32 = 1 << 0;
const PROCESSOR_ONLINE_CAPABLE: u32 = 1 << 1;

/// An 8-bit APIC ID of 0xff is the broadcast address: firmware writes it for "none here".
const APIC_ID_BROADCAST: u32 = 0xff;

/// UID in [`LocalApicNmi`] that means every processor.
pub const ALL_PROCESSORS: u32 = u32::MAX;
/// The same in the 8-bit field of the xAPIC entry.
const ALL_PROCESSORS_8_BIT: u8 = u8::MAX;

/// The MADT's content. Lists keep the table's order; all are empty if the table is absent or corrupt.
#[derive(Debug)]
pub struct Madt {
    /// Host-physical address of the local APICs (the 64-bit override where there is one), 0 if the table is absent.
    pub local_apic_address: u64,
    /// The platform also has two 8259 interrupt controllers, which must be masked.
    pub has_8259: bool,
    /// Processors that can be used now or later; each APIC ID occurs once.
    pub processors: ArrayVec<Processor, 256>,
    /// I/O APICs.
    pub io_apics: ArrayVec<IoApic, 16>,
    /// ISA interrupts that differ from "GSI = ISA interrupt, active high, edge".
    pub overrides: ArrayVec<InterruptOverride, 32>,
    /// I/O APIC inputs that carry an NMI.
    pub nmi_sources: ArrayVec<InterruptSource, 16>,
    /// Local APIC inputs that carry an NMI; one entry may speak for all processors.
    pub local_nmis: ArrayVec<LocalApicNmi, 256>,
}

/// A processor that the platform has or can get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processor {
    /// ID of its local APIC; above 254 only x2APIC mode reaches it.
    pub apic_id: u32,
    /// ACPI's name of the processor.
    pub uid: u32,
    /// Whether it may be started.
    pub state: ProcessorState,
}

/// Whether a processor may be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessorState {
    /// Now.
    Enabled,
    /// Only after the platform has brought it online.
    OnlineCapable,
}

/// An I/O APIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// Its I/O APIC ID.
    pub id: u8,
    /// Host-physical address of its registers.
    pub address: u64,
    /// Global system interrupt of its first input.
    pub gsi_base: u32,
}

/// How an ISA interrupt is wired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptOverride {
    /// ISA interrupt number.
    pub isa_interrupt: u8,
    /// Global system interrupt that it arrives at.
    pub gsi: u32,
    /// Its active level.
    pub polarity: Polarity,
    /// Its trigger mode.
    pub trigger: Trigger,
}

/// An I/O APIC input that carries an NMI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptSource {
    /// Global system interrupt of the input.
    pub gsi: u32,
    /// Its active level.
    pub polarity: Polarity,
    /// Its trigger mode.
    pub trigger: Trigger,
}

/// A local APIC input that carries an NMI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalApicNmi {
    /// UID of the processor, or [`ALL_PROCESSORS`].
    pub uid: u32,
    /// The input: 0 for LINT0, 1 for LINT1.
    pub lint: u8,
    /// Its active level.
    pub polarity: Polarity,
    /// Its trigger mode.
    pub trigger: Trigger,
}

/// Active level of an interrupt input (MPS INTI flags, table 5.26, bits 1:0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// As the bus does it: active high for ISA. The reserved encoding 2 counts as this too.
    Bus,
    /// Active high.
    ActiveHigh,
    /// Active low.
    ActiveLow,
}

/// Trigger mode of an interrupt input (MPS INTI flags, table 5.26, bits 3:2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// As the bus does it: edge for ISA. The reserved encoding 2 counts as this too.
    Bus,
    /// Edge.
    Edge,
    /// Level.
    Level,
}

impl Madt {
    pub(crate) const ABSENT: Self = Self {
        local_apic_address: 0,
        has_8259: false,
        processors: ArrayVec::new_const(),
        io_apics: ArrayVec::new_const(),
        overrides: ArrayVec::new_const(),
        nmi_sources: ArrayVec::new_const(),
        local_nmis: ArrayVec::new_const(),
    };

    pub(crate) fn clear(&mut self) {
        self.local_apic_address = 0;
        self.has_8259 = false;
        self.processors.clear();
        self.io_apics.clear();
        self.overrides.clear();
        self.nmi_sources.clear();
        self.local_nmis.clear();
    }

    pub(crate) fn read(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        table.at_least(ENTRIES)?;
        let wrong_length = || table.wrong_length();
        self.local_apic_address = u64::from(table.fields.u32(LOCAL_APIC_ADDRESS).ok_or_else(wrong_length)?);
        self.has_8259 = table.fields.u32(FLAGS).ok_or_else(wrong_length)? & FLAG_PCAT_COMPAT != 0;

        let mut processors = Filler::new(&mut self.processors);
        let mut io_apics = Filler::new(&mut self.io_apics);
        let mut overrides = Filler::new(&mut self.overrides);
        let mut nmi_sources = Filler::new(&mut self.nmi_sources);
        let mut local_nmis = Filler::new(&mut self.local_nmis);
        for entry in Entries::new(table.fields, ENTRIES, Layout::Byte) {
            let entry = entry?;
            let wrong_length = || entry.wrong_length();
            match entry.kind {
                LOCAL_APIC => {
                    let (apic_id, uid, flags) = local_apic(entry).ok_or_else(wrong_length)?;
                    if apic_id != APIC_ID_BROADCAST {
                        add_processor(&mut processors, apic_id, uid, flags);
                    }
                }
                LOCAL_X2APIC => {
                    let (apic_id, uid, flags) = local_x2apic(entry).ok_or_else(wrong_length)?;
                    add_processor(&mut processors, apic_id, uid, flags);
                }
                IO_APIC => io_apics.push(io_apic(entry).ok_or_else(wrong_length)?),
                INTERRUPT_SOURCE_OVERRIDE => overrides.push(interrupt_override(entry).ok_or_else(wrong_length)?),
                NMI_SOURCE => nmi_sources.push(nmi_source(entry).ok_or_else(wrong_length)?),
                LOCAL_APIC_NMI => local_nmis.push(local_apic_nmi(entry).ok_or_else(wrong_length)?),
                LOCAL_X2APIC_NMI => local_nmis.push(local_x2apic_nmi(entry).ok_or_else(wrong_length)?),
                LOCAL_APIC_ADDRESS_OVERRIDE => {
                    self.local_apic_address = entry.fields.u64(4).ok_or_else(wrong_length)?;
                }
                // Interrupt controllers of other architectures, and types to come.
                _ => {}
            }
        }
        processors.finish(table.signature, "processors", report);
        io_apics.finish(table.signature, "I/O APICs", report);
        overrides.finish(table.signature, "interrupt source overrides", report);
        nmi_sources.finish(table.signature, "NMI sources", report);
        local_nmis.finish(table.signature, "local APIC NMIs", report);
        Ok(())
    }
}

/// Adds a processor that can be used and is not there yet: firmware may list one both as local APIC and as local
/// x2APIC, and starting it twice would be fatal.
fn add_processor<const N: usize>(processors: &mut Filler<'_, Processor, N>, apic_id: u32, uid: u32, flags: u32) {
    let state = if flags & PROCESSOR_ENABLED != 0 {
        ProcessorState::Enabled
    } else if flags & PROCESSOR_ONLINE_CAPABLE != 0 {
        ProcessorState::OnlineCapable
    } else {
        return;
    };
    if processors.iter().all(|known| known.apic_id != apic_id) {
        processors.push(Processor { apic_id, uid, state });
    }
}

// The decoders below give `None` if the entry is too short.

/// APIC ID, UID and flags of table 5.22.
fn local_apic(entry: Entry<'_>) -> Option<(u32, u32, u32)> {
    let fields = entry.fields;
    Some((u32::from(fields.u8(3)?), u32::from(fields.u8(2)?), fields.u32(4)?))
}

/// APIC ID, UID and flags of table 5.35.
fn local_x2apic(entry: Entry<'_>) -> Option<(u32, u32, u32)> {
    let fields = entry.fields;
    Some((fields.u32(4)?, fields.u32(12)?, fields.u32(8)?))
}

/// Table 5.24.
fn io_apic(entry: Entry<'_>) -> Option<IoApic> {
    let fields = entry.fields;
    Some(IoApic { id: fields.u8(2)?, address: u64::from(fields.u32(4)?), gsi_base: fields.u32(8)? })
}

/// Table 5.25. The bus field is always 0, ISA.
fn interrupt_override(entry: Entry<'_>) -> Option<InterruptOverride> {
    let fields = entry.fields;
    let (polarity, trigger) = inti_flags(fields.u16(8)?);
    Some(InterruptOverride { isa_interrupt: fields.u8(3)?, gsi: fields.u32(4)?, polarity, trigger })
}

/// Table 5.27.
fn nmi_source(entry: Entry<'_>) -> Option<InterruptSource> {
    let (polarity, trigger) = inti_flags(entry.fields.u16(2)?);
    Some(InterruptSource { gsi: entry.fields.u32(4)?, polarity, trigger })
}

/// Table 5.28.
fn local_apic_nmi(entry: Entry<'_>) -> Option<LocalApicNmi> {
    let fields = entry.fields;
    let uid = match fields.u8(2)? {
        ALL_PROCESSORS_8_BIT => ALL_PROCESSORS,
        uid => u32::from(uid),
    };
    let (polarity, trigger) = inti_flags(fields.u16(3)?);
    Some(LocalApicNmi { uid, lint: fields.u8(5)?, polarity, trigger })
}

/// Table 5.36.
fn local_x2apic_nmi(entry: Entry<'_>) -> Option<LocalApicNmi> {
    let fields = entry.fields;
    let (polarity, trigger) = inti_flags(fields.u16(2)?);
    Some(LocalApicNmi { uid: fields.u32(4)?, lint: fields.u8(8)?, polarity, trigger })
}

/// Table 5.26.
fn inti_flags(flags: u16) -> (Polarity, Trigger) {
    let polarity = match flags & 0b11 {
        0b01 => Polarity::ActiveHigh,
        0b11 => Polarity::ActiveLow,
        _ => Polarity::Bus,
    };
    let trigger = match flags >> 2 & 0b11 {
        0b01 => Trigger::Edge,
        0b11 => Trigger::Level,
        _ => Trigger::Bus,
    };
    (polarity, trigger)
}
