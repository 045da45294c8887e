//! A simulated thread's registers.

use std::sync::Mutex;

use dragonfly_abi::Status;
use dragonfly_abi::arch::ThreadState;

use super::turns;
use crate::arch::Context;

/// A thread's registers: what the last system call gave, and what a fault handler sees.
#[derive(Default)]
pub struct FakeContext {
    results: Mutex<Option<(Status, [u64; 6])>>,
    state: Mutex<ThreadState>,
}

impl FakeContext {
    /// Takes what the last call gave.
    pub fn take_results(&self) -> Option<(Status, [u64; 6])> {
        self.results.lock().unwrap().take()
    }

    /// Whether a call has given something that the thread has not taken.
    pub fn has_results(&self) -> bool {
        self.results.lock().unwrap().is_some()
    }
}

impl Context for FakeContext {
    fn new(entry: u64, stack: u64, argument: u64) -> Self {
        let state = ThreadState { rip: entry, rsp: stack, rdi: argument, ..ThreadState::default() };
        Self { results: Mutex::new(None), state: Mutex::new(state) }
    }

    fn set_results(&self, status: Status, words: [u64; 6]) {
        turns::may_switch();
        *self.results.lock().unwrap() = Some((status, words));
    }

    fn enter_guest(&self) {}

    fn leave_guest(&self) {}

    fn is_in_guest(&self) -> bool {
        false
    }

    fn state(&self) -> ThreadState {
        *self.state.lock().unwrap()
    }

    fn set_state(&self, state: &ThreadState) {
        *self.state.lock().unwrap() = *state;
    }
}
