//! The region of a packed ring: a copy of each descriptor that was taken, as used ones overwrite the ring, and lists of
//! the copies that are free. Every change is made beside the old state, and then made the old state.

use crate::sync::Ordering;

use super::{Resubmission, is_used, outside, set_used};
use crate::descriptor::{Flags, PackedDescriptor};
use crate::memory::GuestSlice;
use crate::{Position, QueueError};

/// Bytes of QueueRegionPacked before its entries.
pub(super) const HEADER: usize = 32;
/// Bytes of DescStatePacked.
pub(super) const ENTRY: usize = 32;

const FREE_HEAD: usize = 12;
const OLD_FREE_HEAD: usize = 14;
/// Offset of used_idx; old_used_idx, used_wrap_counter and old_used_wrap_counter follow, so that one store can change all
/// four: after a death between two stores, an index with the wrong wrap counter could not be told from a right one.
const POSITIONS: usize = 16;

const IN_FLIGHT: usize = 0;
const NEXT: usize = 2;
const LAST: usize = 4;
const COUNT: usize = 6;
const COUNTER: usize = 8;
/// Offset of the descriptor's id; flags, length and address follow.
const ID: usize = 16;
const FLAGS: usize = 18;
const LEN: usize = 20;
const ADDRESS: usize = 24;

#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedTracker {
    size: u16,
    /// The counter of the next chain.
    counter: u64,
    /// The counter of the first chain that was not in flight at the restart.
    first_new: u64,
    /// Descriptors of all chains that were in flight at the restart.
    descriptors: u16,
    again: Resubmission,
    /// What [`Self::begin`] began.
    taking: Taking,
}

/// A chain that is being noted.
#[derive(Clone, Copy, Debug, Default)]
struct Taking {
    head: u16,
    last: u16,
    free: u16,
    count: u16,
}

impl PackedTracker {
    /// Takes up what `region` says, or prepares it if it was never used, for a ring that goes on at `used` then. Returns
    /// also where the ring goes on.
    pub(crate) fn recover(
        region: &GuestSlice<'_>,
        ring: &GuestSlice<'_>,
        size: u16,
        used: Position,
    ) -> Result<(Self, Position), QueueError> {
        let again = Resubmission::default();
        let mut tracker = Self { size, counter: 0, first_new: 0, descriptors: 0, again, taking: Taking::default() };
        if !is_used(region, size)? {
            region.part(0, HEADER + ENTRY * usize::from(size)).map_err(outside)?.zero();
            for index in 0..size {
                // The last one leads to `size`, the end of the list.
                tracker.set_u16(region, index, NEXT, index + 1)?;
            }
            set_positions(region, Positions { new: used, old: used })?;
            set_used(region, size)?;
            return Ok((tracker, used));
        }
        let used = tracker.settle(region, ring)?;
        tracker.clear_free(region)?;
        for index in 0..size {
            if let Some(counter) = tracker.counter_of(region, index)? {
                let count = tracker.u16(region, index, COUNT)?;
                let sum = tracker.descriptors.checked_add(count).filter(|sum| *sum <= size && count > 0);
                tracker.descriptors = sum.ok_or(QueueError::InFlightState)?;
                tracker.again.left += 1;
                tracker.counter = tracker.counter.max(counter.wrapping_add(1));
            }
        }
        tracker.first_new = tracker.counter;
        Ok((tracker, used))
    }

    /// Completes or takes back what the predecessor was about to give back.
    fn settle(&self, region: &GuestSlice<'_>, ring: &GuestSlice<'_>) -> Result<Position, QueueError> {
        let Positions { new, old } = self.positions(region)?;
        let is_published = new != old && {
            // Acquire: as for any look at a ring's flags.
            let flags = ring.load_u16(16 * usize::from(old.index) + 14, Ordering::Acquire).map_err(outside)?;
            let flags = Flags::from_bits_retain(flags);
            flags.contains(Flags::AVAIL) != old.wrap || flags.contains(Flags::USED) == old.wrap
        };
        if is_published {
            self.commit(region, new)?;
            return Ok(new);
        }
        let free = region.load_u16(OLD_FREE_HEAD, Ordering::Relaxed).map_err(outside)?;
        region.store_u16(FREE_HEAD, free, Ordering::Release).map_err(outside)?;
        set_positions(region, Positions { new: old, old })?;
        Ok(old)
    }

