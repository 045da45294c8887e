//! The free blocks of one zone, a doubly linked list for each order, linked through the blocks' own first bytes.
#![expect(unsafe_code, reason = "free frames hold the links")]

use core::ptr::NonNull;

use super::MAX_ORDER;
use super::range::{Range, State};
use crate::address::{HostPhys, PAGE_SHIFT};
use crate::physical::PhysicalMemory;

/// The end of a list.
const NONE: u64 = u64::MAX;

/// What lies at the start of a free block: its neighbours in the list, as frame numbers.
#[repr(C)]
struct FreeBlock {
    next: u64,
    previous: u64,
}

/// The free blocks of one zone.
pub(super) struct Zone {
    /// The first free block of each order, as a frame number.
    lists: [u64; MAX_ORDER as usize + 1],
    /// Bit n is set if there is a free block of order n.
    orders: u32,
    free_frames: u64,
}

impl Zone {
    pub(super) const EMPTY: Self = Self { lists: [NONE; MAX_ORDER as usize + 1], orders: 0, free_frames: 0 };

    pub(super) const fn free_frames(&self) -> u64 {
        self.free_frames
    }

    /// The smallest free block of at least this order: its first frame and its order.
    #[inline]
    pub(super) fn smallest(&self, order: u32) -> Option<(u64, u32)> {
        let orders = self.orders.checked_shr(order).filter(|&orders| orders != 0)?;
        let available = order + orders.trailing_zeros();
        Some((*self.lists.get(available as usize)?, available))
    }

    /// Makes a block free that belongs to nobody else.
    #[inline]
    pub(super) fn insert<M: PhysicalMemory>(&mut self, memory: &M, range: &Range, frame: u64, order: u32) {
        range.set_state(memory, frame, State::free(order));
        let head = &mut self.lists[order as usize];
        // SAFETY: The block becomes this list's; the list's first block, if any, is one already.
        unsafe {
            free_block(memory, frame).write(FreeBlock { next: *head, previous: NONE });
            if *head != NONE {
                (*free_block(memory, *head).as_ptr()).previous = frame;
            }
        }
        *head = frame;
        self.orders |= 1 << order;
        self.free_frames += 1 << order;
    }

    /// Takes a free block of this order out, to become somebody's or part of a larger one. Its state is the caller's to
    /// set.
    #[inline]
    pub(super) fn remove<M: PhysicalMemory>(&mut self, memory: &M, frame: u64, order: u32) {
        let head = &mut self.lists[order as usize];
        // SAFETY: The block and its neighbours are in the list of this order, so they are free and belong to it.
        unsafe {
            let FreeBlock { next, previous } = free_block(memory, frame).read();
            match previous {
                NONE => *head = next,
                _ => (*free_block(memory, previous).as_ptr()).next = next,
            }
            if next != NONE {
                (*free_block(memory, next).as_ptr()).previous = previous;
            }
        }
        if *head == NONE {
            self.orders &= !(1 << order);
        }
        self.free_frames -= 1 << order;
    }
}

#[inline]
fn free_block<M: PhysicalMemory>(memory: &M, frame: u64) -> NonNull<FreeBlock> {
    memory.pointer(HostPhys::new(frame << PAGE_SHIFT)).cast()
}
