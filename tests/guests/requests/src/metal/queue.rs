//! The driver's side of a split virtqueue with the event index (virtio 1.2, 2.7).

use core::sync::atomic::{Ordering::SeqCst, fence};

use dragonfly_guest_kit::cpu::{peek, poke};

/// The most entries of a queue here, and the bytes that each of its parts has.
pub const MOST: u16 = 256;
const PART: u64 = 4096;

/// Flags of descriptors: another one follows; the device writes.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// How the device is told that there is something in a queue.
#[derive(Clone, Copy)]
pub enum Doorbell {
    /// By a write to memory.
    Memory(u64),
    /// By a write to a port.
    Port(u16),
}

/// A queue. Descriptors stay as they were written, so that a request costs no more than its number.
pub struct Queue {
    descriptors: u64,
    available: u64,
    used: u64,
    size: u16,
    number: u16,
    doorbell: Doorbell,
    /// Entries that were made available, and those of which the device was told or wished not to be.
    next: u16,
    told: u16,
    /// Used entries that were seen.
    seen: u16,
}

impl Queue {
    /// A queue with its memory, three parts of 4 KiB that are zero, at `address`.
    pub fn new(address: u64, size: u16, number: u16, doorbell: Doorbell) -> Self {
        let (descriptors, available, used) = (address, address + PART, address + 2 * PART);
        Self { descriptors, available, used, size, number, doorbell, next: 0, told: 0, seen: 0 }
    }

    /// Addresses of descriptors, available ring and used ring.
    pub fn parts(&self) -> [u64; 3] {
        [self.descriptors, self.available, self.used]
    }

    /// Number of entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Describes a piece of memory by the descriptor of a number, with the next one after it if `goes_on`.
    pub fn describe(&self, number: u16, address: u64, length: u32, is_written: bool, goes_on: bool) {
        let at = self.descriptors + 16 * u64::from(number);
        poke(at, address);
        poke(at + 8, length);
        poke(at + 12, if is_written { WRITE } else { 0 } | if goes_on { NEXT } else { 0 });
        poke(at + 14, number + 1);
    }

    /// Makes a chain of descriptors available, by the number of its first one; the device sees it after
    /// [`Queue::publish`].
    #[inline(always)]
    pub fn offer(&mut self, first: u16) {
        poke(self.available + 4 + 2 * u64::from(self.next % self.size), first);
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the device what was offered, and tells it if it wants to be told. Gives the number of times that took.
    #[inline(always)]
    pub fn publish(&mut self) -> u64 {
        fence(SeqCst);
        poke(self.available + 2, self.next);
        // Between the two, or each side may miss the other's (2.7.13.4.1).
        fence(SeqCst);
        let event: u16 = peek(self.used + 4 + 8 * u64::from(self.size));
        // 2.7.7.2: whether the entry of that number is among the new ones.
        let is_wanted = self.next.wrapping_sub(event).wrapping_sub(1) < self.next.wrapping_sub(self.told);
        self.told = self.next;
        if is_wanted {
            self.doorbell.ring(self.number);
        }
        is_wanted.into()
    }

    /// Asks for an interrupt at the next used entry, or for none. Whether there is an entry for which none will come.
    #[inline(always)]
    pub fn ask_for_interrupt(&mut self, is_wanted: bool) -> bool {
        // The entry before is the one that comes last of all.
        let event = if is_wanted { self.seen } else { self.seen.wrapping_sub(1) };
        poke(self.available + 4 + 2 * u64::from(self.size), event);
        // Between the two, or each side may miss the other's (2.7.7.1).
        fence(SeqCst);
        self.has_used()
    }

    fn has_used(&self) -> bool {
        peek::<u16>(self.used + 2) != self.seen
    }

    /// Takes a used chain: the number of its first descriptor.
    #[inline(always)]
    pub fn take(&mut self) -> Option<u16> {
        if !self.has_used() {
            return None;
        }
        let first: u32 = peek(self.used + 4 + 8 * u64::from(self.seen % self.size));
        self.seen = self.seen.wrapping_add(1);
        Some(first as u16)
    }
}
