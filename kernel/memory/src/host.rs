//! Memory of a simulated machine on the host: for the tests of this crate and of those that use it.
#![expect(unsafe_code, reason = "it implements the traits that promise memory")]

use core::alloc::Layout;
use core::any::Any;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::address::{HostPhys, PAGE_SIZE, PageSize};
use crate::frames::{Frames, NodeFrames};
use crate::heap::Heap;
use crate::lock::Relax;
use crate::physical::PhysicalMemory;
use crate::pool::ObjectPool;

/// A heap over the host's allocator that counts its objects and runs dry on demand.
pub struct HostHeap {
    objects: AtomicU64,
    remaining: AtomicU64,
}

impl HostHeap {
    /// A heap that lives as long as the process, as a heap for kernel objects must.
    #[must_use]
    pub fn leak() -> &'static Self {
        leak(Self { objects: AtomicU64::new(0), remaining: AtomicU64::new(u64::MAX) })
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
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: The layout has a size.
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
    bytes: u64,
    allocation: NonNull<u8>,
    /// The first page in the allocation.
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
    /// The host has no such memory.
    #[must_use]
    pub fn new(start: HostPhys, bytes: u64) -> Self {
        assert!(start.is_aligned(PageSize::Size4K), "RAM starts with a page");
        // SAFETY: The size is not 0.
        let allocation = NonNull::new(unsafe { std::alloc::alloc_zeroed(Self::layout(bytes)) });
        let allocation = allocation.expect("memory for simulated RAM");
        // SAFETY: The allocation is larger than the RAM by what this may skip.
        let content = unsafe { allocation.byte_add(allocation.align_offset(PAGE_SIZE as usize)) };
        Self { start, bytes, allocation, content }
    }

    /// Memory with room for aligning it: asked for as aligned, the host would write zeros to it instead of promising
    /// them.
    fn layout(bytes: u64) -> Layout {
        let layout = usize::try_from(bytes + PAGE_SIZE).ok().and_then(|bytes| Layout::from_size_align(bytes, 8).ok());
        layout.expect("the size of simulated RAM")
    }

    /// The first address.
    #[must_use]
    pub const fn start(&self) -> HostPhys {
        self.start
    }

    /// Number of bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout; what borrowed it is gone.
        unsafe { std::alloc::dealloc(self.allocation.as_ptr(), Self::layout(self.bytes)) };
    }
}

// SAFETY: The RAM is one allocation, which can be read and written as long as `self` lives.
unsafe impl PhysicalMemory for HostMemory {
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        let offset = address.checked_offset_from(self.start).filter(|&offset| offset < self.bytes);
        let offset = offset.expect("an address in simulated RAM");
        // SAFETY: The offset is inside of the allocation.
        unsafe { self.content.byte_add(offset as usize) }
    }

    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        let offset = pointer.addr().get().wrapping_sub(self.content.addr().get()) as u64;
        assert!(offset < self.bytes, "a pointer into simulated RAM");
        self.start.wrapping_add(offset)
    }
}

/// Waiting as threads of the host do it.
pub struct HostRelax;

impl Relax for HostRelax {
    fn relax() {
        #[cfg(not(loom))]
        std::thread::yield_now();
        #[cfg(loom)]
        loom::thread::yield_now();
    }
}

/// RAM of a simulated machine with its frame allocator.
pub type HostFrames = Frames<&'static HostMemory, HostRelax>;
/// Kernel objects of a simulated machine.
pub type HostPool = ObjectPool<NodeFrames<'static, &'static HostMemory, HostRelax>, HostRelax>;

/// The memory of a simulated machine. It lives as long as the process, as that of a kernel does.
#[derive(Clone, Copy)]
pub struct HostMachine {
    /// All of its RAM, in zone 0.
    pub frames: &'static HostFrames,
    /// Kernel objects, in those frames.
    pub pool: &'static HostPool,
}

impl HostMachine {
    /// A machine with RAM of so many bytes from address 16 MiB on.
    ///
    /// # Panics
    /// As for [`HostMemory::new`].
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let memory = leak(HostMemory::new(HostPhys::new(16 << 20), bytes));
        let frames = leak(Frames::new(memory));
        // SAFETY: The memory is this machine's, and all use of it goes through the allocator.
        let added = unsafe { frames.lock().add_range(memory.start(), memory.bytes(), 0) };
        added.expect("one range of RAM in an empty allocator");
        Self { frames, pool: leak(ObjectPool::new(NodeFrames::new(frames, 0))) }
    }
}

/// Keeps a value for ever, in sight of leak checkers.
fn leak<T: Send + Sync>(value: T) -> &'static T {
    static KEPT: Mutex<Vec<&(dyn Any + Send + Sync)>> = Mutex::new(Vec::new());
    let value: &'static T = Box::leak(Box::new(value));
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    value
}

/// Settings of a property test with this many cases; Miri runs one or two of them.
#[cfg(all(test, not(loom)))]
pub(crate) fn proptest_config(cases: u32) -> proptest::prelude::ProptestConfig {
    let cases = if cfg!(miri) { cases.div_ceil(200) } else { cases };
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

/// How many steps a property test takes at most; Miri takes a sixth of them.
#[cfg(all(test, not(loom)))]
pub(crate) const fn proptest_steps(steps: usize) -> usize {
    if cfg!(miri) { steps.div_ceil(6) } else { steps }
}
