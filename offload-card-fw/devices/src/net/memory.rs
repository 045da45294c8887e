//! Where the state of a control queue is kept for the next card: in that queue's part of the memory for what is in flight.

use alloc::vec::Vec;

use dragonfly_virtqueue::{GuestAddress, GuestMemory, GuestSlice, MemoryError};

use super::control::ControlState;
use crate::kept;

/// Bytes of a queue's part: twice a state that has all VLANs and the longest table of addresses.
pub const STATE_BYTES: u64 = 128 << 10;

/// What is known of the memory since the control queue was started.
#[derive(Debug, Default)]
pub struct KeptState {
    /// None until somebody has looked there.
    generation: Option<u64>,
}

impl KeptState {
    /// Takes over what another card has left, if this is the first look since the queue was started; else what is so now
    /// is kept from now on. Gives whether there was another card, whose state it is now.
    ///
    /// The commands are done as the driver's own are: one that a driver could not give does nothing.
    pub fn begin(&mut self, area: &GuestSlice<'_>, state: &mut ControlState) -> bool {
        if self.generation.is_some() {
            return false;
        }
        let Some(found) = kept::find(area) else {
            self.generation = Some(0);
            self.keep(area, state);
            return false;
        };
        self.generation = Some(found.generation);
        for command in &found.records {
            // One that is refused has changed nothing.
            let _ = state.perform(command);
        }
        true
    }

    /// Keeps the state. One that does not fit leaves the one before: a driver's receive filter is a request, not a promise.
    pub fn keep(&mut self, area: &GuestSlice<'_>, state: &ControlState) {
        let commands = state.commands();
        let generation = self.generation.unwrap_or_default();
        if let Some(next) = kept::keep(area, generation, commands.iter().map(Vec::as_slice)) {
            self.generation = Some(next);
        }
    }
}

/// Memory of a guest whose rings keep no account of what is in flight.
pub struct Untracked<'a, M>(pub &'a M);

impl<M: GuestMemory> GuestMemory for Untracked<'_, M> {
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.0.piece(address, limit)
    }
}
