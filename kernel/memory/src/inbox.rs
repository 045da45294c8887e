//! A list to which any CPU may add objects without a lock, and from which one CPU takes all at once: how a CPU asks
//! another to look at an object (wake this thread, answer this call).
#![expect(unsafe_code, reason = "links point to each other")]

use core::iter::FusedIterator;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use crate::heap::Heap;
use crate::queue::{IN_INBOX, Link, Linked, NOT_QUEUED, object};
use crate::reference::Ref;
use crate::sync::{AtomicPtr, Ordering, const_unless_loom};

/// Objects that wait to be looked at, each at most once.
///
/// A producer changes the object first and pushes it then. Whether the push succeeds or finds the object in the inbox
/// already, the consumer sees the change when it next takes the object out.
pub struct Inbox<T, H: Heap, Tag = ()> {
    /// The newest object's link; links lead to older ones.
    newest: AtomicPtr<Link>,
    owns: PhantomData<Ref<T, H>>,
    /// Makes it invariant in `T`, since a shared inbox both takes and gives objects.
    takes: PhantomData<fn(T) -> Tag>,
}

// SAFETY: An inbox moves references from CPU to CPU and gives no access to them while they are in it.
unsafe impl<T, H: Heap, Tag> Send for Inbox<T, H, Tag> where Ref<T, H>: Send {}
// SAFETY: As above; the list's head is atomic.
unsafe impl<T, H: Heap, Tag> Sync for Inbox<T, H, Tag> where Ref<T, H>: Send {}

/// What the inbox was like when an object came in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pushed {
    /// The object is the first since the consumer last took all: the consumer needs to be told.
    pub was_empty: bool,
}

impl<T, H: Heap, Tag> Inbox<T, H, Tag> {
    const_unless_loom! {
        /// An empty inbox.
        #[must_use]
        pub fn new() -> Self {
            Self { newest: AtomicPtr::new(ptr::null_mut()), owns: PhantomData, takes: PhantomData }
        }
    }

    /// Whether nothing is in the inbox at this moment.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.newest.load(Ordering::Relaxed).is_null()
    }

    /// Takes all objects out, to be looked at in the order in which they came. Takes time in proportion to their
    /// number.
    #[inline]
    pub fn take_all(&self) -> Taken<T, H, Tag> {
        if self.is_empty() {
            return Taken { oldest: ptr::null_mut(), owns: PhantomData, kind: PhantomData };
        }
        // Acquire pairs with the Release in `push`: the links are as their producers left them.
        let mut pointer = self.newest.swap(ptr::null_mut(), Ordering::Acquire);
        let mut oldest = ptr::null_mut();
        // SAFETY: The list came out of the inbox whole and belongs to this CPU; it owns a reference to each object,
        // which keeps the link alive and in place (see the queue's description).
        while let Some(link) = unsafe { pointer.as_ref() } {
            let older = link.next.load(Ordering::Relaxed);
            link.next.store(oldest, Ordering::Relaxed);
            oldest = pointer;
            pointer = older;
        }
        Taken { oldest, owns: PhantomData, kind: PhantomData }
    }
}

impl<T: Linked<Tag>, H: Heap, Tag> Inbox<T, H, Tag> {
    /// Adds an object. Never waits for the consumer.
    ///
    /// # Errors
    /// The object is in an inbox (or a queue) of this kind already and has not been looked at yet; it is given back.
    #[inline]
    pub fn push(&self, object: Ref<T, H>) -> Result<Pushed, Ref<T, H>> {
        let pointer = NonNull::from(object.link());
        // SAFETY: `object`, which gave the link, is alive until it is in the list; see there for after that.
        let link = unsafe { pointer.as_ref() };
        // Acquire pairs with the Release in `Taken::next` and in the queue.
        while link.owner.compare_exchange(NOT_QUEUED, IN_INBOX, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // The failed exchange was only a load, which may come before this CPU's change to the object. A write to
            // the same location cannot: either the consumer's swap in `Taken::next` reads from it, and thus sees the
            // change, or it reads from the swap and finds the link free.
            if link.owner.fetch_add(0, Ordering::Release) != NOT_QUEUED {
                return Err(object);
            }
        }
        link.object.store(Ref::into_raw(object).as_ptr().cast(), Ordering::Relaxed);
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            link.next.store(newest, Ordering::Relaxed);
            // Release pairs with the Acquire in `take_all`. From then on the consumer may free the object: not touched.
            match self.newest.compare_exchange_weak(newest, pointer.as_ptr(), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Ok(Pushed { was_empty: newest.is_null() }),
                Err(now) => newest = now,
            }
        }
    }
}

