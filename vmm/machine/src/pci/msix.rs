//! MSI-X (PCI Local Bus 3.0, 6.8.2): a function's table of messages, and which of them wait.

use alloc::vec;
use alloc::vec::Vec;

use super::words::{read_words, write_words};
use crate::message::Message;
use crate::state::{Decoder, Encoder, StateError};

/// Most vectors: their pending bits are one quad word.
const MAX_VECTORS: u16 = 64;

/// Bytes of an entry of the table.
const ENTRY_SIZE: u64 = 16;

// Message control.
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
const CONTROL_WRITABLE: u16 = ENABLE | FUNCTION_MASK;

/// Vector control of an entry: the vector is masked.
const MASKED: u32 = 1;

/// The double words of an entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address_low: u32,
    address_high: u32,
    data: u32,
    control: u32,
}

/// A function's MSI-X capability with its table and its pending bits.
#[derive(Clone, Debug)]
pub(crate) struct MsiX {
    control: u16,
    entries: Vec<Entry>,
    pending: u64,
}

impl MsiX {
    /// With so many vectors, 1 to [`MAX_VECTORS`]; disabled, all masked.
    pub(crate) fn new(vectors: u16) -> Self {
        let entry = Entry { address_low: 0, address_high: 0, data: 0, control: MASKED };
        Self { control: 0, entries: vec![entry; vectors.clamp(1, MAX_VECTORS).into()], pending: 0 }
    }

    /// How many vectors there are.
    pub(crate) const fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    /// Message control, with the size of the table.
    pub(crate) const fn control(&self) -> u16 {
        self.control | self.vectors().saturating_sub(1)
    }

    /// Writes those bits of message control that are set in `mask`.
    pub(crate) const fn write_control(&mut self, value: u16, mask: u16) {
        let mask = mask & CONTROL_WRITABLE;
        self.control = self.control & !mask | value & mask;
    }

