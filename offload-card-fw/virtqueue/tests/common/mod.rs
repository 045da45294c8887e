//! A ring in a small guest, written word by word.

use std::sync::atomic::Ordering;

use dragonfly_virtqueue::host::{HostMemory, config_at};
use dragonfly_virtqueue::{Chain, GuestAddress, GuestMemory, Queue, QueueConfig, QueueError, RingFeatures};

/// The ring begins here.
pub const RING: u64 = 0x1_0000;
/// Bytes of the guest, from address 0 on.
pub const MEMORY: usize = 0x4_0000;
/// Where tests put indirect tables.
pub const TABLE: u64 = 0x2_0000;
/// Where tests put buffers.
pub const DATA: u64 = 0x3_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A queue of 8 entries, and the guest in which its ring lies.
pub struct Ring {
    pub memory: HostMemory,
    pub config: QueueConfig,
    pub queue: Queue,
}

impl Ring {
    pub fn new(features: RingFeatures) -> Self {
        let config = config_at(RING, 8, features);
        Self { memory: HostMemory::new(&[(0, MEMORY)]), config, queue: Queue::new(config).unwrap() }
    }

    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        self.queue.pop(&self.memory)
    }

    /// Writes descriptor `index` of the table at `table`; the last two fields in the order of the layout.
    pub fn write_descriptor(&self, table: u64, index: u16, address: u64, len: u32, third: u16, fourth: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(third.to_le_bytes());
        bytes.extend(fourth.to_le_bytes());
        self.memory.write(GuestAddress(table + 16 * u64::from(index)), &bytes).unwrap();
    }

    pub fn load(&self, address: u64) -> u16 {
        self.memory.load_u16(GuestAddress(address), Ordering::SeqCst).unwrap()
    }

    pub fn store(&self, address: u64, value: u16) {
        self.memory.store_u16(GuestAddress(address), value, Ordering::SeqCst).unwrap();
    }

    pub fn load_u32(&self, address: u64) -> u32 {
        u32::from(self.load(address)) | u32::from(self.load(address + 2)) << 16
    }
}