    /// What is free is not in flight, whatever it says.
    fn clear_free(&self, region: &GuestSlice<'_>) -> Result<(), QueueError> {
        let mut free = region.load_u16(FREE_HEAD, Ordering::Relaxed).map_err(outside)?;
        for _ in 0..self.size {
            if free >= self.size {
                break;
            }
            region.store_u8(self.entry(free)? + IN_FLIGHT, 0, Ordering::Release).map_err(outside)?;
            free = self.u16(region, free, NEXT)?;
        }
        Ok(())
    }

    /// How many chains have to be done again.
    pub(crate) const fn left(&self) -> u16 {
        self.again.left
    }

    /// Descriptors of all chains that were in flight at the restart.
    pub(crate) const fn descriptors(&self) -> u16 {
        self.descriptors
    }

    /// The entry of the next chain to do again, and how many descriptors it has.
    pub(crate) fn next_again(&mut self, region: &GuestSlice<'_>) -> Result<Option<(u16, u16)>, QueueError> {
        let mut again = self.again;
        let entry = again.next(self.size, |entry| self.counter_of(region, entry))?;
        self.again = again;
        entry.map(|entry| Ok((entry, self.u16(region, entry, COUNT)?))).transpose()
    }

    /// The descriptor at an entry, and the next entry of its chain.
    pub(crate) fn descriptor(
        &self,
        region: &GuestSlice<'_>,
        entry: u16,
    ) -> Result<(PackedDescriptor, u16), QueueError> {
        let at = self.entry(entry)?;
        let address = region.load_u64(at + ADDRESS, Ordering::Relaxed).map_err(outside)?;
        let len = region.load_u32(at + LEN, Ordering::Relaxed).map_err(outside)?;
        let id = region.load_u16(at + ID, Ordering::Relaxed).map_err(outside)?;
        let flags = region.load_u16(at + FLAGS, Ordering::Relaxed).map_err(outside)?;
        Ok((PackedDescriptor::new(address, len, id, flags), self.u16(region, entry, NEXT)?))
    }

    /// Begins to note a chain.
    pub(crate) fn begin(&mut self, region: &GuestSlice<'_>) -> Result<(), QueueError> {
        let free = region.load_u16(FREE_HEAD, Ordering::Relaxed).map_err(outside)?;
        self.taking = Taking { head: free, last: free, free, count: 0 };
        Ok(())
    }

    /// Notes a descriptor of that chain.
    pub(crate) fn add(&mut self, region: &GuestSlice<'_>, descriptor: PackedDescriptor) -> Result<(), QueueError> {
        let Taking { free, .. } = self.taking;
        let at = self.entry(free)?;
        // Relaxed: `taken` makes them count.
        region.store_u64(at + ADDRESS, descriptor.segment().address.0, Ordering::Relaxed).map_err(outside)?;
        region.store_u32(at + LEN, descriptor.segment().len, Ordering::Relaxed).map_err(outside)?;
        region.store_u16(at + ID, descriptor.id(), Ordering::Relaxed).map_err(outside)?;
        region.store_u16(at + FLAGS, descriptor.flags().bits(), Ordering::Relaxed).map_err(outside)?;
        self.taking.last = free;
        self.taking.free = self.u16(region, free, NEXT)?;
        self.taking.count += 1;
        Ok(())
    }

    /// Notes that the chain is complete, and returns its entry.
    pub(crate) fn taken(&mut self, region: &GuestSlice<'_>) -> Result<u16, QueueError> {
        let Taking { head, last, free, count } = self.taking;
        self.set_u16(region, head, COUNT, count)?;
        self.set_u16(region, head, LAST, last)?;
        let at = self.entry(head)?;
        region.store_u64(at + COUNTER, self.counter, Ordering::Release).map_err(outside)?;
        region.store_u8(at + IN_FLIGHT, 1, Ordering::Release).map_err(outside)?;
        region.store_u16(FREE_HEAD, free, Ordering::Release).map_err(outside)?;
        // From here on it is in flight: before, it counted as free.
        region.store_u16(OLD_FREE_HEAD, free, Ordering::Release).map_err(outside)?;
        self.counter = self.counter.wrapping_add(1);
        Ok(head)
    }

