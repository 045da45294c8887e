//! Pages that are cut into pieces of one size, and the list of those that have free ones.
#![expect(unsafe_code, reason = "the books are kept in the pages")]

use core::ptr::{self, NonNull};

use super::PIECE_ALIGN;
use crate::address::PAGE_SIZE;

/// What lies at the start of a page.
#[repr(C)]
pub(super) struct Page {
    next: *mut Page,
    previous: *mut Page,
    /// Pieces that were used and are free again.
    free: *mut FreePiece,
    /// Number of pieces at the page's end that were never used.
    untouched: usize,
    used: usize,
}

/// What lies at the start of a free piece.
struct FreePiece {
    next: *mut FreePiece,
}

const HEADER: usize = PIECE_ALIGN;
const _: () = assert!(size_of::<Page>() <= HEADER);

/// Number of pieces of this size in a page.
const fn capacity(size: usize) -> usize {
    (PAGE_SIZE as usize - HEADER) / size
}

/// The pages of one size that have free pieces, linked both ways. Full pages are in no list: a piece of theirs leads
/// back to them.
pub(super) struct Pages {
    first: *mut Page,
}

// SAFETY: The list owns the free pieces of its pages and their headers; nothing of that belongs to a CPU.
unsafe impl Send for Pages {}

impl Pages {
    pub(super) const EMPTY: Self = Self { first: ptr::null_mut() };

    pub(super) const fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Adds a page, to be cut into pieces of `size`.
    ///
    /// # Safety
    /// `page` is a frame that belongs to the caller, and from now on to the list, all of whose pieces have this size.
    pub(super) unsafe fn add(&mut self, page: NonNull<Page>, size: usize) {
        let null = ptr::null_mut();
        // SAFETY: The frame is the list's now.
        unsafe {
            page.write(Page { next: null, previous: null, free: ptr::null_mut(), untouched: capacity(size), used: 0 });
            self.link(page.as_ptr());
        }
    }

    /// A free piece; `None` if there is no page in the list.
    #[inline]
    pub(super) fn take_piece(&mut self, size: usize) -> Option<NonNull<u8>> {
        let page = NonNull::new(self.first)?;
        let header = page.as_ptr();
        // SAFETY: A page in the list belongs to it and has a free piece: if none that was used before, then one at its
        // end.
        unsafe {
            let piece = if let Some(piece) = NonNull::new((*header).free) {
                (*header).free = piece.read().next;
                piece.cast()
            } else {
                let piece = page.cast::<u8>().byte_add(HEADER + (capacity(size) - (*header).untouched) * size);
                (*header).untouched -= 1;
                piece
            };
            (*header).used += 1;
            if (*header).used == capacity(size) {
                self.unlink(header);
            }
            Some(piece)
        }
    }

    /// Takes a piece back. If that leaves its page without used pieces, gives up the page.
    ///
    /// # Safety
    /// `piece` came from `take_piece` of this list with the same size, and nobody uses it any more.
    #[inline]
    pub(super) unsafe fn give_piece(&mut self, piece: NonNull<u8>, size: usize) -> Option<NonNull<Page>> {
        let header = piece.as_ptr().map_addr(|address| address & !(PAGE_SIZE as usize - 1)).cast::<Page>();
        let piece = piece.cast::<FreePiece>();
        // SAFETY: By the contract, the piece is in a page that belongs to this list, whose header is at the page's
        // start. The page is in the list unless it was full.
        unsafe {
            piece.write(FreePiece { next: (*header).free });
            (*header).free = piece.as_ptr();
            if (*header).used == capacity(size) {
                self.link(header);
            }
            (*header).used -= 1;
            if (*header).used != 0 {
                return None;
            }
            self.unlink(header);
        }
        NonNull::new(header)
    }

    /// Puts a page in.
    ///
    /// # Safety
    /// The page belongs to the list and is not in it.
    unsafe fn link(&mut self, page: *mut Page) {
        // SAFETY: By the contract; the pages in the list belong to it, too.
        unsafe {
            (*page).next = self.first;
            (*page).previous = ptr::null_mut();
            if !self.first.is_null() {
                (*self.first).previous = page;
            }
        }
        self.first = page;
    }

    /// Takes a page out.
    ///
    /// # Safety
    /// The page is in the list.
    unsafe fn unlink(&mut self, page: *mut Page) {
        // SAFETY: By the contract; its neighbours are in the list, too.
        unsafe {
            let Page { next, previous, .. } = *page;
            if previous.is_null() {
                self.first = next;
            } else {
                (*previous).next = next;
            }
            if !next.is_null() {
                (*next).previous = previous;
            }
        }
    }
}
