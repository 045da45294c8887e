//! The card's storage, with no hypervisor, no operating system and no clock in it.
//!
//! - `backend`: [`BlockBackend`], what a disk is; [`RamDisk`], [`NullDisk`], [`ReadOnlyDisk`].
//! - `volumes`: a disk partitioned into volumes.
//! - `crypt`: AES-256-XTS, a key for each volume.
//! - `snapshot`: copy-on-write snapshots that survive power loss at any write.
//! - `limit`: limits on operations and bytes per second, with burst.
//! - `blk`: the virtio-blk device above all that.
//! - `nbd`: the client of a disk at a server, whose work ends later.
//!
//! They stack in this order. Disks hold what others wrote: metadata is validated when it is read, and what contradicts
//! itself is an error.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod backend;
pub mod blk;
mod crypt;
mod limit;
mod name;
pub mod nbd;
mod slots;
pub mod snapshot;
pub mod volumes;

pub use backend::{BlockBackend, BlockError, Extent, Geometry, NullDisk, RamDisk, ReadOnlyDisk, SECTOR_BYTES, Sector};
pub use crypt::{DataUnit, EncryptedDisk, KEY_BYTES, KeyError, XtsAes256};
pub use limit::{Limiter, Limits, Rate, TokenBucket, WaitUntil};
pub use name::{MAX_NAME_BYTES, Name};
