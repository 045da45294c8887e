//! I/O APIC with 24 pins (82093AA data sheet; Intel 300 Series PCH data sheet, "I/O APIC", for the EOI register).
//!
//! Pins are asserted by devices of the machine; interrupts leave as messages. An edge-triggered pin sends one message for
//! each rise of its line while it is not masked. A level-triggered pin sends one as long as its line is asserted, and
//! another one only after the end of the interrupt, which the local APICs report by vector.

mod entry;
mod state;
#[cfg(test)]
mod tests;

use dragonfly_hw::x86::ioapic::{EOIR, IOAPICARB, IOAPICID, IOAPICVER, IOREGSEL, IOWIN, ioredtbl};

use crate::message::Message;
use entry::Entry;

/// Inputs.
pub const PINS: u8 = 24;

/// The first version that has an EOI register.
const VERSION: u32 = 0x20;
const FIRST_ENTRY: u32 = ioredtbl(0);

/// An I/O APIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoApic {
    id: u8,
    selected: u8,
    entries: [Entry; PINS as usize],
    /// Asserted lines, one bit for each pin.
    lines: u32,
    /// Edges that came and have not been sent.
    edges: u32,
    /// There may be a message to send.
    is_changed: bool,
}

impl IoApic {
    /// One with this ID, all pins masked.
    #[must_use]
    pub const fn new(id: u8) -> Self {
        Self { id, selected: 0, entries: [Entry::MASKED; PINS as usize], lines: 0, edges: 0, is_changed: false }
    }

    /// A device asserts or deasserts the line of `pin`. Pins that do not exist are not wired to anything.
    pub fn set_line(&mut self, pin: u8, is_asserted: bool) {
        let (Some(entry), Some(bit)) = (self.entries.get(usize::from(pin)), 1u32.checked_shl(u32::from(pin))) else {
            return;
        };
        let was_asserted = self.lines & bit != 0;
        if was_asserted == is_asserted {
            return;
        }
        self.lines ^= bit;
        if is_asserted {
            // An edge on a masked pin is lost (82093AA, 3.2.4, "Interrupt Mask").
            if !entry.is_masked() && !entry.is_level() {
                self.edges |= bit;
            }
            self.is_changed = true;
        }
    }

    /// Reads `data.len()` bytes at `offset` of the register page. What is not within one register reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let register = match offset & !3 {
            IOREGSEL => u32::from(self.selected),
            IOWIN => self.read_selected(),
            _ => return,
        };
        let bytes = register.to_le_bytes();
        let start = usize::from(offset as u8 & 3);
        for (byte, value) in data.iter_mut().zip(bytes.iter().skip(start)) {
            *byte = *value;
        }
    }

    /// Writes to `offset` of the register page. Only a write that begins with a register does something; the data sheet
    /// wants 32 bits, of which the select and EOI registers use the lowest byte.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(low) = data.first() else { return };
        match offset {
            IOREGSEL => self.selected = *low,
            IOWIN => {
                if let Some(value) = data.first_chunk() {
                    self.write_selected(u32::from_le_bytes(*value));
                }
            }
            EOIR => self.end_of_interrupt(*low),
            _ => {}
        }
    }

    /// A local APIC ended a level-triggered interrupt of this vector. A line that is still asserted interrupts again.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_level() && entry.vector() == vector) {
            entry.set_awaits_eoi(false);
            self.is_changed = true;
        }
    }

    /// The next message to send.
    pub fn take_message(&mut self) -> Option<Message> {
        if !self.is_changed {
            return None;
        }
        for (pin, entry) in (0u32..).zip(&mut self.entries) {
            let bit = 1 << pin;
            if entry.is_masked() {
                continue;
            }
            if entry.is_level() {
                if self.lines & bit == 0 || entry.awaits_eoi() {
                    continue;
                }
                entry.set_awaits_eoi(true);
            } else {
                if self.edges & bit == 0 {
                    continue;
                }
                self.edges &= !bit;
            }
            if let Some(message) = entry.message() {
                return Some(message);
            }
        }
        self.is_changed = false;
        None
    }

    fn read_selected(&self) -> u32 {
        let selected = u32::from(self.selected);
        match selected {
            IOAPICID | IOAPICARB => u32::from(self.id) << 24,
            IOAPICVER => VERSION | u32::from(PINS - 1) << 16,
            FIRST_ENTRY.. => {
                let (pin, is_high) = entry_index(selected);
                self.entries.get(pin).map_or(0, |entry| if is_high { entry.high() } else { entry.low() })
            }
            _ => 0,
        }
    }

    fn write_selected(&mut self, value: u32) {
        let selected = u32::from(self.selected);
        match selected {
            // The ID has as many bits as the destinations of its entries.
            IOAPICID => self.id = (value >> 24) as u8,
            FIRST_ENTRY.. => {
                let (pin, is_high) = entry_index(selected);
                let Some(entry) = self.entries.get_mut(pin) else { return };
                if is_high {
                    entry.set_high(value);
                } else {
                    entry.set_low(value);
                }
                if entry.is_level() {
                    self.edges &= !(1 << pin);
                }
                self.is_changed = true;
            }
            _ => {}
        }
    }
}

/// Which entry the register `selected` is a half of, and whether it is the high one.
const fn entry_index(selected: u32) -> (usize, bool) {
    let half = selected.saturating_sub(FIRST_ENTRY) as usize;
    (half / 2, half % 2 == 1)
}
