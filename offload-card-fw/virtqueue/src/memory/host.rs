//! Guest memory of a simulated guest, allocated on the host.

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use super::{GuestAddress, GuestMemory, GuestSlice, MemoryError, MemoryMap};

/// Regions are aligned as those of real guests are.
const PAGE: usize = 4096;

/// Guest memory of a simulated guest: zero at first. Reached only as guest memory, from any thread.
#[derive(Debug)]
pub struct HostMemory {
    map: MemoryMap,
}

impl HostMemory {
    /// Memory with these regions, by guest address and bytes.
    ///
    /// # Panics
    /// If a region is empty, wraps, overlaps another or does not fit.
    #[must_use]
    pub fn new(regions: &[(u64, usize)]) -> Self {
        let mut map = MemoryMap::new();
        for &(base, len) in regions {
            let layout = layout(len);
            assert!(len > 0, "an empty region");
            // SAFETY: The layout has bytes.
            let bytes = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
            // SAFETY: The bytes live until `self` is dropped, and nobody else knows them.
            unsafe { map.add(GuestAddress(base), len as u64, bytes) }.expect("a region that can be added");
        }
        Self { map }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        let bases: Vec<_> = self.map.regions().map(|(base, _)| base).collect();
        for (bytes, len) in bases.into_iter().filter_map(|base| self.map.remove(base)) {
            // SAFETY: Allocated with this layout in `new`; slices borrow `self`, so there are none any more.
            unsafe { dealloc(bytes.as_ptr(), layout(len as usize)) };
        }
    }
}

impl GuestMemory for HostMemory {
    #[inline]
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.map.piece(address, limit)
    }
}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, PAGE).expect("a region that fits")
}
