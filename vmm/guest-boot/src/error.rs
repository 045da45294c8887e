//! Why a guest cannot be loaded, in words for the person who chose its files.

use crate::{GuestPhys, Inaccessible};

/// Why a guest cannot be loaded. Each text says what is wrong with which input, and what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    /// No format that is known.
    #[error(
        "the kernel's file is no kernel: give a Linux bzImage (vmlinuz), an ELF file with a PVH note, \
         or a file with a Multiboot 1 header"
    )]
    NotAKernel,
    /// A compressed file.
    #[error("the kernel's file is compressed with {0}: unpack it first")]
    Compressed(&'static str),
    /// An ELF file, but of no protocol.
    #[error(
        "the kernel's file is ELF without a PVH note or Multiboot 1 header: for Linux give the bzImage (vmlinuz), \
         or a vmlinux built with CONFIG_PVH"
    )]
    ElfWithoutEntry,
    /// Code for another processor.
    #[error("the kernel's file is ELF for another processor: give one for x86")]
    WrongMachine,
    /// Headers promise more than there is.
    #[error("the kernel's file is cut off or damaged: fetch or build it again")]
    CutOff,
    /// A bzImage from before Linux 3.8.
    #[error(
        "the bzImage speaks boot protocol {major}.{minor}, which has no 64-bit entry: give one of Linux 3.8 or later"
    )]
    OldProtocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// A bzImage without 64-bit code.
    #[error("the bzImage is for 32-bit processors only: give one for x86-64")]
    No64BitEntry,
    /// The RAM ends too early.
    #[error("the kernel needs at least {mib} MiB of memory: give the guest more")]
    NeedsMemory {
        /// Memory that the kernel alone needs, in MiB.
        mib: u64,
    },
    /// Memory that no setting can provide.
    #[error("the kernel is linked for address {0}, where the machine has no memory: link it for 1 MiB or above")]
    OutsideMemory(GuestPhys),
    /// There is room for the kernel, but not for the RAM disk beside it.
    #[error(
        "the initrd of {initrd_mib} MiB does not fit beside the kernel: give the guest more memory or a smaller initrd"
    )]
    InitrdDoesNotFit {
        /// Size of the initrd in MiB, rounded up.
        initrd_mib: u64,
    },
    /// More than the kernel takes.
    #[error("the command line has {bytes} bytes, the kernel takes {limit}: shorten it")]
    CommandLineTooLong {
        /// Its length.
        bytes: usize,
        /// The most that the kernel takes.
        limit: usize,
    },
    /// A byte that would end the line early.
    #[error("the command line has a NUL byte: remove it")]
    CommandLineHasNul,
    /// The kernel takes all memory below 640 KiB.
    #[error("the kernel leaves no room below 640 KiB for what it is told at boot: link it for 1 MiB or above")]
    NoLowMemory,
    /// Too many parts.
    #[error("the ELF file has more than {0} segments to load: link it with fewer")]
    TooManySegments(usize),
    /// Segments contradict each other.
    #[error("segment {0} of the ELF file shares memory with another one: link it again")]
    SegmentsOverlap(usize),
    /// A segment that is shorter in memory than in the file.
    #[error("segment {0} of the ELF file has more bytes in the file than in memory: link it again")]
    SegmentLargerThanItsMemory(usize),
    /// The first instruction would not be the kernel's.
    #[error("the kernel's entry point {0} is outside of what is loaded: link it again")]
    EntryOutside(GuestPhys),
    /// Header of a kernel that needs what there is not.
    #[error(
        "the Multiboot header asks for features that the machine does not have (flags {0:#x}): build the kernel without"
    )]
    MultibootFeatures(u32),
    /// Header whose addresses make no sense.
    #[error("the addresses in the Multiboot header contradict each other or the file: build the kernel again")]
    MultibootAddresses,
    /// The owner's memory is not as its layout.
    #[error("the guest's memory cannot be written at {0}")]
    Inaccessible(GuestPhys),
}

impl From<Inaccessible> for LoadError {
    fn from(Inaccessible(address): Inaccessible) -> Self {
        Self::Inaccessible(address)
    }
}

/// Bytes in MiB, rounded up.
pub fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// The best that can be said of a file in no known format.
pub fn not_a_kernel(file: &[u8]) -> LoadError {
    let compressions: [(&[u8], &str); 6] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x89LZO\0", "lzop"),
    ];
    let found = compressions.iter().find(|(magic, _)| file.starts_with(magic));
    found.map_or(LoadError::NotAKernel, |(_, name)| LoadError::Compressed(name))
}
