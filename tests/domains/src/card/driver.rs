//! A driver's side of a split ring (virtio 1.2 2.7), in memory that a session shares with the card.

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use dragonfly_abi::Status;
use dragonfly_rt::Mapping;

/// Descriptors of a ring.
pub const SIZE: u16 = 16;

/// Bytes of guest memory that a queue has for its ring and its buffers.
const QUEUE_SPACE: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const BUFFERS: u64 = 0x4000;

/// The descriptors of one chain, and the bytes of one buffer.
const CHAIN: u16 = 4;
const BUFFER_SPACE: u64 = 0x1000;

const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;

/// A buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub enum Buffer<'a> {
    /// Bytes for the device.
    Out(&'a [u8]),
    /// So many bytes to be filled in.
    In(usize),
}

/// A queue of a guest without a guest: chains are made one by one, each with a place of its own.
#[derive(Debug)]
pub struct Driver<'m> {
    ram: &'m Mapping,
    base: u64,
    available: u16,
    used: u16,
}

impl<'m> Driver<'m> {
    /// Queue `index`, empty.
    #[must_use]
    pub fn new(ram: &'m Mapping, index: u16) -> Self {
        Self { ram, base: u64::from(index) * QUEUE_SPACE, available: 0, used: 0 }
    }

    /// Where descriptors, available ring and used ring are.
    #[must_use]
    pub const fn addresses(&self) -> [u64; 3] {
        [self.base, self.base + AVAILABLE, self.base + USED]
    }

    /// Makes a chain available, whose number counts from 0; there is room for four that are not used yet.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn submit(&mut self, buffers: &[Buffer<'_>]) -> Result<(), Status> {
        let head = self.available % (SIZE / CHAIN) * CHAIN;
        for (place, buffer) in (0..).zip(buffers) {
            let address = self.buffer(head + place);
            let (len, mut flags) = match buffer {
                Buffer::Out(bytes) => {
                    self.ram.write(address, bytes)?;
                    (bytes.len(), 0)
                }
                Buffer::In(len) => (*len, DEVICE_WRITES),
            };
            if usize::from(place) + 1 < buffers.len() {
                flags |= NEXT;
            }
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&address.to_le_bytes());
            descriptor[8..12].copy_from_slice(&(len as u32).to_le_bytes());
            descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
            descriptor[14..].copy_from_slice(&(head + place + 1).to_le_bytes());
            self.ram.write(self.base + u64::from(head + place) * 16, &descriptor)?;
        }
        let entry = self.base + AVAILABLE + 4 + u64::from(self.available % SIZE) * 2;
        self.ram.write(entry, &head.to_le_bytes())?;
        fence(Ordering::SeqCst);
        self.available = self.available.wrapping_add(1);
        self.ram.write(self.base + AVAILABLE + 2, &self.available.to_le_bytes())?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// The next chain that the device gives back, if there is one: its first descriptor.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn take_used(&mut self) -> Result<Option<u16>, Status> {
        fence(Ordering::SeqCst);
        let mut index = [0; 2];
        self.ram.read(self.base + USED + 2, &mut index)?;
        if u16::from_le_bytes(index) == self.used {
            return Ok(None);
        }
        let mut head = [0; 2];
        self.ram.read(self.base + USED + 4 + u64::from(self.used % SIZE) * 8, &mut head)?;
        self.used = self.used.wrapping_add(1);
        Ok(Some(u16::from_le_bytes(head)))
    }

    /// What is in a buffer of a chain that was given back.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn contents(&self, head: u16, place: u16, len: usize) -> Result<Vec<u8>, Status> {
        let mut bytes = alloc::vec![0; len];
        self.ram.read(self.buffer(head + place), &mut bytes)?;
        Ok(bytes)
    }

    fn buffer(&self, descriptor: u16) -> u64 {
        // The ring's sixteen descriptors have twelve pages: those of a chain's fourth are shared.
        self.base + BUFFERS + u64::from(descriptor / CHAIN * 3 + descriptor % CHAIN % 3) * BUFFER_SPACE
    }
}
