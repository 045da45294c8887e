//! The frame allocator: a buddy system over the machine's RAM.
//!
//! RAM comes in ranges, each of which belongs to a zone (a NUMA node). Every frame of a range has a byte of state in a
//! table at one end of the range; free blocks are linked through their own first bytes. A block of order n is 2^n
//! frames and aligned to its size. All operations take time in proportion to the number of orders.
#![expect(unsafe_code, reason = "it keeps its books in the memory that it manages")]

use core::fmt;

use crate::address::{HostPhys, PAGE_SHIFT, PAGE_SIZE};
use crate::physical::PhysicalMemory;
use range::{Range, State};
use zone::Zone;

mod range;
mod shared;
#[cfg(all(test, not(loom)))]
mod tests;
mod zone;

pub use shared::{Frames, NodeFrames};

/// The order of the largest block, 1 GiB.
pub const MAX_ORDER: u32 = 18;
/// Number of zones that are told apart.
pub const MAX_ZONES: usize = 16;
/// Number of ranges of RAM that fit.
pub const MAX_RANGES: usize = 128;

/// What an allocated frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameUse {
    /// Content of memory objects, which domains and guests may reach. Anyone who knows its address can free it.
    Object,
    /// The kernel's own: objects, page tables, stacks. Never mapped for anybody else, and freed only by
    /// [`FrameAllocator::free_kernel`].
    Kernel,
}

/// Why a block cannot be freed. Each is a mistake of the kernel, which so loses the block rather than its integrity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreeError {
    /// It is not RAM that the allocator manages, or no such block can start there.
    Foreign,
    /// It is free already, in whole or in part.
    NotAllocated,
    /// It was allocated for the other use.
    OtherUse,
}

impl fmt::Display for FreeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Foreign => "the block is not the frame allocator's",
            Self::NotAllocated => "the block is not allocated",
            Self::OtherUse => "the block was allocated for another use",
        })
    }
}

/// Why a range of RAM cannot be managed. The machine runs without it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeError {
    /// There are [`MAX_RANGES`] already.
    TooMany,
    /// The zone is not below [`MAX_ZONES`].
    NoSuchZone,
    /// Some of it is managed already.
    Overlap,
    /// It reaches beyond the last address.
    Wraps,
}

impl fmt::Display for RangeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(formatter, "there are more than {MAX_RANGES} ranges of RAM"),
            Self::NoSuchZone => write!(formatter, "the zone is not below {MAX_ZONES}"),
            Self::Overlap => formatter.write_str("the range overlaps another"),
            Self::Wraps => formatter.write_str("the range reaches beyond the last address"),
        }
    }
}

/// All RAM that the kernel manages.
pub struct FrameAllocator<M> {
    memory: M,
    zones: [Zone; MAX_ZONES],
    /// The first `range_count` of these are in use, sorted by address.
    ranges: [Range; MAX_RANGES],
    range_count: usize,
}

impl<M: PhysicalMemory> FrameAllocator<M> {
    /// An allocator without RAM, which reaches memory through `memory`.
    #[must_use]
    pub const fn new(memory: M) -> Self {
        Self { memory, zones: [Zone::EMPTY; MAX_ZONES], ranges: [Range::EMPTY; MAX_RANGES], range_count: 0 }
    }

    /// Starts to manage the whole frames of a range of RAM. Gives the number of frames that became free: those that
    /// hold the states of the others are not among them.
    ///
    /// # Errors
    /// See [`RangeError`]; nothing changes then.
    ///
    /// # Safety
    /// The range is RAM that `memory` reaches, and nobody else uses it from now on.
    pub unsafe fn add_range(&mut self, start: HostPhys, bytes: u64, zone: usize) -> Result<u64, RangeError> {
        let end = start.checked_add(bytes).ok_or(RangeError::Wraps)?.page_number();
        let first = start.as_u64().div_ceil(PAGE_SIZE);
        let Some(count) = end.checked_sub(first) else { return Ok(0) };
        let zone_of_range = self.zones.get_mut(zone).ok_or(RangeError::NoSuchZone)?;
        let range = Range::new(first, count, zone);
        if range.frames() == 0 {
            return Ok(0);
        }
        let others = used(&self.ranges, self.range_count);
        let place = others.partition_point(|other| other.is_below(first));
        if others.get(place).is_some_and(|next| !range.is_below(next.whole_start())) {
            return Err(RangeError::Overlap);
        }
        if self.range_count == MAX_RANGES {
            return Err(RangeError::TooMany);
        }
        self.ranges.copy_within(place..self.range_count, place + 1);
        self.ranges[place] = range;
        self.range_count += 1;
        // SAFETY: The caller vouches for the range, and no other range shares a frame with it.
        unsafe { range.initialise(&self.memory) };
        range.blocks().for_each(|(frame, order)| zone_of_range.insert(&self.memory, &range, frame, order));
        Ok(range.frames())
    }

