//! Lending to a processor that delivers interrupts itself (SDM 3C, "APIC Virtualization and Virtual Interrupts").
//!
//! Requests, interrupts in service and the task priority are the processor's while they are lent: it changes them while
//! the guest runs, and the owner takes them back before it looks at them or lets the guest's access change them.

use crate::posting::{FIRST_VECTOR, WORD_BITS};
use crate::vectors::WORDS;
use crate::{LocalApic, Trigger};

/// A set of vectors: words of 64, the lowest first.
pub type VectorSet = [u64; WORDS];

/// Any CPU.
impl LocalApic {
    /// Whether a fixed interrupt may go past [`Self::post`]: it would be accepted, is no error, and does not change what
    /// its end means.
    #[inline]
    pub fn can_bypass(&self, vector: u8, trigger: Trigger) -> bool {
        self.is_accepting.get() != 0
            && vector >= FIRST_VECTOR
            && trigger == Trigger::Edge
            && !self.level.contains(vector)
    }
}

/// The owner.
impl LocalApic {
    /// Enters interrupts into IRR that [`Self::can_bypass`] has let go another way.
    pub fn request_all(&self, vectors: VectorSet) {
        self.requested.insert_all(vectors);
        self.seen.0.set(self.seen.0.get() | WORD_BITS);
    }

    /// Lends the requests: takes them out of IRR. Those that come later stay there until this is called again.
    pub fn lend_requests(&self) -> VectorSet {
        // Who adds to a word from here on announces it after.
        self.seen.0.set(self.look() & !WORD_BITS);
        self.requested.take()
    }

    /// ISR.
    pub fn in_service(&self) -> VectorSet {
        self.in_service.load()
    }

    /// TMR: vectors whose end the I/O APIC wants to know of.
    pub fn level_triggered(&self) -> VectorSet {
        self.level.load()
    }

    /// Takes back what was lent: the requests that are left, what is in service now, and the task priority.
    pub fn take_back(&self, requests: VectorSet, in_service: VectorSet, task_priority: u8) {
        self.requested.insert_all(requests);
        self.in_service.store(in_service);
        self.set_task_priority(task_priority);
        self.rescan();
    }
}
