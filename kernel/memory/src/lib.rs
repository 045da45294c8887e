//! The kernel's memory: what there is, who has it, and where it is mapped.
//!
//! - `address`: what kind of address a number is. `physical`: how the kernel reaches memory.
//! - `lock`: the kernel's only lock.
//! - `frames`: the machine's RAM. `pool`: frames cut into kernel objects. `account`: who may have how much.
//! - `reference`, `unique`: objects with a count or one owner, in memory that may run out.
//! - `queue`, `inbox`: lists of counted objects, under a lock or from any CPU.
//! - `page_table`: what is mapped where, in any format.
//!
//! Nothing here knows a processor or an object of the kernel: memory, waiting and heaps are parameters, so that all of
//! it runs in tests on the host. `unsafe` ends here: what this crate offers is safe to use, but for the traits by which
//! the architecture vouches for memory. docs/memory-internals.md says why that holds.
#![cfg_attr(not(any(test, loom, feature = "host")), no_std)]

mod account;
mod address;
mod frames;
mod heap;
#[cfg(any(test, loom, feature = "host"))]
pub mod host;
mod inbox;
mod lock;
mod page_table;
mod physical;
mod pool;
mod queue;
mod reference;
pub mod sync;
mod unique;

pub use account::{Account, AccountError, Charge, MAX_ACCOUNT_DEPTH, QuotaExceeded};
pub use address::{
    Address, GuestPhys, HostPhys, HostVirt, ObjectOffset, PAGE_SHIFT, PAGE_SIZE, PageSize, SpaceAddr, UserVirt,
};
pub use frames::{
    FrameAllocator, FrameUse, Frames, FreeError, MAX_ORDER, MAX_RANGES, MAX_ZONES, NodeFrames, RangeError,
};
pub use heap::{Heap, OutOfMemory};
pub use inbox::{Inbox, Pushed, Taken};
pub use lock::{Guard, Lock, Relax};
pub use page_table::{
    Access, Entry, EptFormat, EptTracking, FrameIndex, HostFormat, MapError, Mapping, NestedFormat, PageFormat,
    PageTable, SharedHalf, Unmapped,
};
pub use physical::{FrameSource, PhysicalMemory};
pub use pool::{LARGEST_PIECE, ObjectPool, footprint};
pub use queue::{Iter, Link, Linked, Queue};
pub use reference::{Ref, Vacant};
pub use unique::Unique;
