//! An entry of the redirection table (82093AA, 3.2.4).

use dragonfly_hw::x86::apic::{DELIVERY_FIXED, DELIVERY_INIT, DELIVERY_LOWEST, DELIVERY_NMI, DELIVERY_SMI};

use crate::message::Message;

const DELIVERY_MODE: u32 = 0b111 << 8;
const LOGICAL: u64 = 1 << 11;
const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASK: u64 = 1 << 16;
/// Bits that exist: destination, and all up to the mask.
const DEFINED: u64 = 0xff << 56 | 0x1_ffff;
const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;

// A message's address and data (SDM 3A, "Message Address Register Format", "Message Data Register Format").
const ADDRESS_BASE: u64 = 0xfee0_0000;
const ADDRESS_REDIRECTION_HINT: u64 = 1 << 3;
const ADDRESS_LOGICAL: u64 = 1 << 2;
const DATA_ASSERT: u32 = 1 << 14;
const DATA_LEVEL: u32 = 1 << 15;

/// What one pin does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(u64);

impl Entry {
    pub const MASKED: Self = Self(MASK);

    /// The entry that is stored as `bits`, whatever they are.
    pub const fn from_bits(bits: u64) -> Self {
        let entry = Self(bits & DEFINED & !DELIVERY_STATUS);
        if entry.is_level() { entry } else { Self(entry.0 & !REMOTE_IRR) }
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Replaces the low half but for the bits that are the hardware's. A pin that is no longer level-triggered awaits no
    /// EOI: that is how drivers end an interrupt where there is no EOI register.
    pub const fn set_low(&mut self, value: u32) {
        let kept = self.0 & (READ_ONLY | u64::MAX << 32);
        *self = Self::from_bits(kept | value as u64 & !READ_ONLY);
    }

    pub const fn set_high(&mut self, value: u32) {
        *self = Self::from_bits(self.0 & u32::MAX as u64 | (value as u64) << 32);
    }

    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    pub const fn is_masked(self) -> bool {
        self.0 & MASK != 0
    }

    /// Level-triggered. All delivery modes but fixed and lowest priority are edges, whatever the entry says (82093AA,
    /// 3.2.4, "Delivery Mode").
    pub const fn is_level(self) -> bool {
        self.0 & LEVEL != 0 && matches!(self.delivery_mode(), DELIVERY_FIXED | DELIVERY_LOWEST)
    }

    /// A level-triggered interrupt was sent and has not ended ("Remote IRR").
    pub const fn awaits_eoi(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    pub const fn set_awaits_eoi(&mut self, awaits_eoi: bool) {
        self.0 = if awaits_eoi { self.0 | REMOTE_IRR } else { self.0 & !REMOTE_IRR };
    }

    /// What the pin sends. `None` for reserved delivery modes, and for the one that asks an 8259 for the vector: there is none.
    pub fn message(self) -> Option<Message> {
        let mode = self.delivery_mode();
        match mode {
            DELIVERY_FIXED | DELIVERY_LOWEST | DELIVERY_SMI | DELIVERY_NMI | DELIVERY_INIT => {}
            _ => return None,
        }
        let mut address = ADDRESS_BASE | (self.0 >> 56) << 12;
        if self.0 & LOGICAL != 0 {
            address |= ADDRESS_LOGICAL;
        }
        if mode == DELIVERY_LOWEST {
            address |= ADDRESS_REDIRECTION_HINT;
        }
        let trigger = if self.is_level() { DATA_LEVEL } else { 0 };
        Some(Message { address, data: trigger | DATA_ASSERT | mode | u32::from(self.vector()) })
    }

    const fn delivery_mode(self) -> u32 {
        self.0 as u32 & DELIVERY_MODE
    }
}