    /// Whether the function interrupts by MSI-X.
    pub(crate) const fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Reads the table.
    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        read_words(offset, data, |offset| {
            let entry = usize::try_from(offset / ENTRY_SIZE).ok().and_then(|index| self.entries.get(index));
            entry.map_or(0, |entry| match offset % ENTRY_SIZE {
                0 => entry.address_low,
                4 => entry.address_high,
                8 => entry.data,
                _ => entry.control,
            })
        });
    }

    /// Writes the table.
    pub(crate) fn write_table(&mut self, offset: u64, data: &[u8]) {
        write_words(offset, data, |offset, value, mask| {
            let entry = usize::try_from(offset / ENTRY_SIZE).ok().and_then(|index| self.entries.get_mut(index));
            let Some(entry) = entry else { return };
            let (word, mask) = match offset % ENTRY_SIZE {
                // Double words only (6.8.2.4).
                0 => (&mut entry.address_low, mask & !3),
                4 => (&mut entry.address_high, mask),
                8 => (&mut entry.data, mask),
                _ => (&mut entry.control, mask & MASKED),
            };
            *word = *word & !mask | value & mask;
        });
    }

    /// Reads the pending bits.
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        read_words(offset, data, |offset| match offset {
            0 => self.pending as u32,
            4 => (self.pending >> 32) as u32,
            _ => 0,
        });
    }

    /// What a vector sends; nothing if it is masked, or not there.
    pub(crate) fn message(&self, vector: u16) -> Option<Message> {
        let entry = self.entries.get(usize::from(vector))?;
        let is_masked = self.control & CONTROL_WRITABLE != ENABLE || entry.control & MASKED != 0;
        let address = u64::from(entry.address_high) << 32 | u64::from(entry.address_low);
        (!is_masked).then_some(Message { address, data: entry.data })
    }

    /// A vector interrupts: at once, or when it is no longer masked. Nothing if MSI-X is disabled.
    pub(crate) const fn raise(&mut self, vector: u16) {
        if self.is_enabled() && vector < self.vectors() {
            self.pending |= 1 << vector;
        }
    }

    /// What waits counts no longer.
    pub(crate) const fn forget_pending(&mut self) {
        self.pending = 0;
    }

    /// The next message to send.
    pub(crate) fn take_message(&mut self) -> Option<Message> {
        if self.pending == 0 {
            return None;
        }
        let (vector, message) = (0..self.vectors())
            .filter(|vector| self.pending >> vector & 1 != 0)
            .find_map(|vector| Some((vector, self.message(vector)?)))?;
        self.pending &= !(1 << vector);
        Some(message)
    }

    /// Adds all of it to a section.
    pub(crate) fn save(&self, section: &mut Encoder) {
        section.u16(self.control);
        section.u64(self.pending);
        section.u16(self.vectors());
        for Entry { address_low, address_high, data, control } in &self.entries {
            [address_low, address_high, data, control].into_iter().for_each(|word| section.u32(*word));
        }
    }

    /// Takes what was saved of one with as many vectors.
    pub(crate) fn restore(&mut self, section: &mut Decoder<'_>) -> Result<(), StateError> {
        self.control = section.u16()? & CONTROL_WRITABLE;
        self.pending = section.u64()? & u64::MAX >> (MAX_VECTORS - self.vectors());
        if section.u16()? != self.vectors() {
            return Err(StateError::OtherFunctions);
        }
        for entry in &mut self.entries {
            entry.address_low = section.u32()? & !3;
            entry.address_high = section.u32()?;
            entry.data = section.u32()?;
            entry.control = section.u32()? & MASKED;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Message = Message { address: 0xfee0_1000, data: 0x4041 };

    /// Vector 1 of three unmasked.
    fn programmed() -> MsiX {
        let mut msix = MsiX::new(3);
        msix.write_control(ENABLE, u16::MAX);
        msix.write_table(16, &FIRST.address.to_le_bytes());
        msix.write_table(24, &FIRST.data.to_le_bytes());
        msix.write_table(28, &[0]);
        msix
    }

    #[test]
    fn a_vector_sends_what_its_entry_says() {
        let mut msix = programmed();
        msix.raise(1);
        assert_eq!((msix.take_message(), msix.take_message()), (Some(FIRST), None));
    }

    #[test]
    fn a_masked_vector_waits_until_it_is_not() {
        for (mask, unmask) in [
            (
                (|msix| msix.write_table(28, &[1])) as fn(&mut MsiX),
                (|msix| msix.write_table(28, &[0])) as fn(&mut MsiX),
            ),
            (|msix| msix.write_control(FUNCTION_MASK, FUNCTION_MASK), |msix| msix.write_control(0, FUNCTION_MASK)),
        ] {
            let mut msix = programmed();
            mask(&mut msix);
            msix.raise(1);
            assert_eq!(msix.take_message(), None);
            let mut pending = [0; 8];
            msix.read_pending(0, &mut pending);
            assert_eq!(u64::from_le_bytes(pending), 1 << 1);
            unmask(&mut msix);
            assert_eq!((msix.take_message(), msix.take_message()), (Some(FIRST), None));
        }
    }

    #[test]
    fn what_is_disabled_or_not_there_raises_nothing() {
        let mut msix = programmed();
        msix.raise(3);
        msix.raise(u16::MAX);
        msix.write_control(0, ENABLE);
        msix.raise(1);
        msix.write_control(ENABLE, ENABLE);
        assert_eq!(msix.take_message(), None);
    }

    #[test]
    fn message_control_tells_the_size_of_the_table_and_keeps_two_bits() {
        for (vectors, expected) in [(1, 0xc000), (64, 0xc03f)] {
            let mut msix = MsiX::new(vectors);
            msix.write_control(u16::MAX, u16::MAX);
            assert_eq!(msix.control(), expected);
        }
    }

    #[test]
    fn the_table_is_masked_at_first_and_keeps_the_bits_that_exist() {
        let mut msix = MsiX::new(1);
        let mut entry = [0; 16];
        msix.read_table(0, &mut entry);
        assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        msix.write_table(0, &[0xff; 64]);
        let mut all = [0xaa; 20];
        msix.read_table(0, &mut all);
        let expected = [[0xfc, 0xff, 0xff, 0xff], [0xff; 4], [0xff; 4], [1, 0, 0, 0], [0; 4]].concat();
        assert_eq!(all.to_vec(), expected);
    }
}
