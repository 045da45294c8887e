//! Memory objects in the own address space.
#![expect(unsafe_code, reason = "accesses mapped memory through its address")]

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU32, AtomicU64};
use core::{ptr, slice};

use dragonfly_abi::{PAGE_SIZE, Rights, Status};

use crate::address_space;
use crate::sys::{Domain, Memory};

/// A part of a memory object, mapped at an address of the runtime's choice until this goes out of scope.
///
/// Another domain may write to the same memory at any time. So no reference to its bytes is given: they are copied, or
/// accessed as atomics. An access where no frame is, or after the object was revoked, is a page fault.
#[derive(Debug)]
pub struct Mapping {
    address: u64,
    size: u64,
    rights: Rights,
}

impl Mapping {
    /// Maps a part of an object: offset and size in bytes, multiples of the page size.
    ///
    /// # Errors
    /// As [`Memory::map`]; [`Status::OutOfMemory`] also if no address range is free.
    pub fn new(memory: Memory, offset: u64, size: u64, rights: Rights) -> Result<Self, Status> {
        // Aligned so that large pages can be used where the object has them.
        let alignment = if size >= 2 << 20 { 2 << 20 } else { PAGE_SIZE };
        let address = address_space::take(size, alignment).ok_or(Status::OutOfMemory)?;
        match memory.map(Domain::OWN, address, offset, size, rights) {
            Ok(()) => Ok(Self { address, size, rights }),
            Err(status) => {
                address_space::give(address, size);
                Err(status)
            }
        }
    }

    /// Where it is mapped.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Copies bytes out of the memory.
    ///
    /// # Errors
    /// [`Status::BadArgument`] if they do not all lie in the mapping.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Status> {
        let from = self.part(offset, into.len())?;
        // SAFETY: the range is mapped, and `into` is no part of it, for no reference to it exists.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies bytes into the memory.
    ///
    /// # Errors
    /// [`Status::BadArgument`] if they do not all fit, [`Status::Denied`] if it is not mapped writable.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Status> {
        if !self.rights.contains(Rights::WRITE) {
            return Err(Status::Denied);
        }
        let into = self.part(offset, bytes.len())?;
        // SAFETY: as in `read`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), into, bytes.len()) };
        Ok(())
    }

    /// An aligned word of the memory. Storing into one that is not mapped writable is a page fault.
    ///
    /// # Errors
    /// [`Status::BadArgument`] unless the offset is a multiple of eight and in the mapping.
    pub fn word(&self, offset: u64) -> Result<&AtomicU64, Status> {
        if !offset.is_multiple_of(8) {
            return Err(Status::BadArgument);
        }
        let word = self.part(offset, 8)?;
        // SAFETY: mapped for as long as `self` lives and aligned; nothing accesses the mapping but atomics and copies.
        Ok(unsafe { AtomicU64::from_ptr(word.cast()) })
    }

    /// An aligned half word of the memory, for registers of devices that take accesses of 32 bits.
    ///
    /// # Errors
    /// [`Status::BadArgument`] unless the offset is a multiple of four and in the mapping.
    pub fn word32(&self, offset: u64) -> Result<&AtomicU32, Status> {
        if !offset.is_multiple_of(4) {
            return Err(Status::BadArgument);
        }
        let word = self.part(offset, 4)?;
        // SAFETY: as in `word`.
        Ok(unsafe { AtomicU32::from_ptr(word.cast()) })
    }

    /// All of the memory, in words. Storing into one that is not mapped writable is a page fault.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &[AtomicU64] {
        let words = ptr::with_exposed_provenance(self.address as usize);
        // SAFETY: as in `word`; mappings are made of whole pages.
        unsafe { slice::from_raw_parts(words, (self.size / 8) as usize) }
    }

    /// Leaves the memory mapped for good; gives its address.
    pub(crate) fn keep(self) -> *mut u8 {
        ptr::with_exposed_provenance_mut(ManuallyDrop::new(self).address as usize)
    }

    fn part(&self, offset: u64, size: usize) -> Result<*mut u8, Status> {
        let end = offset.checked_add(size as u64).ok_or(Status::BadArgument)?;
        if end > self.size {
            return Err(Status::BadArgument);
        }
        Ok(ptr::with_exposed_provenance_mut((self.address + offset) as usize))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the memory: what `word` gave does not outlive the mapping.
        let unmapped = unsafe { Domain::OWN.unmap(self.address) };
        // After a revocation there is nothing to unmap. Otherwise an address that is still mapped is not used again.
        if matches!(unmapped, Ok(()) | Err(Status::NotMapped)) {
            address_space::give(self.address, self.size);
        }
    }
}