    /// Notes that the chain at `entry`, the last one, was put back; returns whether it is one to do again.
    pub(crate) fn put_back(&mut self, region: &GuestSlice<'_>, entry: u16) -> Result<bool, QueueError> {
        let counter = self.counter_of(region, entry)?.ok_or(QueueError::InFlightState)?;
        if counter < self.first_new {
            self.again.put_back(counter, entry);
            return Ok(true);
        }
        self.free(region, entry)?;
        region.store_u16(OLD_FREE_HEAD, entry, Ordering::Release).map_err(outside)?;
        // From here on it counts as free.
        region.store_u8(self.entry(entry)? + IN_FLIGHT, 0, Ordering::Release).map_err(outside)?;
        Ok(false)
    }

    /// Notes that the chain at `entry` is about to be given back at `from`, whereupon the ring goes on at `to`.
    pub(crate) fn staged(
        &self,
        region: &GuestSlice<'_>,
        entry: u16,
        from: Position,
        to: Position,
    ) -> Result<(), QueueError> {
        self.free(region, entry)?;
        set_positions(region, Positions { new: to, old: from })
    }

    /// Puts the chain at `entry` in front of what is free, as far as is not yet certain.
    fn free(&self, region: &GuestSlice<'_>, entry: u16) -> Result<(), QueueError> {
        let free = region.load_u16(FREE_HEAD, Ordering::Relaxed).map_err(outside)?;
        self.set_u16(region, self.u16(region, entry, LAST)?, NEXT, free)?;
        region.store_u16(FREE_HEAD, entry, Ordering::Release).map_err(outside)
    }

    /// Notes that the chain at `entry` was given back.
    pub(crate) fn published(&self, region: &GuestSlice<'_>, entry: u16, used: Position) -> Result<(), QueueError> {
        region.store_u8(self.entry(entry)? + IN_FLIGHT, 0, Ordering::Release).map_err(outside)?;
        self.commit(region, used)
    }

    fn commit(&self, region: &GuestSlice<'_>, used: Position) -> Result<(), QueueError> {
        let free = region.load_u16(FREE_HEAD, Ordering::Relaxed).map_err(outside)?;
        region.store_u16(OLD_FREE_HEAD, free, Ordering::Release).map_err(outside)?;
        set_positions(region, Positions { new: used, old: used })
    }

    fn counter_of(&self, region: &GuestSlice<'_>, entry: u16) -> Result<Option<u64>, QueueError> {
        let at = self.entry(entry)?;
        let is_in_flight = region.load_u8(at + IN_FLIGHT, Ordering::Acquire).map_err(outside)? != 0;
        is_in_flight.then(|| region.load_u64(at + COUNTER, Ordering::Relaxed).map_err(outside)).transpose()
    }

    fn positions(&self, region: &GuestSlice<'_>) -> Result<Positions, QueueError> {
        let bits = region.load_u64(POSITIONS, Ordering::Acquire).map_err(outside)?;
        let position =
            |index: u32, wrap: u32| Position { index: (bits >> index) as u16, wrap: (bits >> wrap) & 0xff != 0 };
        let positions = Positions { new: position(0, 32), old: position(16, 40) };
        let is_inside = positions.new.index < self.size && positions.old.index < self.size;
        if is_inside { Ok(positions) } else { Err(QueueError::InFlightState) }
    }

    fn entry(&self, entry: u16) -> Result<usize, QueueError> {
        if entry < self.size { Ok(HEADER + ENTRY * usize::from(entry)) } else { Err(QueueError::InFlightState) }
    }

    fn u16(&self, region: &GuestSlice<'_>, entry: u16, field: usize) -> Result<u16, QueueError> {
        region.load_u16(self.entry(entry)? + field, Ordering::Relaxed).map_err(outside)
    }

    fn set_u16(&self, region: &GuestSlice<'_>, entry: u16, field: usize, value: u16) -> Result<(), QueueError> {
        region.store_u16(self.entry(entry)? + field, value, Ordering::Release).map_err(outside)
    }
}

/// Where the next used descriptor goes, by what is about to happen and by what has happened.
#[derive(Clone, Copy)]
struct Positions {
    new: Position,
    old: Position,
}

fn set_positions(region: &GuestSlice<'_>, Positions { new, old }: Positions) -> Result<(), QueueError> {
    let indices = u64::from(new.index) | u64::from(old.index) << 16;
    let wraps = u64::from(new.wrap) << 32 | u64::from(old.wrap) << 40;
    region.store_u64(POSITIONS, indices | wraps, Ordering::Release).map_err(outside)
}
