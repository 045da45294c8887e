//! PCI Express: the host bridge and the ways to configuration space, memory-mapped (PCI Express 5.0, 7.2.2) and by ports
//! (PCI Local Bus 3.0, 3.2.2.3.2), and the way to functions' memory and ports, wherever these are now. There is one bus.
//! Functions that are not there read as all ones.

mod bar;
mod function;
mod host_bridge;
mod msix;
#[cfg(test)]
mod tests;
mod words;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

pub(crate) use bar::{Bar, Window};
pub(crate) use function::{Command, Notice, PciFunction};
pub use host_bridge::HostBridge;
pub(crate) use msix::MsiX;
pub(crate) use words::{read_words, write_words};

use crate::bus::Bus;
use crate::message::Message;
use crate::platform::PCI_IO_WINDOW;
use crate::state::{Decoder, Encoder, StateError};

/// Bytes of a function's configuration space.
const CONFIG_SIZE: u64 = 4096;
/// Bytes of it that the ports reach.
const PORT_CONFIG_MASK: u32 = 0xfc;
/// Devices that a bus can have.
const DEVICES: u8 = 32;
/// Base address registers of a function.
const BARS: u8 = 6;

/// Registers of configuration space that say what a function decodes: command, base addresses (PCI Local Bus 3.0, 6.1).
const COMMAND_OFFSET: u64 = 0x04;
const BAR_OFFSETS: Range<u64> = 0x10..0x28;

/// Address port: the data port is connected to configuration space.
const ADDRESS_ENABLE: u32 = 1 << 31;
const ADDRESS_BUS: u32 = 0xff << 16;
/// Bits of the address that exist.
const ADDRESS_DEFINED: u32 = ADDRESS_ENABLE | 0x00ff_fffc;

/// Device and function number on the bus: device in bits 7:3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeviceFunction(pub u8);

impl DeviceFunction {
    /// Function 0 of a device.
    pub(crate) const fn first_of(device: u8) -> Self {
        Self(device << 3)
    }
}

/// A base address register of a function on the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Target {
    /// Index in [`PciBus::functions`].
    function: usize,
    bar: u8,
}

/// Bus 0 with its functions.
pub struct PciBus {
    /// What the address port holds.
    address: u32,
    functions: Vec<(DeviceFunction, Box<dyn PciFunction>)>,
    /// What the functions decode.
    memory: Bus<Target>,
    ports: Bus<Target>,
}

impl PciBus {
    /// A bus with nothing but the host bridge, which is function 0 of device 0.
    #[must_use]
    pub fn new() -> Self {
        let mut bus = Self { address: 0, functions: Vec::new(), memory: Bus::new(), ports: Bus::new() };
        bus.insert(DeviceFunction(0), Box::new(HostBridge));
        bus
    }

    /// Puts a function onto the bus, in place of one that was there.
    pub(crate) fn insert(&mut self, at: DeviceFunction, function: Box<dyn PciFunction>) {
        self.functions.retain(|(taken, _)| *taken != at);
        self.functions.push((at, function));
        self.update_windows();
    }

    /// The first device that is not there; nothing if all 31 beside the host bridge are.
    pub(crate) fn free_device(&self) -> Option<u8> {
        (1..DEVICES).find(|device| self.functions.iter().all(|(taken, _)| taken.0 >> 3 != *device))
    }

    /// Tells a function something.
    pub(crate) fn notice(&mut self, at: DeviceFunction, notice: Notice) {
        if let Some(function) = self.functions.iter_mut().find(|(place, _)| *place == at) {
            function.1.notice(notice);
        }
    }

    /// Tells all functions something.
    pub(crate) fn notice_all(&mut self, notice: Notice) {
        self.functions.iter_mut().for_each(|(_, function)| function.notice(notice));
    }

    /// The next interrupt to send.
    pub(crate) fn take_message(&mut self) -> Option<Message> {
        self.functions.iter_mut().find_map(|(_, function)| function.take_message())
    }

    /// Reads memory of a function. Whether there is one that decodes all of it.
    pub(crate) fn read_memory(&mut self, address: u64, data: &mut [u8]) -> bool {
        let target = self.memory.find(address, data.len());
        self.read_bar(target, data)
    }

    /// Writes memory of a function. Whether there is one that decodes all of it.
    pub(crate) fn write_memory(&mut self, address: u64, data: &[u8]) -> bool {
        let target = self.memory.find(address, data.len());
        self.write_bar(target, data)
    }

    /// Reads ports of a function. Whether there is one that decodes all of them.
    pub(crate) fn read_ports(&mut self, port: u16, data: &mut [u8]) -> bool {
        let target = self.ports.find(u64::from(port), data.len());
        self.read_bar(target, data)
    }

