//! PCI Express: the host bridge and the ways to configuration space, memory-mapped (PCI Express 5.0, 7.2.2) and by ports
//! (PCI Local Bus 3.0, 3.2.2.3.2). There is one bus. Functions that are not there read as all ones.

mod host_bridge;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;

pub use host_bridge::HostBridge;

/// Bytes of a function's configuration space.
const CONFIG_SIZE: u64 = 4096;
/// Devices that a bus can have.
const DEVICES: u8 = 32;
/// Bytes of it that the ports reach.
const PORT_CONFIG_MASK: u32 = 0xfc;

/// Address port: the data port is connected to configuration space.
const ADDRESS_ENABLE: u32 = 1 << 31;
const ADDRESS_BUS: u32 = 0xff << 16;
/// Bits of the address that exist.
const ADDRESS_DEFINED: u32 = ADDRESS_ENABLE | 0x00ff_fffc;

/// Device and function number on the bus: device in bits 7:3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeviceFunction(pub u8);

/// A PCI function as its configuration space. What the guest writes is foreign.
pub(crate) trait PciFunction: Send {
    /// The double word at `offset`, a multiple of 4 below 4096. What is not there is zero.
    fn read_config(&mut self, offset: u16) -> u32;

    /// Writes those bytes of the double word at `offset` whose bits are set in `mask`.
    fn write_config(&mut self, offset: u16, value: u32, mask: u32);
}

/// Bus 0 with its functions.
pub struct PciBus {
    /// What the address port holds.
    address: u32,
    functions: Vec<(DeviceFunction, Box<dyn PciFunction>)>,
}

impl PciBus {
    /// A bus with nothing but the host bridge, which is function 0 of device 0.
    #[must_use]
    pub fn new() -> Self {
        let mut bus = Self { address: 0, functions: Vec::new() };
        bus.insert(DeviceFunction(0), Box::new(HostBridge));
        bus
    }

    /// Puts a function onto the bus, in place of one that was there.
    pub(crate) fn insert(&mut self, at: DeviceFunction, function: Box<dyn PciFunction>) {
        self.functions.retain(|(taken, _)| *taken != at);
        self.functions.push((at, function));
    }

    /// Puts a function onto the bus as the only one of the next device; gives where, or nothing if there are 31 already.
    pub(crate) fn add(&mut self, function: Box<dyn PciFunction>) -> Option<DeviceFunction> {
        let device = (1..DEVICES).find(|device| self.functions.iter().all(|(taken, _)| taken.0 >> 3 != *device))?;
        let at = DeviceFunction(device << 3);
        self.insert(at, function);
        Some(at)
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
        data.fill(u8::MAX);
        for (register, first, bytes) in parts_mut(offset, data) {
            let Some(function) = self.function(register) else { continue };
            let value = function.read_config((register % CONFIG_SIZE) as u16).to_le_bytes();
            for (byte, value) in bytes.iter_mut().zip(value.iter().skip(first)) {
                *byte = *value;
            }
        }
    }

    /// Writes configuration space at `offset` of the memory-mapped region.
    pub fn write_ecam(&mut self, offset: u64, data: &[u8]) {
        for (register, first, bytes) in parts(offset, data) {
            let Some(function) = self.function(register) else { continue };
            let (mut value, mut mask) = ([0; 4], [0; 4]);
            for ((value, mask), byte) in value.iter_mut().zip(&mut mask).skip(first).zip(bytes) {
                *value = *byte;
                *mask = u8::MAX;
            }
            function.write_config((register % CONFIG_SIZE) as u16, u32::from_le_bytes(value), u32::from_le_bytes(mask));
        }
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

/// Cuts an access at double words: for each its address, the first byte in it and the bytes.
fn parts(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let (head, rest) = data.split_at(head_length(offset, data.len()));
    let aligned = (offset & !3).wrapping_add(4);
    let first = core::iter::once((offset & !3, (offset & 3) as usize, head));
    first.chain((0u64..).zip(rest.chunks(4)).map(move |(index, bytes)| (aligned.wrapping_add(4 * index), 0, bytes)))
}

/// As [`parts`].
fn parts_mut(offset: u64, data: &mut [u8]) -> impl Iterator<Item = (u64, usize, &mut [u8])> {
    let (head, rest) = data.split_at_mut(head_length(offset, data.len()));
    let aligned = (offset & !3).wrapping_add(4);
    let first = core::iter::once((offset & !3, (offset & 3) as usize, head));
    first.chain((0u64..).zip(rest.chunks_mut(4)).map(move |(index, bytes)| (aligned.wrapping_add(4 * index), 0, bytes)))
}

fn head_length(offset: u64, length: usize) -> usize {
    length.min(4 - (offset & 3) as usize)
}
