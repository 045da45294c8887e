//! A range of RAM and the states of its frames.
#![expect(unsafe_code, reason = "the states lie in the range itself")]

use super::{FrameUse, MAX_ORDER};
use crate::address::{HostPhys, PAGE_SHIFT, PAGE_SIZE};
use crate::physical::PhysicalMemory;

/// What a frame is: the first of a free or of an allocated block, or inside of either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub(super) struct State(u8);

impl State {
    /// Not the first of its block.
    pub(super) const INTERIOR: Self = Self(0xff);
    const ORDER: u8 = 0x1f;
    const USE: u8 = 0xe0;

    /// The first of a free block.
    #[inline]
    pub(super) const fn free(order: u32) -> Self {
        Self(order as u8)
    }

    /// The first of an allocated block.
    #[inline]
    pub(super) const fn allocated(frame_use: FrameUse, order: u32) -> Self {
        match frame_use {
            FrameUse::Object => Self(0x20 | order as u8),
            FrameUse::Kernel => Self(0x40 | order as u8),
        }
    }

    #[inline]
    pub(super) const fn is_free(self) -> bool {
        self.0 & Self::USE == 0
    }

    /// The block's order, if it is the first of one.
    #[inline]
    pub(super) const fn order(self) -> u32 {
        (self.0 & Self::ORDER) as u32
    }
}

/// A range of whole frames, some of which hold the states of the others. All numbers are frame numbers.
#[derive(Clone, Copy)]
pub(super) struct Range {
    /// The whole range.
    start: u64,
    end: u64,
    /// The frames managed: all but the table of states.
    first: u64,
    count: u64,
    states: HostPhys,
    zone: usize,
}

impl Range {
    pub(super) const EMPTY: Self = Self { start: 0, end: 0, first: 0, count: 0, states: HostPhys::new(0), zone: 0 };

    /// Divides a range into managed frames and their states, one byte each.
    pub(super) const fn new(start: u64, frames: u64, zone: usize) -> Self {
        // One frame holds the states of 4096 others.
        let table = frames.div_ceil(PAGE_SIZE + 1);
        let (end, count) = (start + frames, frames - table);
        // The less aligned end is the one that cannot be part of a large block anyway.
        let (first, states) = if start.trailing_zeros() <= end.trailing_zeros() {
            (start + table, start)
        } else {
            (start, start + count)
        };
        Self { start, end, first, count, states: HostPhys::new(states << PAGE_SHIFT), zone }
    }

    /// Gives all frames a state, as if inside of blocks.
    ///
    /// # Safety
    /// `memory` reaches the range and nobody else uses it. All other functions rely on that, too.
    pub(super) unsafe fn initialise<M: PhysicalMemory>(&self, memory: &M) {
        let states = memory.pointer(self.states);
        // SAFETY: The table has a byte for each frame managed; the caller gives it to the range.
        unsafe { states.write_bytes(State::INTERIOR.0, self.count as usize) };
    }

    /// The managed frames in as few blocks as possible, as first frame and order.
    pub(super) fn blocks(self) -> impl Iterator<Item = (u64, u32)> {
        let (mut frame, end) = (self.first, self.first + self.count);
        core::iter::from_fn(move || {
            let order = frame.trailing_zeros().min((end - frame).checked_ilog2()?).min(MAX_ORDER);
            frame += 1 << order;
            Some((frame - (1 << order), order))
        })
    }

    /// Number of frames managed.
    pub(super) const fn frames(&self) -> u64 {
        self.count
    }

    /// The first frame, managed or not.
    pub(super) const fn whole_start(&self) -> u64 {
        self.start
    }

    /// Whether the whole range is below `frame`.
    #[inline]
    pub(super) const fn is_below(&self, frame: u64) -> bool {
        self.end <= frame
    }

    /// Whether `frame` is managed here.
    #[inline]
    pub(super) const fn contains(&self, frame: u64) -> bool {
        frame.wrapping_sub(self.first) < self.count
    }

    #[inline]
    pub(super) const fn zone(&self) -> usize {
        self.zone
    }

    /// The state of a frame; that of one that is not managed here never equals that of a block.
    #[inline]
    pub(super) fn state<M: PhysicalMemory>(&self, memory: &M, frame: u64) -> State {
        if !self.contains(frame) {
            return State::INTERIOR;
        }
        // SAFETY: The table has a byte for each frame managed, which belongs to the range.
        State(unsafe { self.state_pointer(memory, frame).read() })
    }

    /// Changes the state of a frame that is managed here.
    #[inline]
    pub(super) fn set_state<M: PhysicalMemory>(&self, memory: &M, frame: u64, state: State) {
        if self.contains(frame) {
            // SAFETY: As in `state`.
            unsafe { self.state_pointer(memory, frame).write(state.0) };
        }
    }

    #[inline]
    fn state_pointer<M: PhysicalMemory>(&self, memory: &M, frame: u64) -> core::ptr::NonNull<u8> {
        memory.pointer(self.states.wrapping_add(frame.wrapping_sub(self.first)))
    }

    /// The block that a managed frame belongs to: its first frame and that one's state.
    #[inline]
    pub(super) fn block_of<M: PhysicalMemory>(&self, memory: &M, frame: u64) -> (u64, State) {
        // Of the blocks of each order that could hold the frame, the smallest whose first frame is not inside of a
        // block is the one: all smaller ones are inside of it.
        let candidates = (0..=MAX_ORDER).map(|order| frame >> order << order);
        candidates
            .map(|first| (first, self.state(memory, first)))
            .find(|&(_, state)| state != State::INTERIOR)
            .unwrap_or((frame, State::INTERIOR))
    }
}
