//! Drivers of the machine's devices that the card uses: virtio-blk and virtio-net over PCI.
//!
//! - `disk`: [`PhysicalDisk`], a [`BlockBackend`](dragonfly_storage::BlockBackend).
//! - `uplink`: [`Uplink`], where the card's switch meets the outside.
//! - `pci`: a function and its registers, found by the names of `bundle.toml`; `transport`: virtio's registers in it.
//! - `hal`: memory that devices reach, and the queues in it.
//!
//! A device is a neighbour, not a friend: what it says is checked, it has no memory but what was made for it, and one
//! that lies or hangs is stopped with a reason while the others go on. The domain needs the grant `dma` and the key
//! `pci` of `bundle.toml`.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod disk;
mod error;
mod hal;
mod interrupt;
mod negotiation;
mod pci;
#[cfg(test)]
mod testing;
mod transport;
mod uplink;

use core::time::Duration;

pub use disk::{PhysicalDisk, open_disks};
pub use error::{Fault, OpenError};
pub use interrupt::Wake;
pub use transport::VirtioFunction;
pub use uplink::{MAX_FRAME_BYTES, Uplink, open_uplinks};

/// Time since some beginning.
pub(crate) type Clock = fn() -> Duration;

/// How long a device may take to reset.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a device may take for a request before it is taken to hang. Those of a disk may wait for the host's disk.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
