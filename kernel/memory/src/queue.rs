//! Queues of kernel objects that need no memory of their own: each object brings a [`Link`] for every kind of queue it
//! may be in. A queue owns a reference to each object in it.
//!
//! Users need no `unsafe`, whatever [`Linked::link`] returns. A link is asked for once, when its object is pushed; the
//! queue then owns a reference, under which what `link` returned stays alive and in place. A link belongs to one queue
//! at a time, whose number it carries: only the holder of `&mut` to that queue, which put the number there, goes on to
//! touch the rest.
#![expect(unsafe_code, reason = "links point to each other")]

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU64 as Counter;

use crate::heap::Heap;
use crate::reference::Ref;
use crate::sync::{AtomicPtr, AtomicU64, Ordering, const_unless_loom};

/// An object that can be in a queue of the kind `Tag`: any type that names one of the object's links.
pub trait Linked<Tag = ()> {
    /// The link for queues of this kind.
    fn link(&self) -> &Link;
}

/// An object's place in at most one [`Queue`] or [`Inbox`](crate::Inbox).
///
/// All fields but `owner` are written by the owner alone. They are atomic so that a link can be shared; relaxed
/// accesses are plain moves.
pub struct Link {
    /// Number of the queue that the object is in, or [`NOT_QUEUED`].
    pub(crate) owner: AtomicU64,
    pub(crate) next: AtomicPtr<Link>,
    previous: AtomicPtr<Link>,
    /// The object's reference, as a raw pointer, while it is queued.
    pub(crate) object: AtomicPtr<()>,
}

/// The owner of a link that is in no queue.
pub(crate) const NOT_QUEUED: u64 = 0;
/// The owner of a link that is in an inbox.
pub(crate) const IN_INBOX: u64 = 1;
/// The number that the next queue to be used takes. 64 bits do not run out. A queue is numbered when it is first used,
/// so that `Queue::new` can be `const`.
static NEXT_OWNER: Counter = Counter::new(IN_INBOX + 1);

impl Link {
    const_unless_loom! {
        /// A link in no queue.
        #[must_use]
        pub fn new() -> Self {
            Self {
                owner: AtomicU64::new(NOT_QUEUED),
                next: AtomicPtr::new(ptr::null_mut()),
                previous: AtomicPtr::new(ptr::null_mut()),
                object: AtomicPtr::new(ptr::null_mut()),
            }
        }
    }

