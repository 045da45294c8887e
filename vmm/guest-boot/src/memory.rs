//! Guest-physical memory, as the loaders write it.

use core::fmt;

/// A guest-physical address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GuestPhys(pub u64);

impl fmt::Display for GuestPhys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x}", self.0)
    }
}

/// The guest has no RAM there, although the [`MemoryLayout`](crate::MemoryLayout) says so: a mistake of the machine's owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inaccessible(pub GuestPhys);

/// The guest's RAM.
pub trait GuestMemory {
    /// Writes all bytes, the first at `address`.
    ///
    /// # Errors
    /// [`Inaccessible`] if one of them lies outside of RAM.
    fn write(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), Inaccessible>;

    /// Makes `size_bytes` bytes zero. An owner who knows that the memory is fresh can do nothing here.
    ///
    /// # Errors
    /// [`Inaccessible`] if one of them lies outside of RAM.
    fn zero(&mut self, address: GuestPhys, size_bytes: u64) -> Result<(), Inaccessible> {
        let mut done = 0;
        while done < size_bytes {
            let at = GuestPhys(address.0.checked_add(done).ok_or(Inaccessible(address))?);
            let chunk = usize::try_from(size_bytes - done).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.write(at, ZEROS.get(..chunk).unwrap_or_default())?;
            done += chunk as u64;
        }
        Ok(())
    }
}

static ZEROS: [u8; 4096] = [0; 4096];
