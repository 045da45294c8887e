//! Sole ownership of an object in the heap: a `Box` whose allocation can fail.
#![expect(unsafe_code, reason = "the owner frees the object's memory")]

use core::alloc::Layout;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use crate::heap::{Heap, OutOfMemory};

/// An object with one owner.
pub struct Unique<T, H: Heap> {
    object: NonNull<T>,
    heap: H,
    owns: PhantomData<T>,
}

// SAFETY: It owns the object, and the heap's handle goes along.
unsafe impl<T: Send, H: Heap + Send> Send for Unique<T, H> {}
// SAFETY: Shared, it gives only `&T`.
unsafe impl<T: Sync, H: Heap + Sync> Sync for Unique<T, H> {}

impl<T, H: Heap> Unique<T, H> {
    /// Moves `value`, whose size is not 0, to the heap. Without memory it is dropped.
    ///
    /// # Errors
    /// The heap has no memory, or the value is larger than the heap supports.
    pub fn try_new(heap: H, value: T) -> Result<Self, OutOfMemory> {
        const { assert!(size_of::<T>() > 0) };
        let object = heap.allocate(Layout::new::<T>()).ok_or(OutOfMemory)?.cast();
        // SAFETY: The memory was allocated for this type, and nobody else has it.
        unsafe { object.write(value) };
        Ok(Self { object, heap, owns: PhantomData })
    }
}

impl<T, H: Heap> Deref for Unique<T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: The object lives as long as its owner.
        unsafe { self.object.as_ref() }
    }
}

impl<T, H: Heap> DerefMut for Unique<T, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: The object lives as long as its owner, which is borrowed exclusively.
        unsafe { self.object.as_mut() }
    }
}

impl<T, H: Heap> Drop for Unique<T, H> {
    fn drop(&mut self) {
        // SAFETY: The object goes with its owner. Its memory came from this heap with this layout.
        unsafe {
            ptr::drop_in_place(self.object.as_ptr());
            self.heap.deallocate(self.object.cast(), Layout::new::<T>());
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::host::HostHeap;

    #[test]
    fn the_object_goes_with_its_owner() {
        let heap = HostHeap::leak();
        let counted = std::rc::Rc::new(());
        let mut object = Unique::try_new(heap, (1, counted.clone())).unwrap();
        object.0 += 1;
        assert_eq!((object.0, heap.objects(), std::rc::Rc::strong_count(&counted)), (2, 1, 2));
        drop(object);
        assert_eq!((heap.objects(), std::rc::Rc::strong_count(&counted)), (0, 1));
    }

    #[test]
    fn without_memory_there_is_no_object() {
        let heap = HostHeap::leak();
        heap.fail_after(0);
        assert_eq!(Unique::try_new(heap, 1).err(), Some(OutOfMemory));
    }
}
