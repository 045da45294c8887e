//! The driver's side of a queue whose buffers stay where they are: each has its place and length for ever, and goes to the
//! device and back by its number. One descriptor for each buffer, or two for a request and its answer.

mod packed;
mod split;

use crate::memory::Memory;

/// Buffers of a queue, and descriptors of its ring.
pub const SIZE: u16 = 512;
/// Bytes that a ring takes.
pub const RING_BYTES: u64 = 0x8000;

/// Where the buffers of a queue are.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// Address of the first one; the others follow.
    pub first: u64,
    /// From one to the next.
    pub stride: u32,
    /// Bytes of each that the device sees.
    pub len: u32,
    /// Whether the device writes them.
    pub is_writable: bool,
}

/// The three parts of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Descriptor table, or packed ring.
    pub descriptors: u64,
    /// Available ring, or the driver's event suppression.
    pub driver: u64,
    /// Used ring, or the device's event suppression.
    pub device: u64,
}

// Both rings' last parts fit: an available ring has 6 bytes beside its entries of 2, a used ring as many beside 8.
const _: () = assert!(6 + 2 * SIZE as u64 <= 0x1000 && 0x3000 + 6 + 8 * SIZE as u64 <= RING_BYTES);

impl Place {
    /// Of a ring that begins at an address aligned to a page.
    #[must_use]
    pub const fn at(base: u64) -> Self {
        Self { descriptors: base, driver: base + 0x2000, device: base + 0x3000 }
    }
}

/// A ring with its driver.
#[derive(Debug)]
pub enum Ring {
    /// Virtio 1.2, 2.7.
    Split(split::Split),
    /// Virtio 1.2, 2.8.
    Packed(packed::Packed),
}

impl Ring {
    /// An empty ring.
    #[must_use]
    pub fn new(memory: &Memory, base: u64, buffers: Buffers, is_packed: bool) -> Self {
        let place = Place::at(base);
        if is_packed {
            Self::Packed(packed::Packed::new(memory, place, buffers))
        } else {
            Self::Split(split::Split::new(memory, place, buffers))
        }
    }

    /// An empty split ring of half as many requests, each with its answer.
    #[must_use]
    pub fn of_requests(memory: &Memory, base: u64, requests: Buffers, answers: Buffers) -> Self {
        Self::Split(split::Split::of_requests(memory, Place::at(base), requests, answers))
    }

    /// Gives a buffer to the device, which sees it after [`Self::publish`] at the latest.
    pub fn offer(&mut self, memory: &Memory, buffer: u16) {
        match self {
            Self::Split(ring) => ring.offer(memory, buffer),
            Self::Packed(ring) => ring.offer(memory, buffer),
        }
    }

    /// Shows the device what was offered; says whether it wants to be kicked.
    pub fn publish(&mut self, memory: &Memory) -> bool {
        match self {
            Self::Split(ring) => ring.publish(memory),
            Self::Packed(ring) => ring.publish(memory),
        }
    }

    /// The next buffer that the device has given back, and the bytes that it wrote.
    pub fn take(&mut self, memory: &Memory) -> Option<(u16, u32)> {
        match self {
            Self::Split(ring) => ring.take(memory),
            Self::Packed(ring) => ring.take(memory),
        }
    }

    /// What a back end is told of where the ring begins.
    #[must_use]
    pub const fn base(&self) -> u32 {
        match self {
            Self::Split(_) => 0,
            // Both indices 0, both wrap counters 1.
            Self::Packed(_) => 0x8000_8000,
        }
    }
}
