//! Every interleaving of a few steps on a few CPUs, under loom's memory model.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are read and written by pointer")]

use dragonfly_memory::host::HostHeap;
use dragonfly_memory::{Account, Inbox, Link, Linked, Lock, Queue, Ref, Relax};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

struct Yield;

impl Relax for Yield {
    fn relax() {
        thread::yield_now();
    }
}

#[test]
fn a_lock_is_held_by_one_at_a_time_and_passes_on_what_was_written() {
    loom::model(|| {
        let lock: Arc<Lock<u32, Yield>> = Arc::new(Lock::new(0));
        let other = lock.clone();
        let thread = thread::spawn(move || *other.lock() += 1);
        *lock.lock() += 1;
        thread.join().unwrap();
        assert_eq!(*lock.lock(), 2);
    });
}

#[test]
fn an_attempt_takes_the_lock_only_when_nobody_holds_it() {
    loom::model(|| {
        let lock: Arc<Lock<u32, Yield>> = Arc::new(Lock::new(0));
        let other = lock.clone();
        let thread = thread::spawn(move || other.try_lock().map(|mut value| *value += 1).is_some());
        *lock.lock() += 1;
        let taken = thread.join().unwrap();
        assert_eq!(*lock.lock(), 1 + u32::from(taken));
    });
}

/// Whose destruction loom compares with all uses.
struct Object {
    content: UnsafeCell<u32>,
    link: Link,
}

impl Object {
    fn new() -> Self {
        Self { content: UnsafeCell::new(0), link: Link::new() }
    }

    fn read(&self) -> u32 {
        // SAFETY: Only the destructor writes, and loom checks that it comes last.
        self.content.with(|content| unsafe { *content })
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: As in `read`.
        self.content.with_mut(|content| unsafe { *content += 1 });
    }
}

impl Linked for Object {
    fn link(&self) -> &Link {
        &self.link
    }
}

type ObjectRef = Ref<Object, &'static HostHeap>;

fn object() -> ObjectRef {
    // The heap is static, as the trait asks for; loom runs many times over it.
    Ref::try_new(heap(), Object::new()).ok().unwrap()
}

fn heap() -> &'static HostHeap {
    static HEAP: std::sync::OnceLock<&HostHeap> = std::sync::OnceLock::new();
    HEAP.get_or_init(HostHeap::leak)
}

#[test]
fn an_object_is_destroyed_after_every_use_of_it() {
    loom::model(|| {
        let first = object();
        let second = first.clone();
        let thread = thread::spawn(move || second.clone().read());
        first.read();
        drop(first);
        thread.join().unwrap();
    });
}

#[test]
fn an_object_passes_between_queues_of_different_locks() {
    type List = Lock<Queue<Object, &'static HostHeap>, Yield>;
    loom::model(|| {
        let lists: Arc<[List; 2]> = Arc::new([Lock::new(Queue::new()), Lock::new(Queue::new())]);
        let shared = object();
        assert!(lists[0].lock().push_back(shared.clone()).is_ok());
        let (others, other) = (lists.clone(), shared.clone());
        let thread = thread::spawn(move || {
            let removed = others[0].lock().remove(&other).is_some();
            let pushed = others[1].lock().push_back(other).is_ok();
            (removed, pushed)
        });
        let popped = lists[0].lock().pop_front().is_some();
        let (removed, pushed) = thread.join().unwrap();
        assert!(popped != removed);
        // Once it has left the first queue, whoever took it out, the second takes it: the first lock orders that.
        assert!(pushed);
        assert_eq!(lists[1].lock().contains(&shared), pushed);
    });
}

#[test]
fn pushes_from_two_cpus_come_out_once_each() {
    loom::model(|| {
        let inbox: Arc<Inbox<Object, &'static HostHeap>> = Arc::new(Inbox::new());
        let producer = inbox.clone();
        let thread = thread::spawn(move || producer.push(object()).ok().unwrap().was_empty);
        let was_empty = inbox.push(object()).ok().unwrap().was_empty;
        let taken = inbox.take_all().map(|object| object.read()).count();
        let other_was_empty = thread.join().unwrap();
        assert!(was_empty || other_was_empty);
        assert_eq!(taken + inbox.take_all().count(), 2);
    });
}

#[test]
fn the_consumer_sees_what_changed_before_a_push_that_found_the_object_queued() {
    loom::model(|| {
        let inbox: Arc<Inbox<Object, &'static HostHeap>> = Arc::new(Inbox::new());
        let shared = object();
        let wanted = Arc::new(AtomicU32::new(0));
        assert!(inbox.push(shared.clone()).is_ok());
        let (producer, wish) = (inbox.clone(), wanted.clone());
        let thread = thread::spawn(move || {
            wish.store(1, Ordering::Relaxed);
            producer.push(shared).is_ok()
        });
        let seen = inbox.take_all().map(|_object| wanted.load(Ordering::Relaxed)).sum::<u32>();
        let pushed_again = thread.join().unwrap();
        assert!(pushed_again || seen == 1, "the producer believes that the consumer will see its wish");
        drop(inbox.take_all());
    });
}

#[test]
fn two_cpus_never_use_more_than_an_account_has() {
    loom::model(|| {
        let account = Account::root(heap(), 100).unwrap();
        let other = account.clone();
        let thread = thread::spawn(move || Account::charge(&other, 60).ok());
        let mine = Account::charge(&account, 60).ok();
        let others = thread.join().unwrap();
        assert_eq!(u32::from(mine.is_some()) + u32::from(others.is_some()), 1);
        drop((mine, others));
        assert_eq!(account.used(), 0);
    });
}
