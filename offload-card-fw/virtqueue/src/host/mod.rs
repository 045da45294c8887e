//! The other side, for tests: a guest's memory, and drivers that follow the specification word by word and share no code
//! with the queues.

mod packed;
mod split;

use core::fmt::Debug;

pub use packed::PackedDriver;
pub use split::SplitDriver;

#[cfg(not(loom))]
pub use crate::memory::HostMemory;
use crate::memory::{GuestAddress, GuestMemory};
#[cfg(loom)]
pub use crate::memory::{LoomMemory, Plain};
use crate::{QueueConfig, RingAddresses, RingFeatures};

/// A buffer that a driver makes available, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Where it is.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the device may write it.
    pub is_writable: bool,
}

impl Buffer {
    /// A buffer that the device reads.
    #[must_use]
    pub const fn readable(address: u64, len: u32) -> Self {
        Self { address, len, is_writable: false }
    }

    /// A buffer that the device writes.
    #[must_use]
    pub const fn writable(address: u64, len: u32) -> Self {
        Self { address, len, is_writable: true }
    }
}

/// The driver's side of a queue. Addresses must be in memory: all functions panic otherwise.
pub trait Driver<M: GuestMemory>: Debug {
    /// Makes a chain available, if there are descriptors for it, and returns its number: what
    /// [`ChainId::index`](crate::ChainId::index) tells the device. With `table`, an indirect table is written there for
    /// all but the first `direct` buffers. The device sees the chain only after [`Driver::publish`].
    fn add(&mut self, memory: &M, buffers: &[Buffer], direct: usize, table: Option<u64>) -> Option<u16>;

    /// Shows the device all chains that were added; returns whether it wants to be notified.
    fn publish(&mut self, memory: &M) -> bool;

    /// The next chain that the device has given back: its number, and the bytes written.
    fn take_used(&mut self, memory: &M) -> Option<(u16, u32)>;

    /// Asks to be notified when the next chain has been given back; returns whether one has been already.
    fn enable_notifications(&mut self, memory: &M) -> bool;

    /// Tells that notifications are not needed.
    fn disable_notifications(&mut self, memory: &M);
}

/// A configuration whose ring lies at `base`, aligned to 16, each part at once behind the other as far as alignment allows.
#[must_use]
pub fn config_at(base: u64, size: u16, features: RingFeatures) -> QueueConfig {
    let mut config = QueueConfig { size, features, ..QueueConfig::default() };
    let descriptors = GuestAddress(base);
    let driver = GuestAddress(base + 16 * u64::from(size));
    let driver_len = if config.is_packed() { 4 } else { 6 + 2 * u64::from(size) };
    let device = GuestAddress((driver.0 + driver_len).next_multiple_of(4));
    config.addresses = RingAddresses { descriptors, driver, device };
    config
}

/// A driver for a queue, whose ring it clears.
#[must_use]
pub fn driver<M: GuestMemory>(config: &QueueConfig, memory: &M) -> Box<dyn Driver<M>> {
    if config.is_packed() {
        Box::new(PackedDriver::new(config, memory))
    } else {
        Box::new(SplitDriver::new(config, memory))
    }
}

/// Bytes of a descriptor (virtio 1.2, 2.7.5 and 2.8.13): address, length, and the two last fields in the layout's order.
fn descriptor_bytes(buffer: Buffer, third: u16, fourth: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&buffer.address.to_le_bytes());
    bytes[8..12].copy_from_slice(&buffer.len.to_le_bytes());
    bytes[12..14].copy_from_slice(&third.to_le_bytes());
    bytes[14..].copy_from_slice(&fourth.to_le_bytes());
    bytes
}

fn write<M: GuestMemory>(memory: &M, address: u64, bytes: &[u8]) {
    memory.write(GuestAddress(address), bytes).expect("memory at the address");
}
