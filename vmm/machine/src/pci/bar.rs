//! Base address registers (PCI Local Bus 3.0, 6.2.5.1): where a function's memory and ports are.

use core::ops::Range;

use super::Command;
use crate::platform::PCI_IO_WINDOW;

/// Bits of a register that are not of the address: I/O space; memory anywhere in 64 bits, not prefetchable.
const IO: u32 = 1;
const MEMORY_64: u32 = 1 << 2;
/// Bits of the address that registers of I/O space have.
const IO_ADDRESS: u64 = 0xffff_fffc;

/// What a register gives a place to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Space {
    /// Ports: one register.
    Io,
    /// Memory: two registers.
    Memory,
}

/// What a function decodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Window {
    /// Ports, all in the [window](PCI_IO_WINDOW) of the host bridge.
    Io(Range<u64>),
    /// Memory.
    Memory(Range<u64>),
}

/// A base address register, or the two of 64-bit memory.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    space: Space,
    number: u8,
    /// A power of two.
    size: u64,
    /// A multiple of the size.
    address: u64,
}

impl Bar {
    /// Register `number` for so many ports, a power of two from 4 to 256.
    pub(crate) const fn io(number: u8, size: u16) -> Self {
        Self { space: Space::Io, number, size: size as u64, address: 0 }
    }

    /// Registers `number` and the next one for so many bytes of memory, a power of two of at least 16.
    pub(crate) const fn memory(number: u8, size: u32) -> Self {
        Self { space: Space::Memory, number, size: size as u64, address: 0 }
    }

    /// Which register it is.
    pub(crate) const fn number(&self) -> u8 {
        self.number
    }

    /// Where it is, whether or not that is decoded.
    pub(crate) const fn address(&self) -> u64 {
        self.address
    }

    /// Puts it somewhere. What is below its size is cut off, and what no such register can hold.
    pub(crate) const fn place(&mut self, address: u64) {
        let possible = match self.space {
            Space::Io => IO_ADDRESS,
            Space::Memory => u64::MAX,
        };
        self.address = address & possible & !(self.size - 1);
    }

    /// Reads register `number`, if it belongs to this one. After ones were written it shows its size.
    pub(crate) fn read(&self, number: u8) -> Option<u32> {
        match (self.space, number.checked_sub(self.number)?) {
            (Space::Io, 0) => Some(self.address as u32 | IO),
            (Space::Memory, 0) => Some(self.address as u32 | MEMORY_64),
            (Space::Memory, 1) => Some((self.address >> 32) as u32),
            _ => None,
        }
    }

    /// Writes those bits of register `number` that are set in `mask`, if it belongs to this one.
    pub(crate) fn write(&mut self, number: u8, value: u32, mask: u32) {
        let shift = match (self.space, number.wrapping_sub(self.number)) {
            (_, 0) => 0,
            (Space::Memory, 1) => 32,
            _ => return,
        };
        let (value, mask) = (u64::from(value) << shift, u64::from(mask) << shift);
        self.place(self.address & !mask | value & mask);
    }

    /// What is decoded.
    pub(crate) fn window(&self, command: Command) -> Option<Window> {
        let range = self.address..self.address.checked_add(self.size)?;
        match self.space {
            Space::Io if command.contains(Command::IO) => {
                let is_behind_bridge = PCI_IO_WINDOW.start <= range.start && range.end <= PCI_IO_WINDOW.end;
                is_behind_bridge.then_some(Window::Io(range))
            }
            Space::Memory if command.contains(Command::MEMORY) => Some(Window::Memory(range)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_shows_its_size_after_ones_were_written() {
        for (bar, number, expected) in [
            (Bar::io(0, 256), 0, Some(0xffff_ff01)),
            (Bar::io(0, 4), 0, Some(0xffff_fffd)),
            (Bar::io(0, 256), 1, None),
            (Bar::memory(2, 0x4000), 1, None),
            (Bar::memory(2, 0x4000), 2, Some(0xffff_c004)),
            (Bar::memory(2, 0x4000), 3, Some(0xffff_ffff)),
            (Bar::memory(2, 0x4000), 4, None),
        ] {
            let mut bar = bar;
            (0..6).for_each(|number| bar.write(number, u32::MAX, u32::MAX));
            assert_eq!(bar.read(number), expected, "{bar:x?} {number}");
        }
    }

    #[test]
    fn an_address_can_be_written_by_bytes() {
        let mut bar = Bar::memory(2, 0x4000);
        bar.write(2, 0xe800_4000, u32::MAX);
        bar.write(2, 0xe9ff_ffff, 0xff00_0000);
        bar.write(3, 0x12, 0xff);
        assert_eq!(bar.address(), 0x12_e900_4000);
    }

    #[test]
    fn only_what_is_enabled_and_behind_the_bridge_is_decoded() {
        let io = |address| {
            let mut bar = Bar::io(0, 256);
            bar.place(address);
            bar
        };
        let memory = |address| {
            let mut bar = Bar::memory(2, 0x4000);
            bar.place(address);
            bar
        };
        for (bar, command, expected) in [
            (io(0x1000), Command::IO, Some(Window::Io(0x1000..0x1100))),
            (io(0xff00), Command::IO, Some(Window::Io(0xff00..0x1_0000))),
            (io(0xf00), Command::IO, None),
            (io(0x1_0000), Command::IO, None),
            (io(0x1000), Command::MEMORY, None),
            (memory(0xe800_0000), Command::MEMORY, Some(Window::Memory(0xe800_0000..0xe800_4000))),
            (memory(0xe800_0000), Command::IO, None),
            // After ones were written: it ends where addresses do.
            (memory(u64::MAX), Command::MEMORY, None),
        ] {
            assert_eq!(bar.window(command), expected, "{bar:x?} {command:?}");
        }
    }
}
