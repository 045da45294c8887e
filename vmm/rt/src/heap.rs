//! The heap of the domain.
#![expect(unsafe_code, reason = "a global allocator hands out raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use dragonfly_abi::{PAGE_SIZE, Rights};

use crate::address_space;
use crate::growing_heap::{GrowingHeap, Source};
use crate::sync::Mutex;
use crate::sys::{Commit, Domain, Memory};

/// One memory object, mapped over the heap's whole range at the first use and committed step by step: so a lack of
/// memory shows as a failed allocation and not as a fault.
struct DomainMemory {
    memory: Option<Memory>,
    committed: u64,
}

// SAFETY: the pieces are consecutive parts of a mapping that is this value's own and is never removed.
unsafe impl Source for DomainMemory {
    fn next(&mut self, size: usize) -> Option<(*mut u8, usize)> {
        let (start, end) = address_space::heap_range()?;
        let memory = match self.memory {
            Some(memory) => memory,
            None => {
                let memory = Memory::create(end.checked_sub(start)?, Commit::OnDemand).ok()?;
                memory.map(Domain::OWN, start, 0, end - start, Rights::READ | Rights::WRITE).ok()?;
                *self.memory.insert(memory.keep())
            }
        };
        let size = u64::try_from(size).ok()?.checked_next_multiple_of(PAGE_SIZE)?;
        if size > end - start - self.committed {
            return None;
        }
        memory.commit(self.committed, size).ok()?;
        let piece = ptr::with_exposed_provenance_mut((start + self.committed) as usize);
        self.committed += size;
        Some((piece, usize::try_from(size).ok()?))
    }
}

static HEAP: Mutex<GrowingHeap<DomainMemory>> =
    Mutex::new(GrowingHeap::new(DomainMemory { memory: None, committed: 0 }));

/// The allocator of every domain's program.
struct DomainAllocator;

#[global_allocator]
static ALLOCATOR: DomainAllocator = DomainAllocator;

// SAFETY: the lock keeps allocations apart, and the heap gives each piece out once.
unsafe impl GlobalAlloc for DomainAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.lock().allocate(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if let Some(memory) = NonNull::new(memory) {
            // SAFETY: the caller's promise.
            unsafe { HEAP.lock().deallocate(memory, layout) }
        }
    }
}

/// How many bytes of the heap are in use, and how many it has.
#[must_use]
pub fn usage() -> (usize, usize) {
    HEAP.lock().usage()
}
