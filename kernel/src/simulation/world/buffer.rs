//! A thread's message buffer, as its domain sees it.

use std::mem::offset_of;

use dragonfly_abi::{Handle, HandleTransfer, MessageBuffer};
use dragonfly_memory::HostPhys;

use crate::arch::fake::Fake;
use crate::thread::Thread;

/// A thread's message buffer, as its domain sees it.
pub struct Buffer {
    fake: Fake,
    frame: HostPhys,
}

impl Buffer {
    /// That of a thread.
    pub fn of(fake: Fake, thread: &Thread<Fake>) -> Self {
        Self { fake, frame: thread.buffer.memory().pinned_frame().expect("a committed buffer") }
    }

    fn at(&self, offset: usize) -> HostPhys {
        self.frame.wrapping_add(offset as u64)
    }

    /// Sets the time-out of timed messages.
    pub fn set_timeout(&self, ns: u64) {
        self.fake.store(self.at(offset_of!(MessageBuffer, timeout_ns)), ns);
    }

    /// Accepts so many handles.
    pub fn accept(&self, handles: u64) {
        self.fake.store(self.at(offset_of!(MessageBuffer, accept_handles)), handles);
    }

    /// Names a handle to send.
    pub fn set_handle(&self, index: usize, transfer: HandleTransfer) {
        let word = u64::from(transfer.rights) << 32 | u64::from(transfer.handle.0);
        self.fake.store(self.at(offset_of!(MessageBuffer, handles) + 8 * index), word);
    }

    /// A handle received.
    pub fn handle(&self, index: usize) -> HandleTransfer {
        let word = self.fake.load(self.at(offset_of!(MessageBuffer, handles) + 8 * index));
        HandleTransfer { handle: Handle(word as u32), rights: (word >> 32) as u32 }
    }

    /// Writes a word of data.
    pub fn set_data(&self, index: usize, word: u64) {
        self.fake.store(self.at(offset_of!(MessageBuffer, data) + 8 * index), word);
    }

    /// Reads a word of data.
    pub fn data(&self, index: usize) -> u64 {
        self.fake.load(self.at(offset_of!(MessageBuffer, data) + 8 * index))
    }
}
