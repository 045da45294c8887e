//! Why the kernel could not be loaded.

use dragonfly_handoff::{HandoffError, MemoryMapError, PhysRange};

use crate::boot_info::BootInfoError;
use crate::kernel_image::KernelImageError;
use crate::page_tables::PageTableError;

/// Why the kernel could not be loaded; the text is the line that the user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// What the boot loader told is wrong or not enough.
    #[error(transparent)]
    BootInfo(#[from] BootInfoError),
    /// The memory map that firmware gave is wrong.
    #[error(transparent)]
    MemoryMap(#[from] MemoryMapError),
    /// The kernel's file is wrong.
    #[error("kernel: {0}")]
    KernelImage(#[from] KernelImageError),
    /// There is memory, but none where the loader can reach it.
    #[error("no usable memory between 1 MiB and 4 GiB")]
    NoArena,
    /// The memory that can be reached is too small.
    #[error("not enough memory: the largest free piece below 4 GiB, {0}, has no room left for {1}")]
    OutOfMemory(PhysRange, &'static str),
    /// The page tables could not be built.
    #[error("page tables: {0}")]
    PageTables(#[from] PageTableError),
    /// The finished handoff would be refused by the kernel.
    #[error(transparent)]
    Handoff(#[from] HandoffError),
}
