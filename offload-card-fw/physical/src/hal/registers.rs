//! Device registers: memory of a device, accessed with the width that each register has.

use core::ptr;

use dragonfly_rt::Mapping;
use dragonfly_rt::abi::{Rights, Status};
use dragonfly_rt::sys::Memory;

/// Registers of a device, mapped as long as this lives.
///
/// What lies outside reads as ones and takes no writes, as where no device is.
#[derive(Debug)]
pub(crate) struct Registers {
    address: u64,
    size: u64,
    /// What is at the address; a test's memory stays for good.
    _mapping: Option<Mapping>,
}

/// Defines an access of a width: a read and a write.
macro_rules! access {
    ($read:ident, $write:ident, $width:ty) => {
        pub(crate) fn $read(&self, offset: u64) -> $width {
            let Some(address) = self.place(offset, size_of::<$width>()) else { return <$width>::MAX };
            // SAFETY: `place` gives an aligned address in the mapping, which lives; a register is any number.
            unsafe { ptr::with_exposed_provenance::<$width>(address).read_volatile() }
        }

        pub(crate) fn $write(&self, offset: u64, value: $width) {
            let Some(address) = self.place(offset, size_of::<$width>()) else { return };
            // SAFETY: as above, and the mapping is writable. No Rust object lives in a device's memory. What the write
            // makes the device do to other memory is up to the addresses that it has: those of the pool.
            unsafe { ptr::with_exposed_provenance_mut::<$width>(address).write_volatile(value) };
        }
    };
}

impl Registers {
    /// Maps all of a device's memory.
    ///
    /// # Errors
    /// As [`Memory::map`].
    pub(crate) fn map(memory: Memory) -> Result<Self, Status> {
        let size = memory.info()?.size;
        let mapping = Mapping::new(memory, 0, size, Rights::READ | Rights::WRITE)?;
        Ok(Self { address: mapping.address(), size, _mapping: Some(mapping) })
    }

    /// Memory that a test takes for registers.
    #[cfg(test)]
    pub(crate) fn of_test(memory: Box<[u64]>) -> Self {
        let size = 8 * memory.len() as u64;
        let address = Box::leak(memory).as_mut_ptr().expose_provenance() as u64;
        Self { address, size, _mapping: None }
    }

    /// Size in bytes.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    access!(read_u8, write_u8, u8);
    access!(read_u16, write_u16, u16);
    access!(read_u32, write_u32, u32);

    fn place(&self, offset: u64, width: usize) -> Option<usize> {
        let end = offset.checked_add(width as u64)?;
        let is_inside = end <= self.size && offset.is_multiple_of(width as u64);
        is_inside.then(|| (self.address + offset) as usize)
    }
}
