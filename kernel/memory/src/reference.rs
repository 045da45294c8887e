//! Shared ownership of kernel objects: an `Arc` whose allocation can fail and that knows no weak references.
#![expect(unsafe_code, reason = "the count decides when the object's memory is freed")]

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, offset_of};
use core::ops::Deref;
use core::ptr::{self, NonNull};

use crate::heap::{Heap, OutOfMemory};
use crate::pool::footprint;
use crate::sync::{AtomicU64, Ordering, fence};

/// An object with its count, as it lies in the heap.
pub(crate) struct Counted<T, H> {
    /// Number of references. 64 bits cannot overflow: counting up once per nanosecond would take 584 years.
    count: AtomicU64,
    heap: H,
    value: T,
}

/// A counted reference to a kernel object. The object goes when its last reference does, on the CPU that drops it.
#[repr(transparent)]
pub struct Ref<T, H: Heap> {
    object: NonNull<Counted<T, H>>,
    /// Dropping a reference may drop the object.
    owns: PhantomData<Counted<T, H>>,
}

// SAFETY: The count is atomic, so references on different CPUs may be cloned and dropped at once. They share the value
// (`T: Sync`) and the last one drops it on its own CPU (`T: Send`). The heap's handle is copied to the CPU that drops
// it.
unsafe impl<T: Send + Sync, H: Heap + Send> Send for Ref<T, H> {}
// SAFETY: A shared reference can be cloned, so sharing it gives what sending it gives.
unsafe impl<T: Send + Sync, H: Heap + Send> Sync for Ref<T, H> {}

impl<T, H: Heap> Ref<T, H> {
    /// Moves `value` to the heap. Without memory the value is dropped; see [`Vacant`] for knowing beforehand.
    ///
    /// # Errors
    /// The heap has no memory, or the value is larger than the heap supports.
    #[inline]
    pub fn try_new(heap: H, value: T) -> Result<Self, OutOfMemory> {
        Ok(Vacant::reserve(heap)?.fill(value))
    }

    /// Whether both refer to the same object.
    #[inline]
    #[must_use]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.object == other.object
    }

    /// Address of the object: its identity as long as a reference exists.
    #[inline]
    #[must_use]
    pub fn as_ptr(this: &Self) -> *const T {
        // SAFETY: The object lives as long as this reference. Only an address is computed, no reference is made.
        unsafe { &raw const (*this.object.as_ptr()).value }
    }

    /// Number of references at this moment: for audits and tests, since others may change it at any time.
    #[inline]
    #[must_use]
    pub fn count(this: &Self) -> u64 {
        this.counted().count.load(Ordering::Relaxed)
    }

    /// Gives up the reference without counting down: it lives on in the pointer, from which
    /// [`from_raw`](Self::from_raw) makes it again.
    #[inline]
    #[must_use = "the object is never freed if the pointer is lost"]
    pub fn into_raw(this: Self) -> NonNull<T> {
        let this = ManuallyDrop::new(this);
        // SAFETY: As in `as_ptr`; a field of an object is not at address 0.
        unsafe { NonNull::new_unchecked(&raw mut (*this.object.as_ptr()).value) }
    }

    /// The reference that [`into_raw`](Self::into_raw) turned into a pointer.
    ///
    /// # Safety
    /// `value` came from `into_raw` of the same types, and each such pointer is turned back at most once.
    #[inline]
    #[must_use]
    pub unsafe fn from_raw(value: NonNull<T>) -> Self {
        // SAFETY: By the contract `value` points to that field of a `Counted<T, H>`.
        let object = unsafe { value.byte_sub(offset_of!(Counted<T, H>, value)) };
        Self { object: object.cast(), owns: PhantomData }
    }

    #[inline]
    fn counted(&self) -> &Counted<T, H> {
        // SAFETY: This reference is counted, so the object is alive; its fields are never borrowed exclusively before
        // the last reference is gone.
        unsafe { self.object.as_ref() }
    }

    /// Drops the object, to which there is no reference any more, and returns its memory.
    #[cold]
    #[inline(never)]
    fn destroy(&mut self) {
        let object = self.object.as_ptr();
        // SAFETY: The count reached 0, so this CPU alone can reach the object; it is dropped here and never used again.
        // Its memory came from this heap's handle in `Vacant::reserve` with this layout.
        unsafe {
            let heap = (*object).heap;
            ptr::drop_in_place(object);
            heap.deallocate(self.object.cast(), Vacant::<T, H>::LAYOUT);
        }
    }
}

impl<T, H: Heap> Deref for Ref<T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T, H: Heap> Clone for Ref<T, H> {
    #[inline]
    fn clone(&self) -> Self {
        // Relaxed: whoever clones has a reference, so the count cannot reach 0 meanwhile, and no data depends on it.
        self.counted().count.fetch_add(1, Ordering::Relaxed);
        Self { object: self.object, owns: PhantomData }
    }
}

