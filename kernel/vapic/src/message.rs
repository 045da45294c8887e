//! What interrupt commands and message-signalled interrupts ask for.

use dragonfly_hw::x86::apic;

/// Physical destination: all.
pub const BROADCAST: u32 = u32::MAX;

/// How an interrupt is triggered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Once per message.
    Edge,
    /// For as long as a line is asserted; the I/O APIC wants to know of the end of interrupt.
    Level,
}

/// Who gets a message, if not its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shorthand {
    /// The destination.
    None,
    /// The sender.
    ToSelf,
    /// All, the sender too.
    All,
    /// All but the sender.
    AllButSelf,
}

/// What a message does to a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryMode {
    /// Interrupts it with the vector.
    Fixed,
    /// Interrupts the one of lowest priority among those destined.
    LowestPriority,
    /// System management interrupt.
    Smi,
    /// Non-maskable interrupt.
    Nmi,
    /// INIT.
    Init,
    /// Start-up, at the page that the vector says.
    Startup,
    /// Interrupts it with the vector that an 8259 gives.
    ExtInt,
}

impl DeliveryMode {
    /// Of bits 10:8 of `register`; none if they are reserved everywhere.
    #[inline]
    const fn decode(register: u32) -> Option<Self> {
        Some(match register & 0x700 {
            apic::DELIVERY_FIXED => Self::Fixed,
            apic::DELIVERY_LOWEST => Self::LowestPriority,
            apic::DELIVERY_SMI => Self::Smi,
            apic::DELIVERY_NMI => Self::Nmi,
            apic::DELIVERY_INIT => Self::Init,
            apic::DELIVERY_STARTUP => Self::Startup,
            apic::DELIVERY_EXTINT => Self::ExtInt,
            _ => return None,
        })
    }
}

/// What an interrupt command or a message-signalled interrupt asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// APIC ID, [`BROADCAST`], or a set of logical IDs: see [`LocalApic::destined`](crate::LocalApic::destined).
    pub destination: u32,
    /// Who gets it instead of the destination.
    pub shorthand: Shorthand,
    /// The destination is logical.
    pub is_logical: bool,
    /// What it does.
    pub mode: DeliveryMode,
    /// Which interrupt, where the mode has one.
    pub vector: u8,
    /// How it is triggered.
    pub trigger: Trigger,
    /// The line is asserted; always so for edges.
    pub is_assert: bool,
}

impl Message {
    /// Of a write of `data` to `address` (SDM 3A, "Message Address Register Format", "Message Data Register Format");
    /// none if that is no interrupt: another address, remappable format, or a reserved delivery mode.
    ///
    /// Address bits 11:5 are bits 14:8 of the destination, as guests of KVM and Xen use them where a hypervisor offers
    /// it: without interrupt remapping a message reaches APIC IDs above 255 no other way.
    #[must_use]
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        const LOGICAL: u64 = 1 << 2;
        const REDIRECTION_HINT: u64 = 1 << 3;
        const REMAPPABLE: u64 = 1 << 4;
        if address >> 20 != 0xfee || address & REMAPPABLE != 0 {
            return None;
        }
        let mode = match DeliveryMode::decode(data)? {
            DeliveryMode::Startup => return None,
            DeliveryMode::Fixed if address & REDIRECTION_HINT != 0 => DeliveryMode::LowestPriority,
            mode => mode,
        };
        // Physical and logical whatever the redirection hint is: Linux relies on it.
        let is_logical = address & LOGICAL != 0;
        let is_level = data & apic::ICR_LEVEL != 0;
        let destination = (address >> 12 & 0xff | (address >> 5 & 0x7f) << 8) as u32;
        Some(Self {
            destination: widened(destination, is_logical),
            shorthand: Shorthand::None,
            is_logical,
            mode,
            vector: data as u8,
            trigger: if is_level { Trigger::Level } else { Trigger::Edge },
            is_assert: !is_level || data & apic::ICR_ASSERT != 0,
        })
    }

    /// Of the low half of an interrupt command that goes to a processor with an APIC ID, as a fixed interrupt or an NMI; none if
    /// it is another one.
    #[must_use]
    pub fn to_one(low: u32, id: u32) -> Option<Self> {
        Self::from_command(low, id).filter(|message| {
            message.shorthand == Shorthand::None
                && !message.is_logical
                && matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::Nmi)
        })
    }

    /// Of the low half of an interrupt command, to `destination`; none if it asks for nothing: a reserved delivery
    /// mode, or the INIT level de-assert that processors since the Pentium 4 ignore.
    #[inline]
    pub(crate) fn from_command(low: u32, destination: u32) -> Option<Self> {
        let mode = DeliveryMode::decode(low)?;
        let is_deassert = low & (apic::ICR_LEVEL | apic::ICR_ASSERT) == apic::ICR_LEVEL;
        if mode == DeliveryMode::ExtInt || (mode == DeliveryMode::Init && is_deassert) {
            return None;
        }
        Some(Self {
            destination,
            shorthand: match low >> 18 & 3 {
                0 => Shorthand::None,
                1 => Shorthand::ToSelf,
                2 => Shorthand::All,
                _ => Shorthand::AllButSelf,
            },
            is_logical: low & apic::ICR_LOGICAL != 0,
            mode,
            vector: low as u8,
            // Commands are sent as edges whatever they say (table "Valid Combinations for the Pentium 4 and Intel Xeon
            // Processors' Local xAPIC Interrupt Command Register", note 1).
            trigger: Trigger::Edge,
            is_assert: true,
        })
    }
}

/// A destination of 8 bits as one of 32.
pub(crate) const fn widened(destination: u32, is_logical: bool) -> u32 {
    if destination == 0xff && !is_logical { BROADCAST } else { destination }
}
