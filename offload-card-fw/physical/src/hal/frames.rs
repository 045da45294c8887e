//! Where the pool's memory comes from.

use core::ptr::NonNull;

/// Memory that stays mapped for good and that a device finds in one piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Physical address, of a page.
    pub(super) address: u64,
    /// Where it is mapped.
    pub(super) start: NonNull<u8>,
    /// Size in pages.
    pub(super) pages: usize,
}

/// In a domain: a memory object that lives as long as the domain.
#[cfg(target_os = "none")]
pub(super) fn commit(bytes: usize, mut add: impl FnMut(Run)) -> Option<()> {
    use core::{mem, ptr};

    use dragonfly_rt::Mapping;
    use dragonfly_rt::abi::{PAGE_SIZE, Rights};
    use dragonfly_rt::sys::{Commit, Memory, System};

    let size = bytes as u64;
    let memory = Memory::create(size, Commit::Explicit).ok()?;
    memory.commit(0, size).ok()?;
    let mapping = Mapping::new(*memory, 0, size, Rights::READ | Rights::WRITE).ok()?;
    let mut offset = 0;
    while offset < size {
        let range = System::OWN.memory_address(*memory, offset).ok()?;
        let length = range.length.min(size - offset) / PAGE_SIZE * PAGE_SIZE;
        let start = NonNull::new(ptr::with_exposed_provenance_mut((mapping.address() + offset) as usize))?;
        if length == 0 {
            return None;
        }
        add(Run { address: range.address, start, pages: (length / PAGE_SIZE) as usize });
        offset += length;
    }
    // Devices have its addresses from now on.
    mem::forget((memory, mapping));
    Some(())
}

/// On a host: memory of the test, whose addresses its devices use as physical ones.
#[cfg(not(target_os = "none"))]
pub(super) fn commit(bytes: usize, mut add: impl FnMut(Run)) -> Option<()> {
    use alloc::alloc::{Layout, alloc_zeroed};

    use virtio_drivers::PAGE_SIZE;

    let layout = Layout::from_size_align(bytes, PAGE_SIZE).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the size is not 0. The memory is never freed.
    let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
    add(Run { address: start.as_ptr().expose_provenance() as u64, start, pages: bytes / PAGE_SIZE });
    Some(())
}
