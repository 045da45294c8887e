//! What can be wrong with a handoff. Each of them is the loader's fault.

use core::fmt;

/// Why a handoff was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoffError {
    /// Fewer bytes than the structure needs.
    #[error("handoff: {0} bytes are too few for the structure")]
    TooShort(usize),
    /// The first word is not [`MAGIC`](crate::MAGIC): RDI does not point at a handoff.
    #[error("handoff: magic number is {0:#x}, so there is no handoff at this address")]
    BadMagic(u64),
    /// Loader and kernel are of different releases.
    #[error("handoff: version {0} is unknown; use the loader of the kernel's own release")]
    UnsupportedVersion(u32),
    /// The size does not belong to the version.
    #[error("handoff: size field says {0} bytes, which is not this version's size")]
    BadSize(u32),
    /// A flag that this version does not define.
    #[error("handoff: unknown flags in {0:#x}")]
    UnknownFlags(u32),
    /// The direct map is misaligned, empty, too long or at a place that it may not be at.
    #[error("handoff: the direct map does not lie in its part of the upper half")]
    BadDirectMap,
    /// Nothing where there must be something.
    #[error("handoff: {0} is empty")]
    Empty(Field),
    /// More than the kernel accepts.
    #[error("handoff: {0} is too long")]
    TooLong(Field),
    /// An address or a size that is not a multiple of what it must be.
    #[error("handoff: {0} is misaligned")]
    Misaligned(Field),
    /// A range wraps around or leaves the physical memory that the direct map shows.
    #[error("handoff: {0} is outside the direct map")]
    OutsideDirectMap(Field),
    /// Memory for one purpose is also memory for another, or kernel segments share addresses or are not in order.
    #[error("handoff: {0} overlaps other memory")]
    Overlap(Field),
    /// A kernel segment outside the top 2 GiB.
    #[error("handoff: a kernel segment is mapped outside the kernel's part of the address space")]
    SegmentOutsideKernelSpace,
    /// A kernel segment that is both writable and executable.
    #[error("handoff: a kernel segment is writable and executable")]
    SegmentWritableAndExecutable,
    /// Bytes that should be UTF-8.
    #[error("handoff: {0} is not text in UTF-8")]
    NotText(Field),
}

/// The part of the handoff that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The memory map.
    MemoryMap,
    /// The kernel: its segments, or how many there are.
    KernelSegments,
    /// The bundle.
    Bundle,
    /// The command line.
    CommandLine,
    /// The ACPI root pointer.
    AcpiRsdp,
    /// The memory of the loader's page tables, stack and handoff.
    BootMemory,
    /// The loader's name.
    LoaderName,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MemoryMap => "the memory map",
            Self::KernelSegments => "the kernel image",
            Self::Bundle => "the bundle",
            Self::CommandLine => "the command line",
            Self::AcpiRsdp => "the ACPI root pointer",
            Self::BootMemory => "the loader's memory",
            Self::LoaderName => "the loader's name",
        })
    }
}
