//! What CPUs agree on without a lock: who continues a waiting thread, what a thread's CPU is to do with it, which bits
//! a notification has, who has forgotten old translations.
//!
//! Nothing but atomics, so that `kernel/memory/tests/loom_kernel/` takes this very file through every order that the
//! memory model allows, together with the kernel's lock and lists.

use core::sync::atomic::Ordering;

use crate::sync::{AtomicU32, AtomicU64};

/// Number of one wait of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitToken(u64);

/// Whether a thread is blocked, and in which wait. Who wants to continue a blocked thread must *claim* it; one claim
/// succeeds.
pub struct Wait {
    /// Even: not blocked. Odd: blocked. Counts up with each change, so that each wait has its own number.
    count: AtomicU64,
}

impl Wait {
    /// Not blocked.
    pub fn new() -> Self {
        Self { count: AtomicU64::new(0) }
    }

    /// Begins a wait. Only for the CPU on which the thread is current, or whoever has claimed it.
    #[inline]
    pub fn block(&self) -> WaitToken {
        let token = self.count.load(Ordering::Relaxed) + 1;
        // Release: a claimer sees the registers and the IPC state as they were when the wait began.
        self.count.store(token, Ordering::Release);
        WaitToken(token)
    }

    /// Claims the thread from one certain wait.
    #[inline]
    pub fn claim(&self, token: WaitToken) -> bool {
        // Acquire pairs with the Release in `block`.
        self.count.compare_exchange(token.0, token.0 + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Claims the thread from whatever it waits for. For its own CPU, and for holders of the lock of the queue in
    /// which the thread waits: there the wait cannot have become another one.
    #[inline]
    pub fn claim_any(&self) -> bool {
        let count = self.count.load(Ordering::Relaxed);
        count & 1 == 1 && self.claim(WaitToken(count))
    }

    /// Whether it is blocked at this moment.
    #[inline]
    pub fn is_blocked(&self) -> bool {
        self.count.load(Ordering::Acquire) & 1 == 1
    }

    /// Whether it is blocked in one certain wait at this moment.
    #[cfg(test)]
    pub fn is_in(&self, token: WaitToken) -> bool {
        self.count.load(Ordering::Relaxed) == token.0
    }
}

/// What a thread's CPU is to do with the thread that it finds in its inbox.
pub struct Errands(AtomicU32);

impl Errands {
    /// Nothing.
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Notes an errand. Before the thread is put into the inbox, even if it is there already.
    #[inline]
    pub fn add(&self, errand: u32) {
        // Release pairs with the Acquire in `take`.
        self.0.fetch_or(errand, Ordering::Release);
    }

    /// Takes all errands. After the thread was taken out of the inbox.
    #[inline]
    pub fn take(&self) -> u32 {
        self.0.swap(0, Ordering::Acquire)
    }

    /// What is noted at this moment.
    #[cfg(test)]
    pub fn noted(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The bits of a notification.
pub struct Bits(AtomicU64);

impl Bits {
    /// None is set.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Sets bits. What the signaller did before is visible to whoever takes them.
    #[inline]
    pub fn set(&self, bits: u64) {
        // Release for the above. That a waiter and a signaller do not miss each other is the waiters' lock's doing:
        // the waiter looks at the bits under it, and the signaller for waiters after the bits are set.
        self.0.fetch_or(bits, Ordering::Release);
    }

    /// Those that are set.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes all.
    #[inline]
    pub fn take(&self) -> u64 {
        // Acquire pairs with the Release in `set`.
        if self.get() == 0 { 0 } else { self.0.swap(0, Ordering::Acquire) }
    }
}

/// TLB shoot-downs of one CPU: others ask it to forget its translations, it answers when it has.
pub struct Shootdowns {
    /// How many were asked for.
    pub asked: AtomicU64,
    /// How many of them are done.
    pub answered: AtomicU64,
}

impl Shootdowns {
    /// Asks. The page tables were changed before.
    #[inline]
    pub fn ask(&self) {
        // Release: the target, which acquires this before it flushes, walks the changed tables afterwards.
        self.asked.fetch_add(1, Ordering::Release);
    }

    /// How many were asked for, for [`Self::are_answered`]; at least the caller's own.
    #[inline]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the target has forgotten what it knew when so many had been asked for.
    #[inline]
    pub fn are_answered(&self, asked: u64) -> bool {
        // Acquire: the target's last use of the old translations is over.
        self.answered.load(Ordering::Acquire) >= asked
    }

    /// The target does what was asked of it. Only for that CPU.
    #[inline]
    pub fn answer(&self, flush: impl FnOnce()) {
        let asked = self.asked.load(Ordering::Acquire);
        if self.answered.load(Ordering::Relaxed) != asked {
            flush();
            // Release: whoever sees the answer knows that the old translations are gone.
            self.answered.store(asked, Ordering::Release);
        }
    }
}
