//! The machine as the loader finds it: CPU, memory, and what of that memory is in use already.

use dragonfly_handoff::{
    DIRECT_MAP_LIMIT, MemoryKind, MemoryMap, MemoryMapError, MemoryRegion, PAGE_SIZE, PhysAddr, PhysRange,
};

use crate::boot_info::BootInfo;
use crate::page_tables::PageSize;

/// What the loader needs to know about the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    /// Pages can be kept from executing.
    pub no_execute: bool,
    /// There are pages of 1 GiB.
    pub gib_pages: bool,
    /// Width of physical addresses.
    pub physical_address_bits: u32,
}

/// What the loader found, before anything is placed.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The CPU.
    pub cpu: Cpu,
    /// What the boot loader told.
    pub boot: BootInfo<'a>,
    /// Where that lies.
    pub boot_info_memory: PhysRange,
    /// The loader's program, with its data and stack.
    pub loader_image: PhysRange,
    /// The part of it that is code, whole pages.
    pub loader_code: PhysRange,
}

impl Machine<'_> {
    /// The memory map while the kernel is being loaded: with everything that the boot loader left.
    ///
    /// # Errors
    /// Those of [`MemoryMap::normalise`].
    pub fn memory_map_before(&self) -> Result<MemoryMap, MemoryMapError> {
        self.memory_map(&[
            region(self.boot_info_memory, MemoryKind::BOOTLOADER),
            region(self.boot.kernel, MemoryKind::BOOTLOADER),
            region(self.boot.bundle, MemoryKind::BUNDLE),
        ])
    }

    /// The memory map with the loader's program and what else is `in_use`.
    ///
    /// # Errors
    /// Those of [`MemoryMap::normalise`].
    pub fn memory_map(&self, in_use: &[MemoryRegion]) -> Result<MemoryMap, MemoryMapError> {
        let always = [
            // Page 0 holds BIOS data, and physical address 0 is better never anyone's memory.
            MemoryRegion::new(PhysAddr(0), PAGE_SIZE, MemoryKind::RESERVED),
            region(self.loader_image, MemoryKind::BOOTLOADER),
        ];
        let regions = self.boot.memory.regions().chain(always).chain(in_use.iter().copied());
        MemoryMap::normalise(regions, self.physical_limit())
    }

    /// Size of the pages of the direct map.
    pub fn direct_map_page(&self) -> PageSize {
        if self.cpu.gib_pages { PageSize::Size1G } else { PageSize::Size2M }
    }

    /// How much physical memory the direct map shows, in bytes: up to the end of RAM, and at least the first 4 GiB, where
    /// firmware's tables and device registers are.
    pub fn direct_map_size(&self, map: &MemoryMap) -> u64 {
        const FIRST: PhysAddr = PhysAddr(4 << 30);
        map.ram_end().max(FIRST).0.next_multiple_of(self.direct_map_page().bytes())
    }

    /// The end of physical addresses that the CPU has and that the direct map may show.
    fn physical_limit(&self) -> PhysAddr {
        let end = 1u64.checked_shl(self.cpu.physical_address_bits).unwrap_or(u64::MAX);
        PhysAddr(end.min(DIRECT_MAP_LIMIT))
    }
}

/// All of `range` as an entry of a memory map.
pub fn region(range: PhysRange, kind: MemoryKind) -> MemoryRegion {
    MemoryRegion::new(range.base(), range.size(), kind)
}
