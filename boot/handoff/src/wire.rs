//! The handoff as it lies in memory, in the byte order of the machine.
//!
//! Private, but for the constants: users see the checked [`Handoff`](crate::Handoff). Any change of this layout or of a
//! value's meaning raises [`VERSION`]; loader and kernel are built together, so only equal versions work together.

use core::mem::{align_of, offset_of, size_of};

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{MAX_KERNEL_SEGMENTS, PhysAddr, VirtAddr};

/// First word of a handoff: "DRAGONFL" in the little-endian order of the bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"DRAGONFL");

/// Version of the layout.
pub const VERSION: u32 = 1;

/// Size of the encoded handoff, in bytes.
pub const HANDOFF_SIZE: usize = size_of::<WireHandoff>();

bitflags! {
    /// What the loader found and did.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HandoffFlags: u32 {
        /// The page tables use no-execute (EFER.NXE is set); without it no mapping could be kept from executing.
        const NO_EXECUTE = 1 << 0;
        /// The firmware is UEFI; without it, a PC BIOS.
        const UEFI       = 1 << 1;
    }

    /// What a kernel segment may be used for beside reading.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SegmentFlags: u32 {
        /// Data that the kernel writes.
        const WRITE   = 1 << 0;
        /// Code.
        const EXECUTE = 1 << 1;
    }
}

/// The structure at the address that the kernel is given.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WireHandoff {
    pub magic: u64,
    pub version: u32,
    /// Size of this structure in bytes.
    pub size: u32,
    /// [`HandoffFlags`].
    pub flags: u32,
    /// How many of `kernel_segments` count.
    pub kernel_segment_count: u32,
    /// Physical address of an array of [`MemoryRegion`](crate::MemoryRegion), at a multiple of 8.
    pub memory_map_address: PhysAddr,
    /// How many entries it has.
    pub memory_map_count: u64,
    pub bundle: WireRange,
    /// UTF-8, without a terminator.
    pub command_line: WireRange,
    /// Physical address of the ACPI root pointer or of a copy of it; 0 for none.
    pub acpi_rsdp: PhysAddr,
    /// The loader's page tables, stack, this structure and what it points at.
    pub boot_memory: WireRange,
    pub direct_map_base: VirtAddr,
    /// In bytes.
    pub direct_map_size: u64,
    /// UTF-8, filled up with zero bytes.
    pub loader_name: [u8; 32],
    /// In ascending order of their virtual addresses.
    pub kernel_segments: [WireSegment; MAX_KERNEL_SEGMENTS],
}

/// Physical bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WireRange {
    pub base: PhysAddr,
    pub size: u64,
}

/// Whole frames that hold one segment of the kernel.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WireSegment {
    pub virtual_base: VirtAddr,
    pub frames: WireRange,
    /// [`SegmentFlags`].
    pub flags: u32,
    pub reserved: u32,
}

const _: () = {
    assert!(align_of::<WireHandoff>() == 8);
    assert!(offset_of!(WireHandoff, magic) == 0);
    assert!(offset_of!(WireHandoff, version) == 8);
    assert!(offset_of!(WireHandoff, size) == 12);
    assert!(offset_of!(WireHandoff, flags) == 16);
    assert!(offset_of!(WireHandoff, kernel_segment_count) == 20);
    assert!(offset_of!(WireHandoff, memory_map_address) == 24);
    assert!(offset_of!(WireHandoff, memory_map_count) == 32);
    assert!(offset_of!(WireHandoff, bundle) == 40);
    assert!(offset_of!(WireHandoff, command_line) == 56);
    assert!(offset_of!(WireHandoff, acpi_rsdp) == 72);
    assert!(offset_of!(WireHandoff, boot_memory) == 80);
    assert!(offset_of!(WireHandoff, direct_map_base) == 96);
    assert!(offset_of!(WireHandoff, direct_map_size) == 104);
    assert!(offset_of!(WireHandoff, loader_name) == 112);
    assert!(offset_of!(WireHandoff, kernel_segments) == 144);
    assert!(size_of::<WireSegment>() == 32);
    assert!(HANDOFF_SIZE == 400);
};
