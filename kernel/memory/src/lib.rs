//! The kernel's memory: what there is, who has it, and where it is mapped.
//!
//! - [`address`]: what kind of address a number is.
//! - [`lock`]: the kernel's only lock.
//! - [`heap`], [`reference`]: objects with a count, in memory that may run out.
//! - [`physical`], [`frames`]: how memory is reached, and which frames of it are free.
//! - [`pool`]: those frames cut into kernel objects.
//! - [`queue`], [`inbox`]: lists of such objects, under a lock or from any CPU.
//!
//! Nothing here knows a processor or an object of the kernel: memory, waiting and heaps are parameters, so that all of it
//! runs in tests on the host. `unsafe` ends here: what this crate offers is safe to use, but for the traits by which the
//! architecture vouches for memory. docs/memory-internals.md says why that holds.
#![cfg_attr(not(any(test, loom, feature = "host")), no_std)]

pub mod address;
pub mod frames;
pub mod heap;
#[cfg(any(test, loom, feature = "host"))]
pub mod host;
pub mod inbox;
pub mod lock;
pub mod physical;
pub mod pool;
pub mod queue;
pub mod reference;
pub mod sync;