    /// Writes ports of a function. Whether there is one that decodes all of them.
    pub(crate) fn write_ports(&mut self, port: u16, data: &[u8]) -> bool {
        let target = self.ports.find(u64::from(port), data.len());
        self.write_bar(target, data)
    }

    /// Whether a function could get this port.
    pub(crate) fn can_have_port(&self, port: u16) -> bool {
        self.functions.len() > 1 && PCI_IO_WINDOW.contains(&u64::from(port))
    }

    /// Adds the state of all functions.
    pub(crate) fn save(&self, state: &mut Encoder) {
        self.functions.iter().for_each(|(_, function)| function.save(state));
    }

    /// Takes the state of as many functions as there are.
    pub(crate) fn restore(&mut self, state: &mut Decoder<'_>) -> Result<(), StateError> {
        for (_, function) in &mut self.functions {
            function.restore(state)?;
        }
        self.update_windows();
        Ok(())
    }

    /// Reads the address port.
    #[must_use]
    pub const fn read_address(&self) -> u32 {
        self.address
    }

    /// Writes the address port.
    pub const fn write_address(&mut self, value: u32) {
        self.address = value & ADDRESS_DEFINED;
    }

    /// Reads up to four bytes of the data port, the first at `offset` of four.
    pub fn read_data(&mut self, offset: u16, data: &mut [u8]) {
        match self.addressed() {
            Some(address) => self.read_ecam(address + u64::from(offset & 3), data),
            None => data.fill(u8::MAX),
        }
    }

    /// Writes up to four bytes of the data port, the first at `offset` of four.
    pub fn write_data(&mut self, offset: u16, data: &[u8]) {
        if let Some(address) = self.addressed() {
            self.write_ecam(address + u64::from(offset & 3), data);
        }
    }

    /// Reads configuration space at `offset` of the memory-mapped region. Accesses may be of any size and need not be
    /// aligned; each double word that they touch is read once.
    pub fn read_ecam(&mut self, offset: u64, data: &mut [u8]) {
        read_words(offset, data, |register| match self.function(register) {
            Some(function) => function.read_config((register % CONFIG_SIZE) as u16),
            None => u32::MAX,
        });
    }

    /// Writes configuration space at `offset` of the memory-mapped region.
    pub fn write_ecam(&mut self, offset: u64, data: &[u8]) {
        write_words(offset, data, |register, value, mask| {
            let Some(function) = self.function(register) else { return };
            let offset = register % CONFIG_SIZE;
            function.write_config(offset as u16, value, mask);
            if offset == COMMAND_OFFSET || BAR_OFFSETS.contains(&offset) {
                self.update_windows();
            }
        });
    }

    /// Looks again at what the functions decode. Where windows overlap, that of the function that was put onto the bus
    /// first is there, all of it, and the other one is not.
    fn update_windows(&mut self) {
        self.memory.release(|_| true);
        self.ports.release(|_| true);
        for (index, (_, function)) in self.functions.iter().enumerate() {
            for bar in 0..BARS {
                let target = Target { function: index, bar };
                let _is_shadowed = match function.window(bar) {
                    Some(Window::Memory(range)) => self.memory.claim(range, target).is_err(),
                    Some(Window::Io(range)) => self.ports.claim(range, target).is_err(),
                    None => false,
                };
            }
        }
    }

    fn read_bar(&mut self, target: Option<(Target, u64)>, data: &mut [u8]) -> bool {
        let Some((Target { function, bar }, offset)) = target else { return false };
        let function = self.functions.get_mut(function);
        function.map(|(_, function)| function.read_bar(bar, offset, data)).is_some()
    }

    fn write_bar(&mut self, target: Option<(Target, u64)>, data: &[u8]) -> bool {
        let Some((Target { function, bar }, offset)) = target else { return false };
        let function = self.functions.get_mut(function);
        function.map(|(_, function)| function.write_bar(bar, offset, data)).is_some()
    }

    /// What the address port chooses, as an offset in the memory-mapped region.
    fn addressed(&self) -> Option<u64> {
        let is_here = self.address & ADDRESS_ENABLE != 0 && self.address & ADDRESS_BUS == 0;
        let device_function = self.address >> 8 & 0xff;
        is_here.then(|| u64::from(device_function) * CONFIG_SIZE + u64::from(self.address & PORT_CONFIG_MASK))
    }

    /// The function that has the configuration space at an offset of the memory-mapped region.
    fn function(&mut self, offset: u64) -> Option<&mut Box<dyn PciFunction>> {
        let wanted = DeviceFunction(u8::try_from(offset / CONFIG_SIZE).ok()?);
        self.functions.iter_mut().find(|(at, _)| *at == wanted).map(|(_, function)| function)
    }
}

impl Default for PciBus {
    fn default() -> Self {
        Self::new()
    }
}
