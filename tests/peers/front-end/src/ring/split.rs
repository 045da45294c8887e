//! A split ring (virtio 1.2, 2.7).

use std::sync::atomic::{
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

use super::{Buffers, Place, SIZE};
use crate::memory::Memory;

const NEXT: u16 = 1;
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
        (0..SIZE).for_each(|number| describe(memory, place, (number, number), buffers, None));
        Self::empty(memory, place)
    }

    /// Each request is followed by its answer, in the second half of the table.
    pub(super) fn of_requests(memory: &Memory, place: Place, requests: Buffers, answers: Buffers) -> Self {
        for number in 0..SIZE / 2 {
            let answer = SIZE / 2 + number;
            describe(memory, place, (number, number), requests, Some(answer));
            describe(memory, place, (answer, number), answers, None);
        }
        Self::empty(memory, place)
    }

    fn empty(memory: &Memory, place: Place) -> Self {
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

/// Writes a descriptor, which is a buffer's, and may be followed by another.
fn describe(memory: &Memory, place: Place, (descriptor, number): (u16, u16), buffers: Buffers, next: Option<u16>) {
    let at = place.descriptors + 16 * u64::from(descriptor);
    memory.u64(at).store(buffers.first + u64::from(buffers.stride) * u64::from(number), Relaxed);
    memory.u32(at + 8).store(buffers.len, Relaxed);
    let write = if buffers.is_writable { WRITE } else { 0 };
    memory.u16(at + 12).store(write | if next.is_some() { NEXT } else { 0 }, Relaxed);
    memory.u16(at + 14).store(next.unwrap_or(0), Relaxed);
}
