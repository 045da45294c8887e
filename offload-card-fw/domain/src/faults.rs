//! Guests' memory that vanishes: page faults of the threads that serve rings, and the thread that resolves them.
//!
//! A VMM's memory goes when it ends, at any time, and with it what the card has mapped of it. Who serves a ring then faults in
//! the middle of a request. The faults' thread gives it other memory there and marks the client, whose sessions are ended after
//! the round. Any other fault is a bug of the card's own: it dies of it, and is started again.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_abi::{FaultKind, FaultReply, Status};
use dragonfly_rt::ForeignMapping;
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Gate, Message, Owned};

/// What mappings there are of guests' memory, and the gate to which accesses to vanished ones come.
///
/// Its lock is held for moments only, and never while guests' memory is touched: who touches that may hold any other.
pub(crate) struct Faults {
    gate: Owned<Gate>,
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    mapping: Arc<ForeignMapping>,
    is_gone: Arc<AtomicBool>,
}

/// Watches a mapping for as long as it lives, and then unmaps it.
pub(crate) struct Watch {
    faults: Arc<Faults>,
    mapping: Arc<ForeignMapping>,
}

impl Faults {
    /// No mappings yet.
    pub(crate) fn new() -> Result<Self, Status> {
        Ok(Self { gate: Gate::create()?, watched: Mutex::new(Vec::new()) })
    }

    /// Where faults of the thread that touches guests' memory are to go.
    pub(crate) fn gate(&self) -> Gate {
        *self.gate
    }

    /// Sets `is_gone` when the mapping's memory is found to have vanished.
    pub(crate) fn watch(self: &Arc<Self>, mapping: ForeignMapping, is_gone: &Arc<AtomicBool>) -> Watch {
        let mapping = Arc::new(mapping);
        self.watched.lock().push(Watched { mapping: mapping.clone(), is_gone: is_gone.clone() });
        Watch { faults: self.clone(), mapping }
    }

    /// Resolves faults for as long as the card lives.
    pub(crate) fn serve(&self) -> Result<(), Status> {
        let mut received = self.gate.receive()?;
        loop {
            let [address, instruction, ..] = received.message.words;
            let label = received.message.tag.label();
            let is_page_fault = FaultKind::from_raw(label) == Some(FaultKind::PageFault);
            if !is_page_fault || !self.resolve(address)? {
                panic!("the card cannot go on: fault {label} at {address:#x}, by the instruction at {instruction:#x}");
            }
            received = self.gate.reply_receive(Message::new(FaultReply::Resume as u32, [0; 4]))?;
        }
    }

    /// Whether the address is one of a guest's, where something is mapped now.
    fn resolve(&self, address: u64) -> Result<bool, Status> {
        let watched = self.watched.lock();
        let Some(Watched { mapping, is_gone }) = watched.iter().find(|watched| watched.mapping.contains(address))
        else {
            return Ok(false);
        };
        is_gone.store(true, Ordering::Relaxed);
        mapping.substitute(address).map(|()| true)
    }
}

impl Watch {
    /// The mapping.
    pub(crate) fn mapping(&self) -> &ForeignMapping {
        &self.mapping
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.faults.watched.lock().retain(|watched| !Arc::ptr_eq(&watched.mapping, &self.mapping));
    }
}