impl<T, H: Heap> Drop for Ref<T, H> {
    #[inline]
    fn drop(&mut self) {
        // Release: what this CPU did with the object happens before its destruction, wherever that is …
        if self.counted().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // … and Acquire: it happens here, after what all others did.
        fence(Ordering::Acquire);
        self.destroy();
    }
}

/// Memory that waits for an object: lets a system call find out whether there is memory before it changes anything.
pub struct Vacant<T, H: Heap> {
    object: NonNull<Counted<T, H>>,
    heap: H,
}

// SAFETY: It owns plain memory and a handle to the heap.
unsafe impl<T, H: Heap + Send> Send for Vacant<T, H> {}

impl<T, H: Heap> Vacant<T, H> {
    /// The memory that one object takes from the heap, its count included.
    pub const LAYOUT: Layout = Layout::new::<Counted<T, H>>();

    /// Bytes that one object costs in an [`ObjectPool`](crate::ObjectPool), for accounts.
    #[inline]
    #[must_use]
    pub fn footprint() -> u64 {
        footprint(Self::LAYOUT)
    }

    /// Takes memory for one `T`.
    ///
    /// # Errors
    /// The heap has no memory, or `T` is larger than the heap supports.
    #[inline]
    pub fn reserve(heap: H) -> Result<Self, OutOfMemory> {
        let memory = heap.allocate(Self::LAYOUT).ok_or(OutOfMemory)?;
        Ok(Self { object: memory.cast(), heap })
    }

    /// Puts the object in. Cannot fail.
    #[inline]
    pub fn fill(self, value: T) -> Ref<T, H> {
        let vacant = ManuallyDrop::new(self);
        // SAFETY: `reserve` took this memory for this type, and nobody else has it.
        unsafe { vacant.object.write(Counted { count: AtomicU64::new(1), heap: vacant.heap, value }) };
        Ref { object: vacant.object, owns: PhantomData }
    }
}

impl<T, H: Heap> Drop for Vacant<T, H> {
    fn drop(&mut self) {
        // SAFETY: `reserve` took the memory from this heap with this layout; `fill` would have kept this from running.
        unsafe { self.heap.deallocate(self.object.cast(), Self::LAYOUT) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::host::HostHeap;
    use std::cell::Cell;
    use std::rc::Rc;

    struct CountsDrops(Rc<Cell<u32>>);

    impl Drop for CountsDrops {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn the_object_is_dropped_once_with_its_last_reference() {
        let heap = HostHeap::leak();
        let drops = Rc::new(Cell::new(0));
        let first = Ref::try_new(heap, CountsDrops(drops.clone())).unwrap();
        let second = first.clone();
        assert_eq!((Ref::count(&first), heap.objects()), (2, 1));
        drop(first);
        assert_eq!((drops.get(), heap.objects()), (0, 1));
        drop(second);
        assert_eq!((drops.get(), heap.objects()), (1, 0));
    }

    #[test]
    fn without_memory_creation_fails_and_drops_the_value() {
        let heap = HostHeap::leak();
        heap.fail_after(0);
        let drops = Rc::new(Cell::new(0));
        assert_eq!(Ref::try_new(heap, CountsDrops(drops.clone())).err(), Some(OutOfMemory));
        assert_eq!((drops.get(), heap.objects()), (1, 0));
    }

    #[test]
    fn reserved_memory_takes_an_object_or_goes_back() {
        let heap = HostHeap::leak();
        let filled = Vacant::reserve(heap).unwrap();
        let unused = Vacant::<[u64; 8], _>::reserve(heap).unwrap();
        assert_eq!(heap.objects(), 2);
        let object = filled.fill(7_u8);
        drop(unused);
        assert_eq!((*object, heap.objects()), (7, 1));
    }

    #[test]
    fn references_are_equal_only_to_the_same_object() {
        let heap = HostHeap::leak();
        let (one, other) = (Ref::try_new(heap, 1).unwrap(), Ref::try_new(heap, 1).unwrap());
        assert!(Ref::ptr_eq(&one, &one.clone()));
        assert!(!Ref::ptr_eq(&one, &other));
        assert_eq!(Ref::as_ptr(&one), &raw const *one);
    }

    #[test]
    fn a_reference_survives_its_time_as_a_pointer() {
        let heap = HostHeap::leak();
        #[repr(align(64))]
        struct Aligned(u8);
        let pointer = Ref::into_raw(Ref::try_new(heap, Aligned(5)).unwrap());
        // SAFETY: The pointer comes from the line above and is turned back once.
        let object: Ref<Aligned, &HostHeap> = unsafe { Ref::from_raw(pointer) };
        assert_eq!((object.0, Ref::count(&object), Ref::as_ptr(&object) as usize % 64), (5, 1, 0));
    }

    #[test]
    fn threads_may_clone_and_drop_at_once() {
        let heap = HostHeap::leak();
        let object = Ref::try_new(heap, 3_u32).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let mine = object.clone();
                scope.spawn(move || (0..50).map(|_| *mine.clone()).sum::<u32>());
            }
        });
        assert_eq!(Ref::count(&object), 1);
    }
}
