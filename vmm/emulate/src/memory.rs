//! What the emulation touches outside of the registers.

use core::fmt;

/// A guest-physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GuestPhys(pub u64);

impl fmt::Display for GuestPhys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

/// Nothing answers at that address, and the owner does not want to pretend that something does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Miss(pub GuestPhys);

/// Guest-physical memory: RAM and devices.
///
/// No access crosses a 4 KiB boundary. Accesses of 1, 2, 4 and 8 bytes that are aligned to their size should be atomic in
/// RAM, as they are on the processor.
pub trait Memory {
    /// The word of 8 bytes that an address lies in, read at once; `None` unless all of it is RAM.
    fn ram_word(&self, address: GuestPhys) -> Option<u64>;

    /// Reads all of `bytes`.
    ///
    /// # Errors
    /// [`Miss`], which ends the emulation.
    fn read(&mut self, address: GuestPhys, bytes: &mut [u8]) -> Result<(), Miss>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`Miss`], which ends the emulation.
    fn write(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), Miss>;

    /// Writes `new` if RAM still holds `current`, in one atomic step, and says whether it did. Both have 1, 2, 4, 8 or 16
    /// bytes. A device has just been read and is written without a comparison.
    ///
    /// # Errors
    /// [`Miss`], which ends the emulation.
    fn compare_exchange(&mut self, address: GuestPhys, current: &[u8], new: &[u8]) -> Result<bool, Miss>;
}

/// The I/O ports. Ports without a device read as ones and ignore what is written, so there are no errors.
pub trait Ports {
    /// Reads from a port; `bytes` are 1, 2 or 4.
    fn input(&mut self, port: u16, bytes: &mut [u8]);

    /// Writes to a port; `bytes` are 1, 2 or 4.
    fn output(&mut self, port: u16, bytes: &[u8]);
}
