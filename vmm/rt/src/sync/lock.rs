//! The lock's algorithm, apart from how a thread sleeps: so that it can be checked in all interleavings.

// Taken from the parent, because the parent in `tests/loom_lock.rs` has loom's atomics there.
use super::atomic::{AtomicU32, Ordering};

/// How a thread waits. A wake that comes before the sleep makes the sleep end at once; several of them may count as
/// one, and a sleep may end without one.
pub(super) trait Parking {
    /// Sleeps until it is woken.
    fn sleep(&self);
    /// Wakes one sleeper, or the next one to come.
    fn wake(&self);
}

/// State of a lock that nobody holds.
pub(super) const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody sleeps or is about to.
const CONTENDED: u32 = 2;

/// The three-state lock of Drepper's "Futexes Are Tricky".
pub(super) struct Lock<P> {
    /// One of the constants above, [`FREE`] at first.
    pub(super) state: AtomicU32,
    pub(super) parking: P,
}

impl<P: Parking> Lock<P> {
    /// Acquire: what the last holder did happened before.
    #[inline]
    pub(super) fn lock(&self) {
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
    }

    /// Acquire, if nobody holds it: whether it was so.
    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// A thread that slept takes the lock as contended, because others may sleep too: one wake that stands for two
    /// is then passed on when it unlocks.
    #[cold]
    fn wait(&self) {
        while self.state.swap(CONTENDED, Ordering::Acquire) != FREE {
            self.parking.sleep();
        }
    }

    /// Release: what this holder did happens before what the next one does.
    #[inline]
    pub(super) fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == CONTENDED {
            self.parking.wake();
        }
    }
}
