//! A split ring (virtio 1.2, 2.7).

use std::sync::atomic::{
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use super::{Buffers, Place, SIZE};
use crate::memory::Memory;

const WRITE: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// The driver's side.
#[derive(Debug)]
pub struct Split {
    place: Place,
    next: u16,
    taken: u16,
    /// The used index as it was seen last.
    seen: u16,
}

impl Split {
    pub(super) fn new(memory: &Memory, place: Place, buffers: Buffers) -> Self {
        for number in 0..SIZE {
            let at = place.descriptors + 16 * u64::from(number);
            memory.u64(at).store(buffers.first + u64::from(buffers.stride) * u64::from(number), Relaxed);
            memory.u32(at + 8).store(buffers.len, Relaxed);
            memory.u16(at + 12).store(if buffers.is_writable { WRITE } else { 0 }, Relaxed);
        }
        memory.u16(place.driver).store(NO_INTERRUPT, Relaxed);
        Self { place, next: 0, taken: 0, seen: 0 }
    }

    pub(super) fn offer(&mut self, memory: &Memory, buffer: u16) {
        memory.u16(self.place.driver + 4 + 2 * u64::from(self.next % SIZE)).store(buffer, Relaxed);
        self.next = self.next.wrapping_add(1);
    }

    pub(super) fn publish(&mut self, memory: &Memory) -> bool {
        // The entries come before the index.
        memory.u16(self.place.driver + 2).store(self.next, Release);
        // The index comes before the look at what the device wants (2.7.13.4.1).
        fence(SeqCst);
        memory.u16(self.place.device).load(Relaxed) & NO_NOTIFY == 0
    }

    pub(super) fn take(&mut self, memory: &Memory) -> Option<(u16, u32)> {
        if self.seen == self.taken {
            self.seen = memory.u16(self.place.device + 2).load(Acquire);
            if self.seen == self.taken {
                return None;
            }
        }
        let at = self.place.device + 4 + 8 * u64::from(self.taken % SIZE);
        self.taken = self.taken.wrapping_add(1);
        Some((memory.u32(at).load(Relaxed) as u16, memory.u32(at + 4).load(Relaxed)))
    }
}
