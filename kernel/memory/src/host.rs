//! Memory of a simulated machine on the host: for the tests of this crate and of those that use it.
#![expect(unsafe_code, reason = "it implements the traits that promise memory")]

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::address::{HostPhys, PageSize};
use crate::heap::Heap;
use crate::physical::PhysicalMemory;

/// A heap over the host's allocator that counts its objects and runs dry on demand.
pub struct HostHeap {
    objects: AtomicU64,
    remaining: AtomicU64,
}

impl HostHeap {
    /// A heap that lives as long as the process, as a heap for kernel objects must.
    #[must_use]
    pub fn leak() -> &'static Self {
        /// Leak checkers do not count what a static leads to.
        static HEAPS: Mutex<Vec<&HostHeap>> = Mutex::new(Vec::new());
        let heap = Box::leak(Box::new(Self { objects: AtomicU64::new(0), remaining: AtomicU64::new(u64::MAX) }));
        HEAPS.lock().unwrap_or_else(PoisonError::into_inner).push(heap);
        heap
    }

    /// Number of objects alive.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.objects.load(Ordering::Relaxed)
    }

    /// Makes every allocation after the next `allocations` fail.
    pub fn fail_after(&self, allocations: u64) {
        self.remaining.store(allocations, Ordering::Relaxed);
    }
}

// SAFETY: The memory comes from and goes to the host's allocator with the caller's layout.
unsafe impl Heap for &'static HostHeap {
    fn allocate(self, layout: Layout) -> Option<NonNull<u8>> {
        self.remaining.try_update(Ordering::Relaxed, Ordering::Relaxed, |remaining| remaining.checked_sub(1)).ok()?;
        // SAFETY: `Heap` is asked only for layouts with a size.
        let memory = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        self.objects.fetch_add(1, Ordering::Relaxed);
        Some(memory)
    }

    unsafe fn deallocate(self, memory: NonNull<u8>, layout: Layout) {
        self.objects.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: The caller passes what `allocate` gave.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
    }
}

/// RAM of a simulated machine: zeroed memory of the host at a physical address of choice.
pub struct HostMemory {
    start: HostPhys,
    layout: Layout,
    content: NonNull<u8>,
}

// SAFETY: It owns its memory; who may touch which frame is the users' matter, as with real memory.
unsafe impl Send for HostMemory {}
// SAFETY: As above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// RAM of so many bytes, whole pages of which appear from `start` on.
    ///
    /// # Panics
    /// The host has no such memory, or there is nothing to allocate.
    #[must_use]
    pub fn new(start: HostPhys, bytes: u64) -> Self {
        assert!(bytes > 0 && start.is_aligned(PageSize::Size4K));
        let layout = usize::try_from(bytes).ok().and_then(|bytes| Layout::from_size_align(bytes, 4096).ok());
        let layout = layout.expect("the size of simulated RAM");
        // SAFETY: The size is not 0.
        let content = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory for simulated RAM");
        Self { start, layout, content }
    }

    /// The first address.
    #[must_use]
    pub const fn start(&self) -> HostPhys {
        self.start
    }

    /// Number of bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.layout.size() as u64
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout; what borrowed it is gone.
        unsafe { std::alloc::dealloc(self.content.as_ptr(), self.layout) };
    }
}

// SAFETY: The RAM is one allocation, which can be read and written as long as `self` lives.
unsafe impl PhysicalMemory for HostMemory {
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        let offset = address.checked_offset_from(self.start).filter(|&offset| offset < self.bytes());
        let offset = offset.expect("an address in simulated RAM");
        // SAFETY: The offset is inside of the allocation.
        unsafe { self.content.byte_add(offset as usize) }
    }
}

/// Settings of a property test with this many cases; Miri runs a few of them.
#[cfg(all(test, not(loom)))]
pub(crate) fn proptest_config(cases: u32) -> proptest::prelude::ProptestConfig {
    let cases = if cfg!(miri) { cases.div_ceil(100) } else { cases };
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}
