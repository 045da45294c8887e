//! The I/O APIC's saved state.

use super::entry::Entry;
use super::{IoApic, PINS};
use crate::state::{Decoder, Encoder, StateError};

/// Bits of pins that exist.
const PIN_BITS: u32 = (1 << PINS) - 1;

impl IoApic {
    pub(crate) const STATE_VERSION: u16 = 1;

    pub(crate) fn save(&self, state: &mut Encoder) {
        state.u8(self.id);
        state.u8(self.selected);
        state.u32(self.lines);
        state.u32(self.edges);
        self.entries.iter().for_each(|entry| state.u64(entry.bits()));
    }

    pub(crate) fn restore(state: &mut Decoder<'_>, _version: u16) -> Result<Self, StateError> {
        let mut ioapic = Self::new(state.u8()?);
        ioapic.selected = state.u8()?;
        ioapic.lines = state.u32()? & PIN_BITS;
        ioapic.edges = state.u32()? & PIN_BITS;
        for entry in &mut ioapic.entries {
            *entry = Entry::from_bits(state.u64()?);
        }
        ioapic.is_changed = true;
        Ok(ioapic)
    }
}
