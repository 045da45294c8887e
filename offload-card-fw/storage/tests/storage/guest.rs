//! A guest's memory, and the driver of a split ring in it.

#![expect(unsafe_code, reason = "a guest's memory is mapped by a pointer")]

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, MemoryMap, Queue, QueueConfig, QueueState, RingAddresses, RingFeatures,
};

/// Entries of the ring.
pub const SIZE: u16 = 128;

/// Bytes of memory, from address 0 on.
pub const MEMORY_BYTES: usize = 2 << 20;

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;

/// Where buffers can be.
pub const BUFFERS: u64 = 0x1_0000;

const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;

/// A piece of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub address: u64,
    pub len: u32,
    pub is_writable: bool,
}

pub struct Guest {
    pub memory: MemoryMap,
    /// What `memory` refers to.
    _mapped: Box<[u64]>,
    available: u16,
    used: u16,
}

impl Guest {
    pub fn new() -> Self {
        let mut mapped = vec![0u64; MEMORY_BYTES / 8].into_boxed_slice();
        let start = NonNull::new(mapped.as_mut_ptr().cast()).expect("a box");
        let mut memory = MemoryMap::new();
        // SAFETY: the allocation lives as long as the map, in the same structure, and nobody else accesses it.
        unsafe { memory.add(GuestAddress(0), MEMORY_BYTES as u64, start) }.expect("the only region");
        Self { memory, _mapped: mapped, available: 0, used: 0 }
    }

    /// The device's side of the ring.
    pub fn queue() -> Queue {
        let addresses = RingAddresses {
            descriptors: GuestAddress(DESCRIPTORS),
            driver: GuestAddress(AVAILABLE),
            device: GuestAddress(USED),
        };
        let features = RingFeatures::VERSION_1;
        Queue::new(QueueConfig { size: SIZE, addresses, features, state: QueueState::default() }).expect("a good ring")
    }

    pub fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write(GuestAddress(address), bytes).expect("within memory");
    }

    pub fn get(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        self.memory.read(GuestAddress(address), &mut content).expect("within memory");
        content
    }

    /// Makes a chain available, from descriptor `head` on.
    pub fn submit_at(&mut self, head: u16, pieces: &[Piece]) {
        for (index, piece) in pieces.iter().enumerate() {
            let number = (head + index as u16) % SIZE;
            let has_next = index + 1 < pieces.len();
            let flags = if has_next { FLAG_NEXT } else { 0 } | if piece.is_writable { FLAG_WRITE } else { 0 };
            let mut bytes = Vec::new();
            bytes.extend_from_slice(&piece.address.to_le_bytes());
            bytes.extend_from_slice(&piece.len.to_le_bytes());
            bytes.extend_from_slice(&flags.to_le_bytes());
            bytes.extend_from_slice(&((number + 1) % SIZE).to_le_bytes());
            self.put(DESCRIPTORS + 16 * u64::from(number), &bytes);
        }
        self.put(AVAILABLE + 4 + 2 * u64::from(self.available % SIZE), &head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        let index = GuestAddress(AVAILABLE + 2);
        self.memory.store_u16(index, self.available, Ordering::Release).expect("within memory");
    }

    /// What the device gave back next: the head, and how much was written.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        let index = self.memory.load_u16(GuestAddress(USED + 2), Ordering::Acquire).expect("within memory");
        if index == self.used {
            return None;
        }
        let entry = self.get(USED + 4 + 8 * u64::from(self.used % SIZE), 8);
        self.used = self.used.wrapping_add(1);
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("4 bytes"));
        Some((word(0) as u16, word(4)))
    }
}
