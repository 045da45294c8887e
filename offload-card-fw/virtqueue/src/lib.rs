//! The device's side of virtio's queues: split and packed rings in memory that a guest shares.
//!
//! - `memory`: the guest's memory, and the only `unsafe`.
//! - `config`, `notification`: what a transport tells of a queue.
//! - `queue`: a queue of either layout, and why it stops. `split`, `packed`: the two layouts.
//! - `in_flight`: what a device has taken, for the one that comes after it.
//! - `descriptor`, `chain`: what the driver makes available, copied and checked. `cursor`: its bytes in order. `burst`: many
//!   chains at once.
//! - `host`: the driver's side, for tests.
//!
//! All that a driver writes is an allegation. It is read once, into a copy, and the copy is checked; whatever is wrong
//! with it has a name in [`QueueError`], stops this queue and touches nothing else. Each call does a bounded amount of
//! work, at most that for one chain of [`MAX_SEGMENTS`] segments, and allocates nothing.
//!
//! A device's turn, for a device that echoes what it reads:
//! ```
//! # use dragonfly_virtqueue::{Chain, GuestMemory, Queue, QueueError};
//! fn serve(queue: &mut Queue, memory: &impl GuestMemory, interrupt: impl Fn()) -> Result<(), QueueError> {
//!     let mut chain = Chain::new();
//!     let mut ring = queue.attach(memory)?;
//!     while ring.pop_into(&mut chain)? {
//!         let (mut reader, mut writer) = (chain.reader(memory), chain.writer(memory));
//!         // A chain that cannot be copied is given back empty.
//!         let written = match reader.copy_to(&mut writer, reader.remaining()) {
//!             Ok(()) => writer.written(),
//!             Err(_) => 0,
//!         };
//!         ring.stage(chain.id(), written)?;
//!     }
//!     ring.publish()?;
//!     if ring.needs_notification() {
//!         interrupt();
//!     }
//!     Ok(())
//! }
//! ```
#![cfg_attr(not(any(test, loom, feature = "host")), no_std)]

mod burst;
mod chain;
mod config;
mod cursor;
mod descriptor;
mod error;
#[cfg(any(test, loom, feature = "host"))]
pub mod host;
mod in_flight;
mod memory;
mod notification;
mod packed;
mod queue;
mod split;
mod sync;

pub use burst::{Burst, MAX_BURST, Single};
pub use chain::{Chain, ChainId, MAX_SEGMENTS, Segment};
pub use config::{MAX_QUEUE_SIZE, Position, QueueConfig, QueueState, RingAddresses, RingFeatures, RingPart};
pub use cursor::{ChainError, Reader, Writer};
pub use error::QueueError;
pub use in_flight::in_flight_region_size;
pub use memory::{Access, GuestAddress, GuestMemory, GuestSlice, MemoryError, WithInFlight};
#[cfg(not(loom))]
pub use memory::{MAX_REGIONS, MemoryMap, RegionError};
pub use notification::Notification;
pub use queue::{Attached, Queue};