    /// A block of 2^`order` frames with any content, from `zone` if there is one, else from the next zone that has one.
    pub fn alloc(&mut self, order: u32, zone: usize, frame_use: FrameUse) -> Option<HostPhys> {
        for step in 0..MAX_ZONES {
            if let Some(block) = self.alloc_in(order, zone.wrapping_add(step) % MAX_ZONES, frame_use) {
                return Some(block);
            }
        }
        None
    }

    /// A block of 2^`order` frames with any content, from `zone` only.
    pub fn alloc_in(&mut self, order: u32, zone: usize, frame_use: FrameUse) -> Option<HostPhys> {
        let zone = self.zones.get_mut(zone)?;
        let (frame, mut available) = zone.smallest(order)?;
        let range = find(used(&self.ranges, self.range_count), frame)?;
        zone.remove(&self.memory, frame, available);
        while available > order {
            available -= 1;
            zone.insert(&self.memory, range, frame + (1 << available), available);
        }
        range.set_state(&self.memory, frame, State::allocated(frame_use, order));
        Some(HostPhys::new(frame << PAGE_SHIFT))
    }

    /// Frees 2^`order` frames of memory objects. They may be an aligned part of a larger block that was allocated.
    ///
    /// # Errors
    /// See [`FreeError`]; nothing changes then.
    #[inline]
    pub fn free(&mut self, block: HostPhys, order: u32) -> Result<(), FreeError> {
        self.release(block, order, FrameUse::Object)
    }

    /// Frees 2^`order` frames of the kernel's own.
    ///
    /// # Errors
    /// See [`FreeError`]; nothing changes then.
    ///
    /// # Safety
    /// The caller owns the block, and nobody uses it any more.
    #[inline]
    pub unsafe fn free_kernel(&mut self, block: HostPhys, order: u32) -> Result<(), FreeError> {
        self.release(block, order, FrameUse::Kernel)
    }

    fn release(&mut self, block: HostPhys, order: u32, frame_use: FrameUse) -> Result<(), FreeError> {
        let mut frame = block.page_number();
        if order > MAX_ORDER || block.as_u64() != (frame >> order << order) << PAGE_SHIFT {
            return Err(FreeError::Foreign);
        }
        let range = find(used(&self.ranges, self.range_count), frame).ok_or(FreeError::Foreign)?;
        let (mut whole, state) = range.block_of(&self.memory, frame);
        let mut whole_order = state.order();
        if state != State::allocated(frame_use, whole_order) {
            return Err(if state.is_free() { FreeError::NotAllocated } else { FreeError::OtherUse });
        }
        if whole_order < order {
            return Err(FreeError::NotAllocated);
        }
        // Cut the block in halves until one of them is the part to be freed; the others stay allocated.
        while whole_order > order {
            whole_order -= 1;
            let upper = whole + (1 << whole_order);
            range.set_state(&self.memory, whole, State::allocated(frame_use, whole_order));
            range.set_state(&self.memory, upper, State::allocated(frame_use, whole_order));
            if frame >= upper {
                whole = upper;
            }
        }
        // Join the block with its buddy, the other half of the next larger block, as long as that is free.
        let zone = self.zones.get_mut(range.zone()).ok_or(FreeError::Foreign)?;
        let mut order = order;
        while order < MAX_ORDER && range.state(&self.memory, frame ^ (1 << order)) == State::free(order) {
            let buddy = frame ^ (1 << order);
            zone.remove(&self.memory, buddy, order);
            range.set_state(&self.memory, frame.max(buddy), State::INTERIOR);
            frame = frame.min(buddy);
            order += 1;
        }
        zone.insert(&self.memory, range, frame, order);
        Ok(())
    }

    /// What the frame at `address` is allocated for; `None` if it is free or not the allocator's.
    #[must_use]
    pub fn frame_use(&self, address: HostPhys) -> Option<FrameUse> {
        let frame = address.page_number();
        let range = find(used(&self.ranges, self.range_count), frame)?;
        let (_, state) = range.block_of(&self.memory, frame);
        [FrameUse::Object, FrameUse::Kernel].into_iter().find(|&kind| state == State::allocated(kind, state.order()))
    }

    /// Number of free frames.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.zones.iter().map(Zone::free_frames).sum()
    }

    /// Number of free frames in one zone.
    #[must_use]
    pub fn free_pages_in(&self, zone: usize) -> u64 {
        self.zones.get(zone).map_or(0, Zone::free_frames)
    }

    /// Number of frames, free and allocated.
    #[must_use]
    pub fn managed_pages(&self) -> u64 {
        used(&self.ranges, self.range_count).iter().map(Range::frames).sum()
    }
}

/// The ranges in use.
#[inline]
fn used(ranges: &[Range; MAX_RANGES], count: usize) -> &[Range] {
    ranges.get(..count).unwrap_or_default()
}

/// The range that manages a frame.
#[inline]
fn find(ranges: &[Range], frame: u64) -> Option<&Range> {
    let place = ranges.partition_point(|range| range.is_below(frame));
    ranges.get(place).filter(|range| range.contains(frame))
}
