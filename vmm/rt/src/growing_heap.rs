//! `linked_list_allocator` with memory that is fetched as it is needed.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use core::alloc::Layout;
use core::ptr::NonNull;

use linked_list_allocator::Heap;

/// How much the heap grows at least when it is full, in bytes: seldom enough that the calls do not count.
const STEP: usize = 64 * 1024;

/// What `linked_list_allocator` may need beside the bytes asked for: its node, and padding before an aligned part.
const OVERHEAD: usize = 64;

/// Where a heap's memory comes from.
///
/// # Safety
/// Each piece given is usable memory that nobody else uses, and starts where the one before ended.
pub(crate) unsafe trait Source {
    /// The next piece, of at least so many bytes; `None` if there is no more.
    fn next(&mut self, size: usize) -> Option<(*mut u8, usize)>;
}

/// A heap that grows.
pub(crate) struct GrowingHeap<S> {
    heap: Heap,
    source: S,
}

impl<S: Source> GrowingHeap<S> {
    pub(crate) const fn new(source: S) -> Self {
        Self { heap: Heap::empty(), source }
    }

    pub(crate) fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        if let Ok(memory) = self.heap.allocate_first_fit(layout) {
            return Some(memory);
        }
        self.grow(layout)?;
        self.heap.allocate_first_fit(layout).ok()
    }

    /// Makes room for one allocation of this layout.
    #[cold]
    fn grow(&mut self, layout: Layout) -> Option<()> {
        let least = layout.size().checked_add(layout.align())?.checked_add(OVERHEAD)?;
        let (start, size) = self.source.next(least.max(STEP))?;
        if self.heap.size() == 0 {
            // SAFETY: the source gives memory that nobody else uses.
            unsafe { self.heap.init(start, size) };
        } else {
            // SAFETY: the piece starts where the heap ends: the source's contract.
            unsafe { self.heap.extend(size) };
        }
        Some(())
    }

    /// Bytes in use, and bytes in all.
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.heap.used(), self.heap.size())
    }

    /// # Safety
    /// The memory was given by `allocate` for the same layout and is not used any more.
    pub(crate) unsafe fn deallocate(&mut self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.heap.deallocate(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use core::alloc::Layout;
    use core::ptr::NonNull;

    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::{GrowingHeap, STEP, Source};
    use crate::testing::property_config;

    /// Pieces of one block of the host's memory.
    struct Block {
        memory: Vec<u64>,
        given: usize,
    }

    impl Block {
        fn new(size: usize) -> Self {
            Self { memory: vec![0; size / 8], given: 0 }
        }
    }

    // SAFETY: consecutive parts of a block that nothing else uses.
    unsafe impl Source for Block {
        fn next(&mut self, size: usize) -> Option<(*mut u8, usize)> {
            let size = size.next_multiple_of(4096);
            if size > self.memory.len() * 8 - self.given {
                return None;
            }
            // SAFETY: within the block.
            let piece = unsafe { self.memory.as_mut_ptr().cast::<u8>().add(self.given) };
            self.given += size;
            Some((piece, size))
        }
    }

    #[test]
    fn an_allocation_larger_than_a_step_grows_the_heap_once() {
        let mut heap = GrowingHeap::new(Block::new(8 * STEP));
        let layout = Layout::from_size_align(5 * STEP, 4096).unwrap();
        let memory = heap.allocate(layout).unwrap();
        assert_eq!(memory.as_ptr() as usize % 4096, 0);
        // SAFETY: allocated above with this layout.
        unsafe { heap.deallocate(memory, layout) };
        let given = heap.source.given;
        assert_eq!(heap.allocate(layout), Some(memory));
        assert_eq!(heap.source.given, given);
    }

    #[test]
    fn without_more_memory_an_allocation_fails_and_smaller_ones_go_on() {
        let mut heap = GrowingHeap::new(Block::new(2 * STEP));
        assert_eq!(heap.allocate(Layout::from_size_align(3 * STEP, 8).unwrap()), None);
        assert_eq!(heap.allocate(Layout::from_size_align(usize::MAX / 4, 8).unwrap()), None);
        assert!(heap.allocate(Layout::new::<u64>()).is_some());
    }

    /// Miri looks at each byte of each.
    const LARGEST: usize = if cfg!(miri) { 900 } else { 9000 };

    proptest! {
        #![proptest_config(property_config())]

        #[test]
        fn allocations_never_overlap_and_all_memory_comes_back(
            steps in prop::collection::vec((1..LARGEST, 0_u32..9, prop::bool::ANY), 1..60)
        ) {
            let mut heap = GrowingHeap::new(Block::new(16 * STEP));
            let mut taken: Vec<(NonNull<u8>, Layout, u8)> = Vec::new();
            for (number, (size, power, give_back)) in steps.into_iter().enumerate() {
                if give_back && !taken.is_empty() {
                    let (memory, layout, mark) = taken.swap_remove(size % taken.len());
                    // SAFETY: allocated and filled below.
                    let bytes = unsafe { core::slice::from_raw_parts(memory.as_ptr(), layout.size()) };
                    prop_assert!(bytes.iter().all(|byte| *byte == mark));
                    // SAFETY: allocated below with this layout.
                    unsafe { heap.deallocate(memory, layout) };
                } else {
                    let layout = Layout::from_size_align(size, 1 << power).unwrap();
                    if let Some(memory) = heap.allocate(layout) {
                        prop_assert_eq!(memory.as_ptr() as usize % layout.align(), 0);
                        // SAFETY: just allocated.
                        unsafe { memory.as_ptr().write_bytes(number as u8, size) };
                        taken.push((memory, layout, number as u8));
                    }
                }
            }
            for (memory, layout, _) in taken {
                // SAFETY: allocated above with this layout.
                unsafe { heap.deallocate(memory, layout) };
            }
            prop_assert_eq!(heap.usage().0, 0);
        }
    }
}
