//! The host bridge: nothing but its identification.

use super::PciFunction;

/// Vendor 1b36, device 0008: the generic PCI Express host bridge that QEMU's machines have too. Kernels know of no quirks.
const ID: u32 = 0x0008_1b36;
/// Class 06, subclass 00: host bridge (PCI Code and ID Assignment 1.11, 1.7); revision 0.
const CLASS: u32 = 0x0600_0000;
/// Vendor of the subsystem; the same with number 0x1100, as QEMU's devices have.
const SUBSYSTEM: u32 = 0x1100_1af4;

const ID_OFFSET: u16 = 0x00;
const CLASS_OFFSET: u16 = 0x08;
const SUBSYSTEM_OFFSET: u16 = 0x2c;

/// The function 00:00.0.
#[derive(Clone, Copy, Debug)]
pub struct HostBridge;

impl PciFunction for HostBridge {
    fn read_config(&mut self, offset: u16) -> u32 {
        match offset {
            ID_OFFSET => ID,
            CLASS_OFFSET => CLASS,
            SUBSYSTEM_OFFSET => SUBSYSTEM,
            _ => 0,
        }
    }

    fn write_config(&mut self, _offset: u16, _value: u32, _mask: u32) {}
}
