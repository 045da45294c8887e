//! Configuration registers of a function (PCI Local Bus 3.0, chapter 6; PCI Express Base 5.0, 7.5.1).

use core::sync::atomic::Ordering;

use dragonfly_rt::Mapping;

/// Identity: vendor in the low half, device in the high half.
pub(crate) const ID: u64 = 0x00;
/// Command in the low half, status in the high half, whose bits are cleared by writing ones.
pub(crate) const COMMAND: u64 = 0x04;
/// Header type in bits 22:16, bit 23: the device has several functions.
pub(crate) const HEADER_TYPE: u64 = 0x0c;
/// The first of up to six base address registers.
pub(crate) const BASE_ADDRESS: u64 = 0x10;
/// Of a bridge: the number of the bus behind it in bits 15:8.
pub(crate) const BUS_NUMBERS: u64 = 0x18;

/// Command: answers accesses to I/O ports.
pub(crate) const COMMAND_IO: u32 = 1 << 0;
/// Command: answers accesses to memory.
pub(crate) const COMMAND_MEMORY: u32 = 1 << 1;
/// Command: may read and write memory by itself.
pub(crate) const COMMAND_MASTER: u32 = 1 << 2;

/// Vendor of a function that is not there.
pub(crate) const NO_VENDOR: u32 = 0xffff;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// An endpoint, with six base address registers.
    Endpoint,
    /// A bridge to the bus with this number, with two base address registers.
    Bridge(u8),
    /// Another.
    Other,
}

/// Access to the registers of one function, 32 bits at a time.
pub(crate) trait Registers {
    /// Reads the register at a multiple of four.
    fn read(&self, offset: u64) -> u32;
    /// Writes it.
    fn write(&self, offset: u64, value: u32);

    /// Vendor and device, if there is a function.
    fn id(&self) -> Option<(u16, u16)> {
        let id = self.read(ID);
        (id & 0xffff != NO_VENDOR).then_some((id as u16, (id >> 16) as u16))
    }

    /// Whether the device has more functions than number 0.
    fn has_several_functions(&self) -> bool {
        self.read(HEADER_TYPE) >> 23 & 1 != 0
    }

    /// What kind of header follows.
    fn header(&self) -> Header {
        match self.read(HEADER_TYPE) >> 16 & 0x7f {
            0 => Header::Endpoint,
            1 => Header::Bridge((self.read(BUS_NUMBERS) >> 8) as u8),
            _ => Header::Other,
        }
    }

    /// The command register.
    fn command(&self) -> u32 {
        self.read(COMMAND) & 0xffff
    }

    /// Sets the command register. Reads it back, so that it has arrived, and with it whatever the function wrote to
    /// memory before (PCI Express Base 5.0, 2.4.1: a completion does not pass posted writes).
    fn set_command(&self, command: u32) {
        // Zeroes in the status half clear nothing.
        self.write(COMMAND, command & 0xffff);
        let _ = self.read(COMMAND);
    }
}

/// A function's page of a bus that is mapped.
pub(crate) struct Page<'a> {
    /// What is mapped.
    pub(crate) mapping: &'a Mapping,
    /// Where in it the page begins.
    pub(crate) start: u64,
}

impl Registers for Page<'_> {
    fn read(&self, offset: u64) -> u32 {
        // Out of range is as if nobody answered.
        self.mapping.word32(self.start + offset).map_or(u32::MAX, |word| word.load(Ordering::Relaxed))
    }

    fn write(&self, offset: u64, value: u32) {
        if let Ok(word) = self.mapping.word32(self.start + offset) {
            word.store(value, Ordering::Relaxed);
        }
    }
}