    /// Whether the object is in a queue through this link; others may change that at any time.
    #[inline]
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.owner.load(Ordering::Relaxed) != NOT_QUEUED
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// A first-in first-out list of objects, used under a lock.
pub struct Queue<T, H: Heap, Tag = ()> {
    head: *mut Link,
    tail: *mut Link,
    number: u64,
    owns: PhantomData<Ref<T, H>>,
    kind: PhantomData<fn() -> Tag>,
}

// SAFETY: A queue is a list of references that it alone owns.
unsafe impl<T, H: Heap, Tag> Send for Queue<T, H, Tag> where Ref<T, H>: Send {}
// SAFETY: A shared queue gives only `&T` and clones of references.
unsafe impl<T, H: Heap, Tag> Sync for Queue<T, H, Tag> where Ref<T, H>: Sync {}

impl<T, H: Heap, Tag> Queue<T, H, Tag> {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: ptr::null_mut(), tail: ptr::null_mut(), number: NOT_QUEUED, owns: PhantomData, kind: PhantomData }
    }

    /// Whether no object is in the queue.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// The first object.
    #[inline]
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.iter().next()
    }

    /// Another reference to the first object.
    #[inline]
    #[must_use]
    pub fn front_ref(&self) -> Option<Ref<T, H>> {
        self.find(|_| true)
    }

    /// Another reference to the first object for which `matches` holds.
    pub fn find(&self, mut matches: impl FnMut(&T) -> bool) -> Option<Ref<T, H>> {
        let mut at = self.head;
        while let Some(link) = self.link(at) {
            // SAFETY: The link is in this queue, and the queue's own reference is not dropped here.
            let queued = ManuallyDrop::new(unsafe { object::<T, H>(link) });
            if matches(&queued) {
                return Some(Ref::clone(&queued));
            }
            at = link.next.load(Ordering::Relaxed);
        }
        None
    }

    /// The objects from first to last.
    #[inline]
    #[must_use]
    pub const fn iter(&self) -> Iter<'_, T, H, Tag> {
        Iter { queue: self, next: self.head }
    }

    /// Takes the first object out.
    #[inline]
    pub fn pop_front(&mut self) -> Option<Ref<T, H>> {
        let link = NonNull::new(self.head)?;
        // SAFETY: The link is the first in this queue.
        Some(unsafe { self.unlink(link, ptr::null_mut()) })
    }

    /// The link at `pointer`, a pointer in this queue's list.
    #[inline]
    const fn link(&self, pointer: *mut Link) -> Option<&Link> {
        // SAFETY: A link in the list stays alive and in place until it is unlinked (see the module's description), for
        // which the queue must be borrowed exclusively.
        unsafe { pointer.as_ref() }
    }

    /// Takes an object out.
    ///
    /// # Safety
    /// `link` is in this queue, behind `previous`.
    #[inline]
    unsafe fn unlink(&mut self, link: NonNull<Link>, previous: *mut Link) -> Ref<T, H> {
        // SAFETY: By the contract, and as in `link`. The reference made at the end keeps the link alive beyond that.
        let link = unsafe { link.as_ref() };
        let next = link.next.load(Ordering::Relaxed);
        match self.link(previous) {
            Some(previous) => previous.next.store(next, Ordering::Relaxed),
            None => self.head = next,
        }
        match self.link(next) {
            Some(next) => next.previous.store(previous, Ordering::Relaxed),
            None => self.tail = previous,
        }
        // SAFETY: The pointer was stored with the link and leaves the list with it, so the reference is made once.
        let object = unsafe { object(link) };
        // Release pairs with the Acquire in `insert`: the next queue sees the link as this one left it. The link may be
        // pushed elsewhere from here on.
        link.owner.store(NOT_QUEUED, Ordering::Release);
        object
    }
}

impl<T: Linked<Tag>, H: Heap, Tag> Queue<T, H, Tag> {
    /// Appends an object.
    ///
    /// # Errors
    /// The object is in a queue or inbox of this kind already; it is given back.
    #[inline]
    pub fn push_back(&mut self, object: Ref<T, H>) -> Result<(), Ref<T, H>> {
        self.insert(object, self.tail, ptr::null_mut())
    }

    /// Puts an object before all others.
    ///
    /// # Errors
    /// As for [`push_back`](Self::push_back).
    #[inline]
    pub fn push_front(&mut self, object: Ref<T, H>) -> Result<(), Ref<T, H>> {
        self.insert(object, ptr::null_mut(), self.head)
    }

    /// Puts an object before the first one whose key is greater, so that objects with equal keys stay in the order in
    /// which they came. Takes time in proportion to the number of objects with a greater key, if the queue is sorted.
    ///
    /// # Errors
    /// As for [`push_back`](Self::push_back).
    pub fn push_sorted<K: Ord>(&mut self, object: Ref<T, H>, key: impl Fn(&T) -> K) -> Result<(), Ref<T, H>> {
        let own = key(&object);
        let (mut previous, mut next) = (self.tail, ptr::null_mut());
        while let Some(link) = self.link(previous) {
            // SAFETY: The queue owns a reference to each object in it.
            if key(unsafe { value::<T>(link) }) <= own {
                break;
            }
            next = previous;
            previous = link.previous.load(Ordering::Relaxed);
        }
        self.insert(object, previous, next)
    }

    /// Takes `object` out if it is in this queue.
    #[inline]
    pub fn remove(&mut self, object: &T) -> Option<Ref<T, H>> {
        let link = object.link();
        if !self.owns(link, object) {
            return None;
        }
        // SAFETY: The link is in this queue, as only the queue itself can change.
        Some(unsafe { self.unlink(NonNull::from(link), link.previous.load(Ordering::Relaxed)) })
    }

