//! Notifications: 64 bits that can be set from anywhere and waited for.

use dragonfly_memory::Charge;

use crate::arch::Arch;
use crate::gate::Gate;
use crate::protocol::Bits;
use crate::thread::WaitQueue;
use crate::vm::Vm;
use crate::{Lock, Ref};

/// A word of bits.
pub struct Notification<A: Arch> {
    bits: Bits,
    /// Who waits, and where the bits go if nobody does.
    pub waiters: Lock<Waiters<A>, A>,
    _charge: Charge<A::Heap>,
}

/// A notification and the bits to set in it.
pub type Signal<A> = (Ref<Notification<A>, A>, u64);

/// A message-signalled interrupt of a virtual machine.
pub struct Route<A: Arch> {
    /// The machine.
    pub vm: Ref<Vm<A>, A>,
    /// Where the message is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// Who waits for a notification.
pub struct Waiters<A: Arch> {
    /// Threads that wait for bits.
    pub queue: WaitQueue<A>,
    /// The gate whose receivers get the bits too.
    pub gate: Option<Ref<Gate<A>, A>>,
    /// The message that is sent instead of setting bits.
    pub route: Option<Route<A>>,
    /// Whether the notification is closed for good.
    pub is_closed: bool,
}

impl<A: Arch> Notification<A> {
    /// A notification without bits.
    pub fn new(charge: Charge<A::Heap>) -> Self {
        Self {
            bits: Bits::new(),
            waiters: Lock::<_, A>::new(Waiters {
                queue: WaitQueue::<A>::new(),
                gate: None,
                route: None,
                is_closed: false,
            }),
            _charge: charge,
        }
    }

    /// Sets bits. What the signaller did before is visible to whoever takes them.
    pub fn set(&self, bits: u64) {
        self.bits.set(bits);
    }

    /// Whether any bit is set.
    pub fn has_bits(&self) -> bool {
        self.bits.get() != 0
    }

    /// Takes all bits.
    pub fn take(&self) -> u64 {
        self.bits.take()
    }
}

#[cfg(test)]
mod inspection {
    use super::{Arch, Notification};

    impl<A: Arch> Notification<A> {
        /// The bits that are set.
        pub fn bits(&self) -> u64 {
            self.bits.get()
        }
    }
}
