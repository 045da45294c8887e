//! A lock for threads of one domain.
#![expect(unsafe_code, reason = "a lock gives access to what lies in an UnsafeCell")]

mod lock;

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{self, AtomicU32, Ordering};

use dragonfly_abi::Handle;

use crate::sys::{Notification, Object};
use crate::time;
use lock::{FREE, Lock, Parking};

/// Data that one thread at a time may use.
///
/// A thread that finds it locked sleeps, so that a holder of lower priority on the same CPU can go on. Whether it is
/// locked costs no system call to find out.
pub struct Mutex<T> {
    lock: Lock<Sleeper>,
    value: UnsafeCell<T>,
}

// SAFETY: only the thread that holds the lock reaches the value, so sharing the mutex moves the value at most.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    /// A mutex that nobody holds.
    pub const fn new(value: T) -> Self {
        let parking = Sleeper { handle: AtomicU32::new(0) };
        Self { lock: Lock { state: AtomicU32::new(FREE), parking }, value: UnsafeCell::new(value) }
    }

    /// Waits until nobody else holds the mutex; it is held until the guard goes out of scope.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.lock.lock();
        MutexGuard { mutex: self }
    }

    /// Holds the mutex if nobody else does; does not wait.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        // Made only if it is held: its end unlocks.
        self.lock.try_lock().then(|| MutexGuard { mutex: self })
    }
}

impl<T> Drop for Mutex<T> {
    fn drop(&mut self) {
        self.lock.parking.close();
    }
}

/// Access to what a [`Mutex`] holds.
#[must_use = "the mutex is unlocked when this goes out of scope"]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread holds the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread holds the lock, and the guard is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.mutex.lock.unlock();
    }
}

/// Sleeps on a notification that is made when two threads first meet.
struct Sleeper {
    /// The notification's handle; 0 before there is one.
    handle: AtomicU32,
}

/// How long a thread sleeps before it tries again when there is no memory for a notification.
const RETRY_NS: u64 = 1_000_000;

impl Sleeper {
    fn notification(&self) -> Option<Notification> {
        let made = self.handle.load(Ordering::Acquire);
        if made != 0 {
            return Some(Notification::from_handle(Handle(made)));
        }
        let mine = Notification::create().ok()?;
        match self.handle.compare_exchange(0, mine.handle().0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Some(mine.keep()),
            // Another thread was first; `mine` is closed.
            Err(other) => Some(Notification::from_handle(Handle(other))),
        }
    }

    fn close(&self) {
        let made = self.handle.load(Ordering::Relaxed);
        if made != 0 {
            // Nobody waits any more: the mutex is being dropped.
            let _ = Notification::from_handle(Handle(made)).close();
        }
    }
}

impl Parking for Sleeper {
    fn sleep(&self) {
        match self.notification() {
            Some(notification) => drop(notification.wait()),
            None => time::sleep_ns(RETRY_NS),
        }
    }

    fn wake(&self) {
        // A waiter that could not make one does not wait for a signal either.
        if let Some(notification) = self.notification() {
            let _ = notification.signal(1);
        }
    }
}
