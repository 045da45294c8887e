//! Memory that a back end shares: the only module with `unsafe`.
//!
//! Words are reached as atomics, and bytes are copied by pointer while the driver owns the buffer that they are in; no
//! reference to shared bytes is ever made.
#![expect(unsafe_code, reason = "shared memory is mapped and reached by pointers")]

use std::{
    os::fd::{AsFd, OwnedFd},
    ptr::{NonNull, null_mut},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, AtomicU64},
    },
};

use anyhow::{Context, Result};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// A guest's memory, from guest-physical address 0 on.
#[derive(Debug)]
pub struct Memory {
    file: Arc<OwnedFd>,
    start: NonNull<u8>,
    len: usize,
}

impl Memory {
    /// Zeroed memory of so many bytes, which nobody can cut short.
    ///
    /// # Errors
    /// The system has none.
    pub fn new(len: usize) -> Result<Self> {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, len as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        // SAFETY: With no address given the kernel chooses one where nothing is mapped.
        let start = unsafe {
            let flags = MapFlags::SHARED | MapFlags::POPULATE;
            mmap(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags, file.as_fd(), 0)?
        };
        Ok(Self { file: Arc::new(file), start: NonNull::new(start.cast()).context("memory at address 0")?, len })
    }

    /// What the back end maps.
    #[must_use]
    pub fn file(&self) -> Arc<OwnedFd> {
        self.file.clone()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The word at an address, which must be aligned and inside.
    #[must_use]
    pub fn u16(&self, address: u64) -> &AtomicU16 {
        // SAFETY: `at` has checked the place, and atomics may be shared with another process.
        unsafe { self.at(address, 2).cast().as_ref() }
    }

    /// As [`Self::u16`].
    #[must_use]
    pub fn u32(&self, address: u64) -> &AtomicU32 {
        // SAFETY: As in `u16`.
        unsafe { self.at(address, 4).cast().as_ref() }
    }

    /// As [`Self::u16`].
    #[must_use]
    pub fn u64(&self, address: u64) -> &AtomicU64 {
        // SAFETY: As in `u16`.
        unsafe { self.at(address, 8).cast().as_ref() }
    }

    /// Copies bytes into a buffer that the driver owns.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        // SAFETY: The place is inside, and what the caller has is not shared memory.
        unsafe {
            self.at(address, 1).copy_from_nonoverlapping(NonNull::from(bytes).cast(), self.inside(address, bytes.len()))
        };
    }

    /// Copies bytes out of a buffer that the driver owns.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        let len = self.inside(address, bytes.len());
        // SAFETY: As in `write`.
        unsafe { self.at(address, 1).copy_to_nonoverlapping(NonNull::from(bytes).cast(), len) };
    }

    /// The length, if so many bytes are there.
    fn inside(&self, address: u64, len: usize) -> usize {
        assert!(address as usize + len <= self.len, "{len} bytes at {address:#x} are outside the memory");
        len
    }

    /// A pointer to an aligned word of so many bytes.
    fn at(&self, address: u64, bytes: usize) -> NonNull<u8> {
        let offset = address as usize;
        assert!(offset.is_multiple_of(bytes) && offset + bytes <= self.len, "no word of {bytes} bytes at {address:#x}");
        // SAFETY: It is inside the mapping.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: This is the mapping that `new` made, and words borrow it. Nothing could be done about a failure.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
