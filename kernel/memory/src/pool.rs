//! Memory for kernel objects: frames cut into pieces of a few sizes.
//!
//! A piece's page is found by its address, and the page's first bytes say which of its pieces are free. A page without
//! used pieces goes back to the frame source at once, so that what is freed is free for everybody. A piece above
//! [`LARGEST_PIECE`] is a frame of its own.
#![expect(unsafe_code, reason = "it gives out memory")]

use core::alloc::Layout;
use core::ptr::NonNull;

use crate::address::PAGE_SIZE;
use crate::heap::Heap;
use crate::lock::{Lock, Relax};
use crate::physical::FrameSource;
use page::{Page, Pages};

mod page;
#[cfg(all(test, not(loom)))]
mod tests;

/// The sizes of pieces. A type whose size needs rounding up to one of them still finds its alignment, which divides its
/// own size: 48 and 96 are never the next size to a multiple of 32 and 64, respectively.
const PIECES: [usize; 13] = [32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 960, 1344, LARGEST_PIECE];
/// Bytes of the largest object that shares its page with others.
pub const LARGEST_PIECE: usize = 1984;
/// The largest alignment within a page.
const PIECE_ALIGN: usize = 64;
const PIECE_UNIT: usize = 16;

/// The index in `PIECES` of the smallest size that fits, by size in units.
const CLASSES: [u8; LARGEST_PIECE / PIECE_UNIT + 1] = {
    let mut classes = [0; LARGEST_PIECE / PIECE_UNIT + 1];
    let (mut units, mut class) = (0, 0);
    while units < classes.len() {
        if units * PIECE_UNIT > PIECES[class as usize] {
            class += 1;
        }
        classes[units] = class;
        units += 1;
    }
    classes
};

/// The index of the piece that fits; `None` if the object needs a frame of its own.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    if layout.align() > PIECE_ALIGN {
        return None;
    }
    let units = layout.pad_to_align().size().div_ceil(PIECE_UNIT);
    CLASSES.get(units).map(|&class| usize::from(class))
}

/// Bytes that an object of this layout costs, for accounts.
#[inline]
#[must_use]
pub fn footprint(layout: Layout) -> u64 {
    class_of(layout).map_or(PAGE_SIZE, |class| PIECES[class] as u64)
}

/// Memory for kernel objects of up to a frame, from the frames of `S`. Each size has a lock of its own, under which the
/// frame source is called.
pub struct ObjectPool<S, R> {
    source: S,
    classes: [Lock<Pages, R>; PIECES.len()],
}

impl<S, R> ObjectPool<S, R> {
    /// A pool without memory.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(source: S) -> Self {
        Self { source, classes: [const { Lock::new(Pages::EMPTY) }; PIECES.len()] }
    }

    /// A pool without memory.
    #[cfg(loom)]
    #[must_use]
    pub fn new(source: S) -> Self {
        Self { source, classes: core::array::from_fn(|_| Lock::new(Pages::EMPTY)) }
    }
}

impl<S: FrameSource, R: Relax> ObjectPool<S, R> {
    /// Uninitialised memory; `None` if no frame is left or the layout does not fit into a frame.
    pub fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        let Some((lock, size)) = self.class(layout) else {
            let fits = layout.size() <= PAGE_SIZE as usize && layout.align() <= PAGE_SIZE as usize;
            return fits.then(|| self.source.take_frame())?.map(|frame| self.source.pointer(frame));
        };
        let mut pages = lock.lock();
        if pages.is_empty() {
            let page = self.source.pointer(self.source.take_frame()?).cast::<Page>();
            // SAFETY: The frame is this pool's until the page is empty again.
            unsafe { pages.add(page, size) };
        }
        pages.take_piece(size)
    }

    /// Takes memory back.
    ///
    /// # Safety
    /// `memory` came from `allocate` of this pool with the same layout, and nobody uses it any more.
    pub unsafe fn deallocate(&self, memory: NonNull<u8>, layout: Layout) {
        let unused = match self.class(layout) {
            None => Some(memory),
            // SAFETY: The layout says that the piece was taken from these pages.
            Some((lock, size)) => unsafe { lock.lock().give_piece(memory, size) }.map(NonNull::cast),
        };
        if let Some(page) = unused {
            // SAFETY: The frame came from this source, and no part of it is used any more.
            unsafe { self.source.give_frame(self.source.address(page)) };
        }
    }

    #[inline]
    fn class(&self, layout: Layout) -> Option<(&Lock<Pages, R>, usize)> {
        let class = class_of(layout)?;
        Some((self.classes.get(class)?, *PIECES.get(class)?))
    }
}

// SAFETY: A pool gives a piece to one owner at a time, aligned as `PIECES` explains, and lives for ever.
unsafe impl<S: FrameSource + Sync, R: Relax> Heap for &'static ObjectPool<S, R> {
    #[inline]
    fn allocate(self, layout: Layout) -> Option<NonNull<u8>> {
        ObjectPool::allocate(self, layout)
    }

    #[inline]
    unsafe fn deallocate(self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: The caller keeps the same contract.
        unsafe { ObjectPool::deallocate(self, memory, layout) };
    }
}
