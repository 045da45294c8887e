//! Puts a guest's kernel into its memory and says in which state its first vCPU starts.
//!
//! [`load`] knows three boot protocols and tells them apart by the file's content:
//! - [`Protocol::Linux64`]: a bzImage through its 64-bit entry (Linux, `Documentation/arch/x86/boot.rst`),
//! - [`Protocol::Pvh`]: an ELF file with Xen's note `PHYS32_ENTRY` (Xen, `public/arch-x86/hvm/start_info.h`),
//! - [`Protocol::Multiboot1`]: an ELF or flat file with a Multiboot 1 header (Multiboot Specification 0.6.96).
//!
//! All that is written goes through [`GuestMemory`] and lies in RAM of the [`MemoryLayout`]; no two things overlap. The
//! files are foreign: whatever they hold, the result is a loaded guest or a [`LoadError`] whose text is for the person who
//! chose the file.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod bzimage;
mod elf_image;
mod error;
mod layout;
mod memory;
mod multiboot;
mod pvh;
mod room;
mod start_state;
mod tables;

pub use error::LoadError;
pub use layout::{HIGH_RAM_BASE, MAX_MAP_ENTRIES, MapEntry, MemoryKind, MemoryLayout, MemoryMap};
pub use memory::{GuestMemory, GuestPhys, Inaccessible};
pub use start_state::{DescriptorTable, GeneralRegisters, Segment, StartState};

use core::ops::Range;

use bzimage::BzImage;
use elf_image::ElfImage;
use multiboot::Multiboot;
use room::Room;

/// What is to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The kernel's file.
    pub kernel: &'r [u8],
    /// The initial RAM disk's file; to Multiboot kernels it is the one module.
    pub initrd: Option<&'r [u8]>,
    /// The kernel's command line, without a final NUL.
    pub command_line: &'r [u8],
    /// What lies where in guest-physical memory.
    pub memory: &'r MemoryLayout,
}

/// A guest that can be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// How its kernel is started.
    pub protocol: Protocol,
    /// The first vCPU at its first instruction; the others wait for INIT and SIPI.
    pub state: StartState,
}

/// How a kernel is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Linux bzImage, in 64-bit mode with paging.
    Linux64,
    /// PVH, in 32-bit protected mode without paging.
    Pvh,
    /// Multiboot 1, in 32-bit protected mode without paging.
    Multiboot1,
}

/// Loads the kernel and what it is told into `memory`.
///
/// # Errors
/// Any of [`LoadError`]. The guest's memory may have been written by then, so it must not be started.
pub fn load(request: &Request<'_>, memory: &mut impl GuestMemory) -> Result<Loaded, LoadError> {
    if request.command_line.contains(&0) {
        return Err(LoadError::CommandLineHasNul);
    }
    let map = request.memory.map();
    let mut loader = Loader { request, map: &map, room: Room::new(&map), memory };
    if BzImage::is_one(request.kernel) {
        let state = BzImage::parse(request.kernel)?.load(&mut loader)?;
        return Ok(Loaded { protocol: Protocol::Linux64, state });
    }
    let elf = ElfImage::is_one(request.kernel).then(|| ElfImage::parse(request.kernel)).transpose()?;
    if let Some(elf) = &elf
        && let Some(entry) = pvh::entry(elf)?
    {
        return Ok(Loaded { protocol: Protocol::Pvh, state: pvh::load(elf, entry, &mut loader)? });
    }
    if let Some(multiboot) = Multiboot::find(request.kernel)? {
        let state = multiboot.load(elf.as_ref(), &mut loader)?;
        return Ok(Loaded { protocol: Protocol::Multiboot1, state });
    }
    Err(if elf.is_some() { LoadError::ElfWithoutEntry } else { error::not_a_kernel(request.kernel) })
}

/// What all protocols work with.
struct Loader<'l, M> {
    request: &'l Request<'l>,
    map: &'l MemoryMap,
    room: Room<'l>,
    memory: &'l mut M,
}

impl<M: GuestMemory> Loader<'_, M> {
    /// Puts bytes that any kernel finds below 640 KiB, where every kernel can reach them, and gives their address.
    fn put_low(&mut self, bytes: &[u8], alignment: u64) -> Result<u64, LoadError> {
        let size = bytes.len() as u64;
        let base = self.room.lowest(size, alignment, room::LOW).ok_or(LoadError::NoLowMemory)?;
        self.memory.write(GuestPhys(base), bytes)?;
        Ok(base)
    }

    /// Takes what a kernel wants above 1 MiB, and explains if that cannot be.
    fn take_extended(&mut self, range: Range<u64>) -> Result<(), LoadError> {
        if range.start >= room::EXTENDED.start && self.room.take(range.clone()) {
            return Ok(());
        }
        Err(self.why_not_ram(&range))
    }

    /// What is to be said of a range that is not all RAM: that more memory would help, or that nothing would.
    fn why_not_ram(&self, range: &Range<u64>) -> LoadError {
        let could_be_ram = range.start >= room::EXTENDED.start && range.end <= self.request.memory.ecam.start.0;
        if could_be_ram && range.end > self.room.low_ram_end() {
            return LoadError::NeedsMemory { mib: error::mib(range.end) };
        }
        LoadError::OutsideMemory(GuestPhys(range.start))
    }

    /// Puts the command line with its final NUL below 640 KiB.
    fn put_command_line(&mut self, limit: usize) -> Result<u64, LoadError> {
        let line = self.request.command_line;
        if line.len() > limit {
            return Err(LoadError::CommandLineTooLong { bytes: line.len(), limit });
        }
        let base = self.room.lowest(line.len() as u64 + 1, 16, room::LOW).ok_or(LoadError::NoLowMemory)?;
        self.memory.write(GuestPhys(base), line)?;
        self.memory.write(GuestPhys(base + line.len() as u64), &[0])?;
        Ok(base)
    }

    /// Puts the initial RAM disk, if there is one, where `place` finds room for that many bytes; gives its address.
    fn put_initrd(&mut self, place: impl FnOnce(&mut Room<'_>, u64) -> Option<u64>) -> Result<Option<u64>, LoadError> {
        let Some(initrd) = self.request.initrd else { return Ok(None) };
        let size = initrd.len() as u64;
        let base = place(&mut self.room, size).ok_or(LoadError::InitrdDoesNotFit { initrd_mib: error::mib(size) })?;
        self.memory.write(GuestPhys(base), initrd)?;
        Ok(Some(base))
    }
}
