//! The kernel's only lock: a ticket lock, which serves waiting CPUs in the order in which they came.
//!
//! Kernel code runs with interrupts off, so no interrupt handler can ask for a lock that its own CPU holds. What a
//! waiting CPU must go on doing is to answer other CPUs, for the holder may wait for its answer: [`Relax`] is the place
//! for that.
#![expect(unsafe_code, reason = "a lock hands out exclusive references to what it guards")]

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::sync::{AtomicU32, Ordering, UnsafeCell, const_unless_loom};

/// What a CPU does each turn while it waits for a lock.
pub trait Relax {
    /// Pauses briefly. Serves what other CPUs ask of this one (TLB shoot-down) and must not take a lock.
    fn relax();
}

/// A value that one CPU at a time can reach.
pub struct Lock<T, R> {
    /// The ticket that the next comer draws.
    next: AtomicU32,
    /// The ticket of the holder, or of the next comer if there is no holder.
    serving: AtomicU32,
    value: UnsafeCell<T>,
    relax: PhantomData<fn() -> R>,
}

// SAFETY: The lock gives out the value to one CPU at a time, so sharing the lock only moves the value between CPUs.
unsafe impl<T: Send, R> Sync for Lock<T, R> {}
// SAFETY: The lock owns its value and nothing else.
unsafe impl<T: Send, R> Send for Lock<T, R> {}

impl<T, R> Lock<T, R> {
    const_unless_loom! {
        /// An unlocked lock around `value`.
        #[must_use]
        pub fn new(value: T) -> Self {
            Self {
                next: AtomicU32::new(0),
                serving: AtomicU32::new(0),
                value: UnsafeCell::new(value),
                relax: PhantomData,
            }
        }
    }

    /// The value, when nobody else can hold the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T, R: Relax> Lock<T, R> {
    /// Waits until the lock is free and takes it. Taking a lock that this CPU holds waits for ever.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T, R> {
        // Relaxed: the ticket orders nothing but the queue; `serve` acquires.
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        self.serve(ticket)
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<Guard<'_, T, R>> {
        let ticket = self.serving.load(Ordering::Relaxed);
        // If the ticket being served has not been drawn, the lock is free and drawing it takes the lock.
        let drawn = self.next.compare_exchange(ticket, ticket.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        drawn.ok().map(|ticket| self.serve(ticket))
    }

    #[inline]
    fn serve(&self, ticket: u32) -> Guard<'_, T, R> {
        // Acquire pairs with the Release in `Guard::drop`: what the previous holder wrote is visible to this one.
        while self.serving.load(Ordering::Acquire) != ticket {
            R::relax();
        }
        Guard { lock: self, not_send: PhantomData }
    }
}

/// The right to use a lock's value; dropping it gives the lock to the next comer.
#[must_use = "the lock is free again as soon as the guard is dropped"]
pub struct Guard<'a, T, R> {
    lock: &'a Lock<T, R>,
    /// A guard stays on the CPU that took it, and is shared only if the value may be.
    not_send: PhantomData<*mut T>,
}

// SAFETY: A shared guard gives only `&T`.
unsafe impl<T: Sync, R> Sync for Guard<'_, T, R> {}

impl<T, R> Deref for Guard<'_, T, R> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: The lock is held as long as the guard lives, so no other guard reaches the value, and the borrow of
        // this one keeps its own exclusive references away.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T, R> DerefMut for Guard<'_, T, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As in `deref`; the borrow of this guard is exclusive.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T, R> Drop for Guard<'_, T, R> {
    #[inline]
    fn drop(&mut self) {
        // Only the holder writes `serving`, so a load and a store do instead of an atomic addition.
        let ticket = self.lock.serving.load(Ordering::Relaxed);
        // Release pairs with the Acquire in `serve`.
        self.lock.serving.store(ticket.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Yield;

    impl Relax for Yield {
        fn relax() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_held_lock_is_refused_and_a_released_one_is_given() {
        let lock: Lock<u32, Yield> = Lock::new(1);
        let mut guard = lock.lock();
        *guard = 2;
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert_eq!(lock.try_lock().map(|value| *value), Some(2));
        assert_eq!(lock.into_inner(), 2);
    }

    #[test]
    fn a_refused_attempt_does_not_draw_a_ticket() {
        let lock: Lock<(), Yield> = Lock::new(());
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        drop(lock.lock());
    }

    #[test]
    fn additions_of_several_threads_are_all_counted() {
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        let lock: Lock<u64, Yield> = Lock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..rounds).for_each(|_| *lock.lock() += 1));
            }
        });
        assert_eq!(lock.into_inner(), 3 * rounds);
    }

    #[test]
    fn waiting_cpus_are_served_in_the_order_in_which_they_came() {
        let order: Lock<Vec<usize>, Yield> = Lock::new(Vec::new());
        let lock: Lock<(), Yield> = Lock::new(());
        std::thread::scope(|scope| {
            let guard = lock.lock();
            for index in 0..4 {
                let (lock, order) = (&lock, &order);
                scope.spawn(move || {
                    let _held = lock.lock();
                    order.lock().push(index);
                });
                // One ticket is the holder's, one is drawn by each thread so far.
                while lock.next.load(Ordering::Relaxed) as usize != index + 2 {
                    std::thread::yield_now();
                }
            }
            drop(guard);
        });
        assert_eq!(order.into_inner(), [0, 1, 2, 3]);
    }
}