impl<T, H: Heap, Tag> Default for Inbox<T, H, Tag> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, H: Heap, Tag> Drop for Inbox<T, H, Tag> {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}

/// The objects taken out of an [`Inbox`], from the oldest to the newest. An object may be pushed again once it has come
/// out here.
pub struct Taken<T, H: Heap, Tag> {
    oldest: *mut Link,
    owns: PhantomData<Ref<T, H>>,
    kind: PhantomData<fn() -> Tag>,
}

// SAFETY: It is a list of references that it alone owns.
unsafe impl<T, H: Heap, Tag> Send for Taken<T, H, Tag> where Ref<T, H>: Send {}

impl<T, H: Heap, Tag> Iterator for Taken<T, H, Tag> {
    type Item = Ref<T, H>;

    #[inline]
    fn next(&mut self) -> Option<Ref<T, H>> {
        // SAFETY: The list owns a reference to the object, which keeps the link alive and in place.
        let link = unsafe { self.oldest.as_ref() }?;
        self.oldest = link.next.load(Ordering::Relaxed);
        // SAFETY: An inbox of these types took the link, and the link leaves the list.
        let object = unsafe { object(link) };
        // Release: the next owner sees the link as it is. Acquire: this CPU sees what a producer changed that found the
        // object queued (see `push`).
        link.owner.swap(NOT_QUEUED, Ordering::AcqRel);
        Some(object)
    }
}

impl<T, H: Heap, Tag> FusedIterator for Taken<T, H, Tag> {}

impl<T, H: Heap, Tag> Drop for Taken<T, H, Tag> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::host::HostHeap;

    type Heap = &'static HostHeap;

    struct Item {
        key: u32,
        link: Link,
    }

    impl Linked for Item {
        fn link(&self) -> &Link {
            &self.link
        }
    }

    fn item(heap: Heap, key: u32) -> Ref<Item, Heap> {
        Ref::try_new(heap, Item { key, link: Link::new() }).unwrap()
    }

    #[test]
    fn objects_come_out_in_the_order_in_which_they_went_in() {
        let heap = HostHeap::leak();
        let inbox: Inbox<Item, Heap> = Inbox::new();
        let emptiness: Vec<_> = (0..3).map(|key| inbox.push(item(heap, key)).ok().unwrap().was_empty).collect();
        assert_eq!((emptiness, inbox.is_empty()), (vec![true, false, false], false));
        assert_eq!(inbox.take_all().map(|item| item.key).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((inbox.is_empty(), inbox.take_all().count(), heap.objects()), (true, 0, 0));
    }

    #[test]
    fn an_object_is_refused_until_it_has_come_out() {
        let heap = HostHeap::leak();
        let inbox: Inbox<Item, Heap> = Inbox::new();
        let (first, second) = (item(heap, 1), item(heap, 2));
        assert!(inbox.push(first.clone()).is_ok());
        assert!(inbox.push(second.clone()).is_ok());
        assert!(inbox.push(first.clone()).is_err());
        let mut taken = inbox.take_all();
        assert!(taken.next().is_some());
        assert_eq!(inbox.push(first).ok(), Some(Pushed { was_empty: true }));
        assert!(inbox.push(second).is_err());
    }

    #[test]
    fn what_is_not_looked_at_is_dropped_and_free_to_be_pushed() {
        let heap = HostHeap::leak();
        let (kept, inbox) = (item(heap, 1), Inbox::<Item, Heap>::new());
        assert!(inbox.push(kept.clone()).is_ok());
        drop(inbox.take_all());
        assert!(inbox.push(kept.clone()).is_ok());
        assert!(inbox.push(item(heap, 2)).is_ok());
        drop(inbox);
        assert_eq!((heap.objects(), Ref::count(&kept)), (1, 1));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let rounds = if cfg!(miri) { 20 } else { 500 };
        let heap = HostHeap::leak();
        let inbox: Inbox<Item, Heap> = Inbox::new();
        let mut last = [None; 2];
        std::thread::scope(|scope| {
            for producer in 0..2 {
                let inbox = &inbox;
                scope.spawn(move || {
                    for round in 0..rounds {
                        assert!(inbox.push(item(heap, round * 2 + producer)).is_ok());
                    }
                });
            }
            let mut left = rounds * 2;
            while left > 0 {
                for object in inbox.take_all() {
                    let producer = (object.key % 2) as usize;
                    assert_eq!(last[producer].map_or(producer as u32, |key| key + 2), object.key);
                    last[producer] = Some(object.key);
                    left -= 1;
                }
                std::thread::yield_now();
            }
        });
        assert_eq!(heap.objects(), 0);
    }
}
