//! The region of a split ring: an entry for each head, and a list of the heads that were given back in the last batch.

use crate::sync::Ordering;

use super::{Resubmission, is_used, outside, set_used};
use crate::QueueError;
use crate::memory::GuestSlice;

/// Bytes of QueueRegionSplit before its entries.
pub(super) const HEADER: usize = 16;
/// Bytes of DescStateSplit.
pub(super) const ENTRY: usize = 16;

const LAST_BATCH_HEAD: usize = 12;
const USED_INDEX: usize = 14;

const IN_FLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) struct SplitTracker {
    size: u16,
    /// The counter of the next chain.
    counter: u64,
    /// The counter of the first chain that was not in flight at the restart.
    first_new: u64,
    /// Chains in the batch that has not been published.
    staged: u16,
    again: Resubmission,
}

impl SplitTracker {
    /// Takes up what `region` says, or prepares it if it was never used. `used` is the used ring's `idx`.
    pub(crate) fn recover(region: &GuestSlice<'_>, size: u16, used: u16) -> Result<Self, QueueError> {
        let mut tracker = Self { size, counter: 0, first_new: 0, staged: 0, again: Resubmission::default() };
        if !is_used(region, size)? {
            region.part(0, HEADER + ENTRY * usize::from(size)).map_err(outside)?.zero();
            tracker.set_header(region, USED_INDEX, used)?;
            set_used(region, size)?;
            return Ok(tracker);
        }
        // What was published and not yet noted here is the last batch.
        let noted = region.load_u16(USED_INDEX, Ordering::Acquire).map_err(outside)?;
        tracker.staged = used.wrapping_sub(noted);
        if tracker.staged > size {
            return Err(QueueError::InFlightState);
        }
        tracker.published(region, used)?;
        for head in 0..size {
            if let Some(counter) = tracker.counter_of(region, head)? {
                tracker.again.left += 1;
                tracker.counter = tracker.counter.max(counter.wrapping_add(1));
            }
        }
        tracker.first_new = tracker.counter;
        Ok(tracker)
    }

    /// How many chains have to be done again.
    pub(crate) const fn left(&self) -> u16 {
        self.again.left
    }

    /// The head of the next chain to do again.
    pub(crate) fn next_again(&mut self, region: &GuestSlice<'_>) -> Result<Option<u16>, QueueError> {
        let mut again = self.again;
        let head = again.next(self.size, |head| self.counter_of(region, head))?;
        self.again = again;
        Ok(head)
    }

    /// Notes that the chain at `head` was taken.
    pub(crate) fn taken(&mut self, region: &GuestSlice<'_>, head: u16) -> Result<(), QueueError> {
        let entry = self.entry(head)?;
        if region.load_u8(entry + IN_FLIGHT, Ordering::Relaxed).map_err(outside)? != 0 {
            return Err(QueueError::AvailableTwice(head));
        }
        region.store_u64(entry + COUNTER, self.counter, Ordering::Release).map_err(outside)?;
        region.store_u8(entry + IN_FLIGHT, 1, Ordering::Release).map_err(outside)?;
        self.counter = self.counter.wrapping_add(1);
        Ok(())
    }

    /// Notes that the chain at `head`, the last one, was put back; returns whether it is one to do again.
    pub(crate) fn put_back(&mut self, region: &GuestSlice<'_>, head: u16) -> Result<bool, QueueError> {
        let counter = self.counter_of(region, head)?.ok_or(QueueError::InFlightState)?;
        if counter < self.first_new {
            self.again.put_back(counter, head);
            return Ok(true);
        }
        region.store_u8(self.entry(head)? + IN_FLIGHT, 0, Ordering::Release).map_err(outside)?;
        Ok(false)
    }

    /// Notes that the chain at `head` belongs to the batch to be published next.
    pub(crate) fn staged(&mut self, region: &GuestSlice<'_>, head: u16) -> Result<(), QueueError> {
        let last = region.load_u16(LAST_BATCH_HEAD, Ordering::Relaxed).map_err(outside)?;
        region.store_u16(self.entry(head)? + NEXT, last, Ordering::Release).map_err(outside)?;
        self.set_header(region, LAST_BATCH_HEAD, head)?;
        self.staged += 1;
        Ok(())
    }

    /// Notes that the batch was published, with the used ring's `idx` now at `used`.
    pub(crate) fn published(&mut self, region: &GuestSlice<'_>, used: u16) -> Result<(), QueueError> {
        let mut head = region.load_u16(LAST_BATCH_HEAD, Ordering::Relaxed).map_err(outside)?;
        for _ in 0..self.staged {
            let entry = self.entry(head)?;
            region.store_u8(entry + IN_FLIGHT, 0, Ordering::Release).map_err(outside)?;
            head = region.load_u16(entry + NEXT, Ordering::Relaxed).map_err(outside)?;
        }
        self.staged = 0;
        self.set_header(region, USED_INDEX, used)
    }

    fn counter_of(&self, region: &GuestSlice<'_>, head: u16) -> Result<Option<u64>, QueueError> {
        let entry = self.entry(head)?;
        let is_in_flight = region.load_u8(entry + IN_FLIGHT, Ordering::Acquire).map_err(outside)? != 0;
        is_in_flight.then(|| region.load_u64(entry + COUNTER, Ordering::Relaxed).map_err(outside)).transpose()
    }

    fn entry(&self, head: u16) -> Result<usize, QueueError> {
        if head < self.size { Ok(HEADER + ENTRY * usize::from(head)) } else { Err(QueueError::InFlightState) }
    }

    fn set_header(&self, region: &GuestSlice<'_>, field: usize, value: u16) -> Result<(), QueueError> {
        region.store_u16(field, value, Ordering::Release).map_err(outside)
    }
}
