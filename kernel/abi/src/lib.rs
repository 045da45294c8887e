//! What the kernel and user domains agree on: system calls, object types, rights, statuses, messages.
//!
//! The reference with every status of every call is `docs/abi.md`. Nothing here knows an architecture but
//! [`arch`], which says how a call's words travel in registers and what a thread's register state looks like.
//!
//! A call takes a number and six words and gives back a [`Status`] and up to six words. No call takes a pointer
//! into the caller's memory: what does not fit into registers travels in the thread's [`MessageBuffer`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod arch;
mod call;
mod fault;
pub mod guest;
mod handle;
mod message;
mod start;
mod status;

pub use call::{Call, SystemItem};
pub use fault::{FaultKind, FaultReply};
pub use handle::{Handle, HandleInfo, ObjectType, Rights};
pub use message::{HandleTransfer, MESSAGE_DATA_SIZE, MESSAGE_HANDLES, MessageBuffer, MessageKind, MessageTag};
pub use start::{StartHandles, StartInfo};
pub use status::Status;

/// Version of this interface. A domain built for another version is not started.
pub const ABI_VERSION: u32 = 1;

/// Size of the smallest page in bytes; every address and size of the memory calls is a multiple of it.
pub const PAGE_SIZE: u64 = 4096;

/// First address past what a domain may map. The last page below the architecture's limit stays unmapped, so that no
/// instruction can end exactly on the limit (AMD APM 2 4.5.4, SYSRET to a non-canonical address).
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;

/// Lowest address that a domain may map: page zero stays unmapped, so that a null pointer faults.
pub const USER_START: u64 = PAGE_SIZE;

/// How many priorities there are; a higher number runs first.
pub const PRIORITIES: u8 = 64;

/// The most CPUs the kernel uses; a CPU mask has one bit for each.
pub const MAX_CPUS: usize = 64;

/// The longest text in bytes that one [`Call::LogWrite`] writes.
pub const LOG_TEXT_MAX: usize = 256;

/// A time-out that never comes.
pub const FOREVER: u64 = u64::MAX;

/// Shortest budget in nanoseconds that a thread may have: below it the kernel's own work would dominate.
pub const MIN_BUDGET_NS: u64 = 10_000;

/// Longest period in nanoseconds.
pub const MAX_PERIOD_NS: u64 = 3_600_000_000_000;
