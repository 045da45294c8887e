//! Notifications: 64 bits that can be set from anywhere and waited for.

use core::sync::atomic::Ordering;

use dragonfly_memory::Charge;

use crate::arch::Arch;
use crate::gate::Gate;
use crate::sync::AtomicU64;
use crate::thread::WaitQueue;
use crate::{Lock, Ref};

/// A word of bits.
pub struct Notification<A: Arch> {
    bits: AtomicU64,
    /// Who waits, and where the bits go if nobody does.
    pub waiters: Lock<Waiters<A>, A>,
    _charge: Charge<A::Heap>,
}

/// A notification and the bits to set in it.
pub type Signal<A> = (Ref<Notification<A>, A>, u64);

/// Who waits for a notification.
pub struct Waiters<A: Arch> {
    /// Threads that wait for bits.
    pub queue: WaitQueue<A>,
    /// The gate whose receivers get the bits too.
    pub gate: Option<Ref<Gate<A>, A>>,
    /// Whether the notification is closed for good.
    pub is_closed: bool,
}

impl<A: Arch> Notification<A> {
    /// A notification without bits.
    pub fn new(charge: Charge<A::Heap>) -> Self {
        Self {
            bits: AtomicU64::new(0),
            waiters: Lock::<_, A>::new(Waiters { queue: WaitQueue::<A>::new(), gate: None, is_closed: false }),
            _charge: charge,
        }
    }

    /// Sets bits. What the signaller did before is visible to whoever takes them.
    pub fn set(&self, bits: u64) {
        // Release for the above; SeqCst so that it is ordered before the look at the queues that follows: a waiter
        // looks at the bits under the queue's lock, so one of the two sees the other.
        self.bits.fetch_or(bits, Ordering::SeqCst);
    }

    /// Whether any bit is set.
    pub fn has_bits(&self) -> bool {
        self.bits.load(Ordering::Relaxed) != 0
    }

    /// Takes all bits.
    pub fn take(&self) -> u64 {
        if self.has_bits() { self.bits.swap(0, Ordering::SeqCst) } else { 0 }
    }
}

#[cfg(test)]
mod inspection {
    use super::{Arch, Notification, Ordering};

    impl<A: Arch> Notification<A> {
        /// The bits that are set.
        pub fn bits(&self) -> u64 {
            self.bits.load(Ordering::Relaxed)
        }
    }
}
