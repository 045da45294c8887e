//! Memory that a front end shares with this process, mapped: a module with `unsafe`.
//!
//! What is relied on: a mapping made here stays where it is, readable and writable, until it is dropped; nothing makes a
//! reference to its bytes, which are reached through [`GuestSlice`]s alone; and a [`MemoryMap`] is given a mapping before
//! that is stored, and loses it before that is dropped. The compiler is thus told nothing about bytes that a guest changes.
//!
//! A front end may cut a file short after it was mapped; the kernel then ends this process with SIGBUS when the pages are
//! touched. Files that are sealed against that (QEMU's `memory-backend-memfd` are) can be told, see [`Mapping::can_shrink`].
#![expect(unsafe_code, reason = "guest memory is mapped and reached by pointers")]

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::{NonNull, null_mut},
};

use dragonfly_vhost_user::Region;
use dragonfly_virtqueue::{GuestAddress, GuestMemory, GuestSlice, MemoryError, MemoryMap, RegionError};
use rustix::{
    fs::{FileType, SealFlags, fcntl_get_seals, fstat},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};
use thiserror::Error;

/// Why memory cannot be mapped.
#[derive(Debug, Error)]
pub enum MapError {
    /// The front end passed something that is no file.
    #[error("what was passed is no file in memory or on a disk")]
    NotAFile,
    /// The file ends before the region does: touching it would end this process.
    #[error("the file has {file_size:#x} bytes, but the region reaches to {end:#x}")]
    TooShort {
        /// Bytes of the file.
        file_size: u64,
        /// Where the region ends in it.
        end: u64,
    },
    /// The region is not one that can be part of a guest's memory.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The kernel refuses.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<rustix::io::Errno> for MapError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno.into())
    }
}

/// A part of a file, mapped for reading and writing and shared with whoever else has it.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    mapped_len: usize,
    /// Where the part begins in what is mapped, which begins with a page.
    offset: usize,
    len: usize,
    can_shrink: bool,
}

// SAFETY: The mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a file from `offset` on.
    ///
    /// # Errors
    /// It is no file, is too short, or the kernel refuses.
    pub fn new(file: &OwnedFd, offset: u64, len: u64) -> Result<Self, MapError> {
        let stat = fstat(file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(MapError::NotAFile);
        }
        let file_size = u64::try_from(stat.st_size).unwrap_or_default();
        let end = offset.saturating_add(len);
        if len == 0 || end > file_size {
            return Err(MapError::TooShort { file_size, end });
        }
        // Of a file in huge pages this is their size, which its mappings are made of.
        let page = u64::try_from(stat.st_blksize).unwrap_or_default().max(4096).next_power_of_two();
        let first = offset & !(page - 1);
        let mapped = (end - first).next_multiple_of(page);
        let too_long = || MapError::System(io::ErrorKind::OutOfMemory.into());
        let mapped_len = usize::try_from(mapped).map_err(|_| too_long())?;
        // SAFETY: With no address given the kernel chooses one where nothing is mapped.
        let start = unsafe {
            mmap(null_mut(), mapped_len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file.as_fd(), first)?
        };
        let start = NonNull::new(start.cast()).ok_or_else(too_long)?;
        let can_shrink = !fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        // Both are at most `mapped_len`.
        let (offset, len) = ((offset - first) as usize, len as usize);
        Ok(Self { start, mapped_len, offset, len, can_shrink })
    }

    /// Whether the file may be cut short, which would end this process.
    #[must_use]
    pub fn can_shrink(&self) -> bool {
        self.can_shrink
    }

    /// The bytes asked for, or a part of them.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Option<GuestSlice<'_>> {
        let is_inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        // SAFETY: The part is in the mapping, which lives as long as the slice.
        is_inside.then(|| unsafe { GuestSlice::new(self.first().add(offset), len) })
    }

    fn first(&self) -> NonNull<u8> {
        // SAFETY: `offset` is in the mapping, by construction.
        unsafe { self.start.add(self.offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: This is the mapping that `new` made, and nothing points into it any more: slices borrow it, and
        // `GuestRam` takes it out of its map first. Nothing could be done about a failure.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.mapped_len) };
    }
}

/// A guest's memory.
#[derive(Debug, Default)]
pub struct GuestRam {
    map: MemoryMap,
    /// By guest-physical address.
    mappings: Vec<(u64, Mapping)>,
}

impl GuestRam {
    /// Maps a region.
    ///
    /// # Errors
    /// See [`Mapping::new`]; or the region overlaps another.
    pub fn add(&mut self, region: &Region, file: &OwnedFd) -> Result<&Mapping, MapError> {
        let mapping = Mapping::new(file, region.mmap_offset, region.size)?;
        // SAFETY: The mapping is stored beside the map, and `remove` takes it out of the map before it drops it. The map is
        // never cloned, and nothing else in this process touches the mapping.
        unsafe { self.map.add(GuestAddress(region.guest_address), region.size, mapping.first())? };
        self.mappings.push((region.guest_address, mapping));
        let (_, mapping) = self.mappings.last().ok_or(MapError::NotAFile)?;
        Ok(mapping)
    }

    /// Takes a region away.
    pub fn remove(&mut self, guest_address: u64) {
        self.map.remove(GuestAddress(guest_address));
        self.mappings.retain(|(address, _)| *address != guest_address);
    }
}

impl GuestMemory for GuestRam {
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.map.piece(address, limit)
    }
}

/// A guest's memory as one queue sees it.
#[derive(Clone, Copy, Debug)]
pub struct QueueMemory<'a> {
    ram: &'a GuestRam,
    in_flight: Option<GuestSlice<'a>>,
}

impl<'a> QueueMemory<'a> {
    /// Of a queue that keeps what is in flight in this slice, if it keeps it.
    #[must_use]
    pub fn new(ram: &'a GuestRam, in_flight: Option<GuestSlice<'a>>) -> Self {
        Self { ram, in_flight }
    }
}

impl GuestMemory for QueueMemory<'_> {
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.ram.piece(address, limit)
    }

    fn in_flight(&self) -> Option<GuestSlice<'_>> {
        self.in_flight
    }
}