    /// Whether `object` is in this queue.
    #[inline]
    #[must_use]
    pub fn contains(&self, object: &T) -> bool {
        self.owns(object.link(), object)
    }

    /// Whether `object` is in this queue through `link`.
    #[inline]
    fn owns(&self, link: &Link, object: &T) -> bool {
        // Relaxed: only this queue stores and clears its number. So either it stands there and stays, or some other
        // value does, and it does not matter how old that is.
        self.number != NOT_QUEUED
            && link.owner.load(Ordering::Relaxed) == self.number
            // Two objects whose `link` returns the same link are told apart here.
            && ptr::eq(link.object.load(Ordering::Relaxed).cast(), object)
    }

    /// Puts an object between two neighbours in the list; null stands for the list's end.
    #[inline]
    fn insert(&mut self, object: Ref<T, H>, previous: *mut Link, next: *mut Link) -> Result<(), Ref<T, H>> {
        if self.number == NOT_QUEUED {
            self.number = NEXT_OWNER.fetch_add(1, Ordering::Relaxed);
        }
        let pointer = NonNull::from(object.link());
        // SAFETY: `object`, which gave the link, is alive here, and from here on in the queue.
        let link = unsafe { pointer.as_ref() };
        // Acquire pairs with the Release in `unlink` and in the inbox.
        if link.owner.compare_exchange(NOT_QUEUED, self.number, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(object);
        }
        link.object.store(Ref::into_raw(object).as_ptr().cast(), Ordering::Relaxed);
        link.previous.store(previous, Ordering::Relaxed);
        link.next.store(next, Ordering::Relaxed);
        match self.link(previous) {
            Some(previous) => previous.next.store(pointer.as_ptr(), Ordering::Relaxed),
            None => self.head = pointer.as_ptr(),
        }
        match self.link(next) {
            Some(next) => next.previous.store(pointer.as_ptr(), Ordering::Relaxed),
            None => self.tail = pointer.as_ptr(),
        }
        Ok(())
    }
}

impl<T, H: Heap, Tag> Default for Queue<T, H, Tag> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, H: Heap, Tag> Drop for Queue<T, H, Tag> {
    fn drop(&mut self) {
        while self.pop_front().is_some() {}
    }
}

/// The objects of a [`Queue`], from first to last.
pub struct Iter<'a, T, H: Heap, Tag> {
    queue: &'a Queue<T, H, Tag>,
    next: *mut Link,
}

impl<'a, T, H: Heap, Tag> Iterator for Iter<'a, T, H, Tag> {
    type Item = &'a T;

    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        let link = self.queue.link(self.next)?;
        self.next = link.next.load(Ordering::Relaxed);
        // SAFETY: The queue owns a reference to each object in it and is borrowed, so that none leaves it, for `'a`.
        Some(unsafe { value(link) })
    }
}

impl<'a, T, H: Heap, Tag> IntoIterator for &'a Queue<T, H, Tag> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T, H, Tag>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The reference that a queued link holds.
///
/// # Safety
/// The link is in a queue of these types, and the reference is either taken out with the link or not dropped.
#[inline]
pub(crate) unsafe fn object<T, H: Heap>(link: &Link) -> Ref<T, H> {
    let object = link.object.load(Ordering::Relaxed).cast();
    // SAFETY: A queue stores `Ref::into_raw` of its type when it takes the link; the contract keeps it at one.
    unsafe { Ref::from_raw(NonNull::new_unchecked(object)) }
}

/// The object that a queued link belongs to.
///
/// # Safety
/// The link is in a queue of this type and stays there for `'a`.
#[inline]
unsafe fn value<'a, T>(link: &Link) -> &'a T {
    // SAFETY: A queue owns a reference to the object whose address it stores when it takes the link.
    unsafe { &*link.object.load(Ordering::Relaxed).cast() }
}

#[cfg(all(test, not(loom)))]
mod tests;
