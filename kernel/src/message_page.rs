//! The kernel's view of a thread's message buffer.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dragonfly_abi::arch::{THREAD_STATE_SIZE, ThreadState};
use dragonfly_abi::{FOREVER, Handle, HandleTransfer, MESSAGE_DATA_SIZE, MESSAGE_HANDLES, MessageBuffer, MessageTag};

use crate::Ref;
use crate::arch::Arch;
use crate::memory_object::Memory;
use crate::shared_page::{SharedPage, WORDS};

const _: () = assert!(size_of::<MessageBuffer>() == WORDS * 8);
const TIMEOUT: usize = offset_of!(MessageBuffer, timeout_ns) / 8;
const ACCEPT: usize = offset_of!(MessageBuffer, accept_handles) / 8;
const HANDLES: usize = offset_of!(MessageBuffer, handles) / 8;
const DATA: usize = offset_of!(MessageBuffer, data) / 8;
const STATE_WORDS: usize = THREAD_STATE_SIZE / 8;

/// A thread's message buffer.
pub struct MessagePage<A: Arch>(SharedPage<A>);

impl<A: Arch> MessagePage<A> {
    /// The page of a memory object whose first frame is committed for as long as the object lives.
    pub fn new(arch: A, memory: Ref<Memory<A>, A>) -> Option<Self> {
        SharedPage::new(arch, memory).map(Self)
    }

    /// The memory object.
    pub fn memory(&self) -> &Ref<Memory<A>, A> {
        self.0.memory()
    }

    fn words(&self) -> &[AtomicU64; WORDS] {
        self.0.words()
    }

    /// The time-out in nanoseconds that holds for a message with this tag.
    pub fn timeout_ns(&self, tag: MessageTag) -> u64 {
        if tag.is_timed() { self.words()[TIMEOUT].load(Relaxed) } else { FOREVER }
    }

    /// How many handles the thread accepts.
    pub fn accepted_handles(&self) -> usize {
        (self.words()[ACCEPT].load(Relaxed) & 0xffff_ffff) as usize
    }

    /// One of the handles to send.
    pub fn handle(&self, index: usize) -> HandleTransfer {
        let word = self.words()[HANDLES + index % MESSAGE_HANDLES].load(Relaxed);
        HandleTransfer { handle: Handle(word as u32), rights: (word >> 32) as u32 }
    }

    /// Tells of a handle received.
    pub fn set_handle(&self, index: usize, transfer: HandleTransfer) {
        let word = u64::from(transfer.rights) << 32 | u64::from(transfer.handle.0);
        self.words()[HANDLES + index % MESSAGE_HANDLES].store(word, Relaxed);
    }

    /// Copies message bytes, rounded up to words, from another buffer.
    pub fn copy_data(&self, from: &Self, bytes: usize) {
        let words = bytes.min(MESSAGE_DATA_SIZE).div_ceil(8);
        for (to, from) in self.words()[DATA..].iter().zip(&from.words()[DATA..]).take(words) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    /// Reads message bytes.
    pub fn read_data(&self, bytes: &mut [u8]) {
        for (chunk, word) in bytes.chunks_mut(8).zip(&self.words()[DATA..]) {
            let word = word.load(Relaxed).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    /// Writes words as message data.
    pub fn write_words(&self, words: &[u64]) {
        for (to, word) in self.words()[DATA..].iter().zip(words) {
            to.store(*word, Relaxed);
        }
    }

    /// Writes a thread's registers as message data.
    pub fn write_state(&self, state: &ThreadState) {
        let words: [u64; STATE_WORDS] = zerocopy::transmute!(*state);
        self.write_words(&words);
    }

    /// Reads a thread's registers from message data.
    pub fn read_state(&self) -> ThreadState {
        let mut words = [0; STATE_WORDS];
        for (word, from) in words.iter_mut().zip(&self.words()[DATA..]) {
            *word = from.load(Relaxed);
        }
        zerocopy::transmute!(words)
    }
}
