//! What a device has taken and not given back, kept in memory that outlives it.
//!
//! The memory belongs to the front end, which hands it to the device that comes after one that has died. Its layout is
//! vhost-user's ("Inflight I/O tracking"), and the order of the stores in it is what makes a death between any two of
//! them harmless: the next device takes up exactly what this one had not given back, in the order in which it came.
//! Stores are Release, so that they stay in that order.
//!
//! The front end may write there too. What is read is checked as if a driver had written it.

mod packed;
mod split;
#[cfg(test)]
mod tests;

use crate::sync::Ordering;

pub(crate) use packed::PackedTracker;
pub(crate) use split::SplitTracker;

use crate::QueueError;
use crate::memory::{GuestSlice, MemoryError};

/// The layout's version; 0 is memory that nobody has used.
const VERSION: u16 = 1;
/// Offset of `version` in either layout.
const VERSION_AT: usize = 8;
/// Offset of `desc_num` in either layout.
const SIZE_AT: usize = 10;

/// Bytes that a queue of `size` entries needs to track what is in flight: a multiple of 64, so that the regions of
/// several queues can follow each other.
#[must_use]
pub const fn in_flight_region_size(size: u16, is_packed: bool) -> usize {
    let bytes = if is_packed {
        packed::HEADER + packed::ENTRY * size as usize
    } else {
        split::HEADER + split::ENTRY * size as usize
    };
    bytes.next_multiple_of(64)
}

/// Whether `region` holds the state of a queue of `size` entries; if not, it has never been used.
fn is_used(region: &GuestSlice<'_>, size: u16) -> Result<bool, QueueError> {
    match region.load_u16(VERSION_AT, Ordering::Acquire).map_err(outside)? {
        0 => Ok(false),
        VERSION if region.load_u16(SIZE_AT, Ordering::Relaxed).map_err(outside)? == size => Ok(true),
        _ => Err(QueueError::InFlightState),
    }
}

/// Says that `region` holds the state of a queue of `size` entries; all else has been written.
fn set_used(region: &GuestSlice<'_>, size: u16) -> Result<(), QueueError> {
    region.store_u16(SIZE_AT, size, Ordering::Release).map_err(outside)?;
    region.store_u16(VERSION_AT, VERSION, Ordering::Release).map_err(outside)
}

fn outside(_: MemoryError) -> QueueError {
    QueueError::InFlightMemory
}

/// Chains that a new device has to do again, in the order in which its predecessor took them.
#[derive(Clone, Copy, Debug, Default)]
struct Resubmission {
    /// How many are left.
    left: u16,
    /// Counter and entry of the last one.
    last: Option<(u64, u16)>,
}

impl Resubmission {
    /// The entry to do again next, given the counter of each entry that is in flight. Looks at all entries each time:
    /// it happens only after a restart, and needs no memory.
    fn next(
        &mut self,
        size: u16,
        counter: impl Fn(u16) -> Result<Option<u64>, QueueError>,
    ) -> Result<Option<u16>, QueueError> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut next: Option<(u64, u16)> = None;
        for entry in 0..size {
            let Some(counter) = counter(entry)? else { continue };
            let key = (counter, entry);
            if self.last.is_none_or(|last| last < key) && next.is_none_or(|next| key < next) {
                next = Some(key);
            }
        }
        // Gone since it was counted: the front end has changed it.
        let (_, entry) = next.ok_or(QueueError::InFlightState)?;
        self.last = next;
        self.left -= 1;
        Ok(Some(entry))
    }

    /// Goes back before an entry, the last one.
    fn put_back(&mut self, counter: u64, entry: u16) {
        let before = entry.checked_sub(1).map(|entry| (counter, entry));
        self.last = before.or_else(|| counter.checked_sub(1).map(|counter| (counter, u16::MAX)));
        self.left = self.left.saturating_add(1);
    }
}
