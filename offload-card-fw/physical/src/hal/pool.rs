//! Pages for devices. They are taken when a driver starts and given back when it ends, so a search is fast enough.

use alloc::vec;
use alloc::vec::Vec;
use core::ptr::NonNull;

use virtio_drivers::PAGE_SIZE;

use super::frames::{self, Run};

/// What the pool grows by: the kernel gives so much in one piece if it has such a piece.
const CHUNK_BYTES: usize = 2 << 20;

/// The largest pool.
const MAX_CHUNKS: usize = 8;

/// All memory that devices may reach.
pub(super) struct Pool {
    chunks: usize,
    runs: Vec<Pages>,
}

/// A run, and which of its pages are taken.
struct Pages {
    run: Run,
    taken: Vec<bool>,
}

// SAFETY: the pointers lead to memory that stays mapped in all threads; who may access which page is as the pool says.
unsafe impl Send for Pool {}

impl Pool {
    pub(super) const fn new() -> Self {
        Self { chunks: 0, runs: Vec::new() }
    }

    /// Zeroed pages in one piece, and their physical address. `None` if the pool cannot grow any more.
    pub(super) fn take(&mut self, pages: usize) -> Option<(u64, NonNull<u8>)> {
        if pages == 0 {
            return None;
        }
        if let Some(found) = self.take_present(pages) {
            return Some(found);
        }
        if self.chunks >= MAX_CHUNKS {
            return None;
        }
        self.chunks += 1;
        frames::commit(CHUNK_BYTES, |run| self.runs.push(Pages { run, taken: vec![false; run.pages] }))?;
        self.take_present(pages)
    }

    fn take_present(&mut self, pages: usize) -> Option<(u64, NonNull<u8>)> {
        self.runs.iter_mut().find_map(|part| {
            let first = part.taken.windows(pages).position(|window| !window.contains(&true))?;
            part.taken.get_mut(first..first + pages)?.fill(true);
            // SAFETY: `first` is a page of the run.
            let start = unsafe { part.run.start.add(first * PAGE_SIZE) };
            // SAFETY: the pages are mapped, and nobody has them.
            unsafe { start.write_bytes(0, pages * PAGE_SIZE) };
            Some((part.run.address + (first * PAGE_SIZE) as u64, start))
        })
    }

    /// Takes pages back that [`Self::take`] gave.
    pub(super) fn give(&mut self, address: u64, pages: usize) {
        for part in &mut self.runs {
            let first = address.checked_sub(part.run.address).map(|offset| offset as usize / PAGE_SIZE);
            if let Some(taken) = first.and_then(|first| part.taken.get_mut(first..first.checked_add(pages)?)) {
                taken.fill(false);
            }
        }
    }

    /// Where a device finds memory of the pool.
    pub(super) fn address_of(&self, start: NonNull<u8>, bytes: usize) -> Option<u64> {
        self.runs.iter().find_map(|Pages { run, .. }| {
            let offset = start.as_ptr().addr().checked_sub(run.start.as_ptr().addr())?;
            (offset.checked_add(bytes)? <= run.pages * PAGE_SIZE).then(|| run.address + offset as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_belong_to_one_taker_and_come_back_zeroed() {
        let mut pool = Pool::new();
        let (first, start) = pool.take(3).unwrap();
        let (second, _) = pool.take(1).unwrap();
        assert_eq!(second, first + 3 * PAGE_SIZE as u64);
        // SAFETY: these pages were just taken.
        unsafe { start.write_bytes(7, 3 * PAGE_SIZE) };
        pool.give(first, 3);
        let (again, start) = pool.take(2).unwrap();
        assert_eq!(again, first);
        // SAFETY: as above.
        assert!((0..2 * PAGE_SIZE).all(|at| unsafe { start.add(at).read() } == 0));
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = Pool::new();
        let chunk = CHUNK_BYTES / PAGE_SIZE;
        assert!((0..MAX_CHUNKS).all(|_| pool.take(chunk).is_some()));
        assert!(pool.take(1).is_none());
        assert!(Pool::new().take(chunk + 1).is_none());
        assert!(Pool::new().take(0).is_none());
    }

    #[test]
    fn only_memory_of_the_pool_has_an_address() {
        let mut pool = Pool::new();
        let (address, start) = pool.take(1).unwrap();
        assert_eq!(pool.address_of(start, CHUNK_BYTES), Some(address));
        assert_eq!(pool.address_of(start, CHUNK_BYTES + 1), None);
        assert_eq!(pool.address_of(NonNull::dangling(), 1), None);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use dragonfly_virtqueue::{GuestAddress, MemoryMap};
    use virtio_drivers::PAGE_SIZE;

    use crate::hal::POOL;

    /// All memory that a device reaches.
    pub(crate) fn device_memory() -> MemoryMap {
        let mut map = MemoryMap::new();
        for part in &POOL.lock().runs {
            let run = part.run;
            // SAFETY: the memory stays mapped. The drivers copy from and to it as the device does, and never at the same
            // time: the test's device works when it is called.
            unsafe { map.add(GuestAddress(run.address), (run.pages * PAGE_SIZE) as u64, run.start) }.unwrap();
        }
        map
    }
}
