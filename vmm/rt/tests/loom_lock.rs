//! The lock in all interleavings of two threads, and in those of three with few preemptions. Run with `RUSTFLAGS="--cfg loom"`.
#![cfg(loom)]

use loom::sync::{Arc, Condvar, Mutex, atomic};

#[path = "../src/sync/lock.rs"]
mod lock;

use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use lock::{FREE, Lock, Parking};

/// What a notification does: wakes that nobody waits for are kept, and several count as one.
struct Notification {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl Parking for Notification {
    fn sleep(&self) {
        let mut signalled = self.signalled.lock().unwrap();
        while !*signalled {
            signalled = self.changed.wait(signalled).unwrap();
        }
        *signalled = false;
    }

    fn wake(&self) {
        *self.signalled.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

fn run(threads: usize, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let parking = Notification { signalled: Mutex::new(false), changed: Condvar::new() };
        let lock = Arc::new(Lock { state: AtomicU32::new(FREE), parking });
        let value = Arc::new(AtomicUsize::new(0));
        let add = |lock: &Lock<Notification>, value: &AtomicUsize| {
            lock.lock();
            // Two threads here at the same time, or one that does not see what the last one stored, lose an addition.
            value.store(value.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            lock.unlock();
        };
        let others: Vec<_> = (1..threads)
            .map(|_| {
                let (lock, value) = (lock.clone(), value.clone());
                loom::thread::spawn(move || add(&lock, &value))
            })
            .collect();
        add(&lock, &value);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(value.load(Ordering::Relaxed), threads);
    });
}

#[test]
fn who_tries_holds_the_lock_alone_or_not_at_all() {
    loom::model(|| {
        let parking = Notification { signalled: Mutex::new(false), changed: Condvar::new() };
        let lock = Arc::new(Lock { state: AtomicU32::new(FREE), parking });
        let value = Arc::new(AtomicUsize::new(0));
        let add = |value: &AtomicUsize| value.store(value.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let other = {
            let (lock, value) = (lock.clone(), value.clone());
            loom::thread::spawn(move || {
                lock.lock();
                add(&value);
                lock.unlock();
            })
        };
        let has_held = lock.try_lock();
        if has_held {
            add(&value);
            lock.unlock();
        }
        other.join().unwrap();
        assert_eq!(value.load(Ordering::Relaxed), 1 + usize::from(has_held));
    });
}

#[test]
fn two_threads_never_hold_the_lock_together_and_both_get_it() {
    run(2, None);
}

#[test]
fn three_threads_never_hold_the_lock_together_and_all_get_it() {
    run(3, Some(2));
}
