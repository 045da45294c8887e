//! What a domain finds when it starts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Handle;

/// Handles that every domain has at the start, in the slots of the same number.
#[derive(Clone, Copy, Debug)]
pub struct StartHandles;

impl StartHandles {
    /// The domain itself.
    pub const DOMAIN: Handle = Handle::new(1, 0);
    /// Its first thread.
    pub const THREAD: Handle = Handle::new(2, 0);
    /// The authority over the machine: with all rights for the supervisor, with the log or less for others, or
    /// missing.
    pub const SYSTEM: Handle = Handle::new(3, 0);
    /// The bundle, as memory; only the supervisor has it from the kernel.
    pub const BUNDLE: Handle = Handle::new(4, 0);
}

/// The page that a domain's first thread gets the address of as its argument. The supervisor's comes from the kernel,
/// the others' from the supervisor.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    /// [`StartInfo::MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`](crate::ABI_VERSION).
    pub abi_version: u32,
    /// How many CPUs the machine has.
    pub cpus: u32,
    /// First address that the domain may use for a heap.
    pub heap_start: u64,
    /// First address past the heap; what lies between is not mapped at the start.
    pub heap_end: u64,
    /// Frequency of the time-stamp counter in Hz.
    pub tsc_hz: u64,
    /// Address of the first thread's message buffer.
    pub message_buffer: u64,
    /// Size of the bundle in bytes, where [`StartHandles::BUNDLE`] is given.
    pub bundle_size: u64,
    /// Bytes of `arguments` in use.
    pub arguments_length: u32,
    /// Zero.
    pub reserved: u32,
    /// The domain's arguments as UTF-8: for the supervisor, the kernel's command line.
    pub arguments: [u8; 1024],
}

impl StartInfo {
    /// Marks a valid page: "dragonfl" in ASCII.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"dragonfl");
}

const _: () = assert!(size_of::<StartInfo>() <= 4096);
