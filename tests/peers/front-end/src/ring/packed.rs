//! A packed ring (virtio 1.2, 2.8).

use std::sync::atomic::{
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use super::{Buffers, Place, SIZE};
use crate::memory::Memory;

const WRITE: u16 = 1 << 1;
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Event suppression: no notifications at all (2.8.14).
const DISABLE: u16 = 1;

/// The driver's side.
#[derive(Debug)]
pub struct Packed {
    place: Place,
    buffers: Buffers,
    next: Cursor,
    taken: Cursor,
}

/// A place in the ring, and the wrap counter of the round.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    index: u16,
    wrap: bool,
}

impl Cursor {
    const FIRST: Self = Self { index: 0, wrap: true };

    fn step(&mut self) {
        self.index += 1;
        if self.index == SIZE {
            *self = Self { index: 0, wrap: !self.wrap };
        }
    }
}

impl Packed {
    pub(super) fn new(memory: &Memory, place: Place, buffers: Buffers) -> Self {
        memory.u16(place.driver + 2).store(DISABLE, Relaxed);
        Self { place, buffers, next: Cursor::FIRST, taken: Cursor::FIRST }
    }

    pub(super) fn offer(&mut self, memory: &Memory, buffer: u16) {
        let at = self.place.descriptors + 16 * u64::from(self.next.index);
        memory.u64(at).store(self.buffers.first + u64::from(self.buffers.stride) * u64::from(buffer), Relaxed);
        memory.u32(at + 8).store(self.buffers.len, Relaxed);
        memory.u16(at + 12).store(buffer, Relaxed);
        let write = if self.buffers.is_writable { WRITE } else { 0 };
        let flags = write | if self.next.wrap { AVAILABLE } else { USED };
        // The rest of the descriptor comes before the flags, which make it the device's.
        memory.u16(at + 14).store(flags, Release);
        self.next.step();
    }

    pub(super) fn publish(&mut self, memory: &Memory) -> bool {
        // The descriptors come before the look at what the device wants (2.8.21.3.1).
        fence(SeqCst);
        memory.u16(self.place.device + 2).load(Relaxed) != DISABLE
    }

    pub(super) fn take(&mut self, memory: &Memory) -> Option<(u16, u32)> {
        let at = self.place.descriptors + 16 * u64::from(self.taken.index);
        let flags = memory.u16(at + 14).load(Acquire);
        let is_set = |bit| flags & bit != 0;
        if is_set(AVAILABLE) != self.taken.wrap || is_set(USED) != self.taken.wrap {
            return None;
        }
        self.taken.step();
        Some((memory.u16(at + 12).load(Relaxed), memory.u32(at + 8).load(Relaxed)))
    }
}
