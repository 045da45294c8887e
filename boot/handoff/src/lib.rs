//! The one structure that a loader passes to the kernel.
//!
//! A loader puts the kernel, the bundle and a [`Handoff`] into memory and jumps to the kernel in the state of the
//! [contract](#contract). The kernel reads the structure with [`Handoff::parse`] and the memory map with
//! [`MemoryMap::parse`]: pure functions over bytes that trust nothing, so they are tested and fuzzed on the host.
//! The same types write it: [`Handoff::encode`] and [`MemoryMap::as_bytes`] are the loader's side. Nothing here depends on
//! an architecture but the contract and [`DIRECT_MAP_BASE`] and [`KERNEL_BASE`], which are x86-64's.
//!
//! # Contract
//! What holds when the kernel's entry point runs on x86-64:
//! - 64-bit long mode with four paging levels, interrupts off, RFLAGS clear but for the bit that always reads one. CR0 has
//!   PG and WP set, CR4 only PAE, EFER has LME and, where CPUID reports no-execute, NXE.
//! - Only the bootstrap processor runs.
//! - CR3 holds the loader's page tables, which map three things and no more:
//!   the kernel's segments at the addresses they were linked for, at or above [`KERNEL_BASE`], with the access that each
//!   segment asks for and no more ([`HandoffFlags::NO_EXECUTE`] says whether no-execute could be enforced);
//!   physical memory from 0 to the end of RAM and ACPI tables, and of the first 4 GiB, at [`DIRECT_MAP_BASE`], read-write
//!   and no-execute, in pages of 1 GiB where the CPU has them and of 2 MiB where not;
//!   the loader's own code at its physical address, for the last instructions before the jump.
//! - RDI is the direct-map address of the encoded handoff.
//! - RSP points into a loader stack of at least 16 KiB in the direct map, 8 below a multiple of 16 as after a call; the return
//!   address there and RBP are 0, so back-traces end.
//! - GDTR and the segment registers still hold the loader's descriptors, which the new page tables no longer map, and IDTR an
//!   empty table: the kernel loads its own before it loads a segment register or takes an exception.
//! - [`MemoryKind::BOOTLOADER`] memory may be reused after the kernel has left the loader's page tables and stack, and has
//!   copied what the handoff points at: the handoff itself, memory map, command line and the RSDP's copy lie there.
//! - Where firmware leaves any usable page below 1 MiB, the loader takes none of them: the kernel starts the other
//!   processors from one.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod address;
mod command_line;
mod error;
mod handoff;
mod memory_map;
mod wire;

pub use address::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
pub use command_line::{CommandLine, MAX_COMMAND_LINE};
pub use error::{Field, HandoffError};
pub use handoff::{DirectMap, Handoff, KernelSegment, LoaderName, MAX_KERNEL_SEGMENTS};
pub use memory_map::{MAX_MEMORY_ENTRIES, MAX_MEMORY_REGIONS, MemoryKind, MemoryMap, MemoryMapError, MemoryRegion};
pub use wire::{HANDOFF_SIZE, HandoffFlags, MAGIC, SegmentFlags, VERSION};

/// Where physical address 0 appears in the kernel's address space: the first address of the upper half.
pub const DIRECT_MAP_BASE: VirtAddr = VirtAddr(0xffff_8000_0000_0000);

/// Most physical memory that the direct map may show, in bytes: half of the upper half, the rest is the kernel's.
pub const DIRECT_MAP_LIMIT: u64 = 64 << 40;

/// Lowest address that the kernel may be linked at: the top 2 GiB, as the `kernel` code model wants.
pub const KERNEL_BASE: VirtAddr = VirtAddr(0xffff_ffff_8000_0000);
