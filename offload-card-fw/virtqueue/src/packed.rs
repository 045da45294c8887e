//! Packed rings: one ring of descriptors, which say by two of their flags whose they are (virtio 1.2, 2.8).

use crate::sync::{Ordering, fence};

use crate::burst::Collector;
use crate::chain::{Chain, ChainId};
use crate::descriptor::{self, DESCRIPTOR_SIZE, Flags, PackedDescriptor};
use crate::in_flight::PackedTracker;
use crate::memory::{GuestMemory, GuestSlice};
use crate::queue::{Areas, descriptors_gone, device_gone, driver_gone};
use crate::{Position, QueueConfig, QueueError, RingFeatures};

/// Offset of a descriptor's length (2.8.13).
const LEN: usize = 8;
/// Offset of a descriptor's buffer id.
const ID: usize = 12;
/// Offset of a descriptor's flags.
const FLAGS: usize = 14;

/// Offset of the position in an event suppression structure (2.8.14).
const EVENT_POSITION: usize = 0;
/// Offset of its flags.
const EVENT_FLAGS: usize = 2;

/// RING_EVENT_FLAGS_ENABLE (2.8.10).
const EVENT_ENABLE: u16 = 0;
/// RING_EVENT_FLAGS_DISABLE.
const EVENT_DISABLE: u16 = 1;
/// RING_EVENT_FLAGS_DESC: at a certain descriptor; only with VIRTIO_F_EVENT_IDX.
const EVENT_DESCRIPTOR: u16 = 2;

/// How far a packed ring has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    size: u16,
    features: RingFeatures,
    pub(crate) next_available: Position,
    /// Where the next used descriptor goes.
    next_used: Position,
    /// The position and flags of the first used descriptor that is staged. The driver sees none before this one.
    staged: Option<(Position, Flags)>,
    /// Descriptors that the device has.
    in_flight: u16,
    /// Descriptors published since the driver was last notified or needed no notification; unknown after a restart.
    not_notified: Option<u32>,
    tracker: Option<PackedTracker>,
}

impl Packed {
    pub(crate) fn new(config: &QueueConfig) -> Self {
        Self {
            size: config.size,
            features: config.features,
            next_available: config.state.next_available,
            next_used: config.state.next_used,
            staged: None,
            in_flight: config.packed_in_flight(),
            not_notified: (config.state == Default::default()).then_some(0),
            tracker: None,
        }
    }

    /// Takes up what the memory for tracking says.
    pub(crate) fn recover(&mut self, areas: &Areas<'_>) -> Result<(), QueueError> {
        let region = areas.in_flight()?;
        let (tracker, used) = PackedTracker::recover(region, &areas.descriptors, self.size, self.next_used)?;
        self.next_used = used;
        self.next_available = used.advance_packed(tracker.descriptors(), self.size);
        self.in_flight = tracker.descriptors();
        if tracker.left() > 0 || used != Position::START {
            self.not_notified = None;
        }
        self.tracker = Some(tracker);
        Ok(())
    }

    /// How many chains were in flight at the restart and have not been taken again.
    #[inline(always)]
    pub(crate) fn left_again(&self) -> u16 {
        self.tracker.as_ref().map_or(0, PackedTracker::left)
    }

    /// Where the driver sees the next used descriptor.
    pub(crate) fn published(&self) -> Position {
        self.staged.map_or(self.next_used, |(position, _)| position)
    }

    /// Takes the next chain: copies and checks it.
    #[inline(always)]
    pub(crate) fn pop<M: GuestMemory>(
        &mut self,
        areas: &Areas<'_>,
        memory: &M,
        chain: &mut Chain,
    ) -> Result<Option<ChainId>, QueueError> {
        if self.left_again() > 0 {
            return self.pop_again(areas, memory, chain);
        }
        // Acquire: what the driver wrote before these flags, all of the chain, is read after them (2.8.21.1).
        let flags = areas.flags(self.next_available, Ordering::Acquire)?;
        if !is_available(flags, self.next_available.wrap) {
            return Ok(None);
        }
        chain.clear();
        let mut position = self.next_available;
        let mut flags = flags;
        let mut descriptors = 0;
        if let Some(tracker) = &mut self.tracker {
            tracker.begin(areas.in_flight()?)?;
        }
        let id = loop {
            // As many as are not the device's already: more would be a loop.
            if descriptors >= self.size - self.in_flight {
                return Err(QueueError::ChainTooLong);
            }
            if !is_available(flags, position.wrap) {
                return Err(QueueError::ChainIncomplete(position.index));
            }
            let copy = descriptor::read(&areas.descriptors, usize::from(position.index)).map_err(descriptors_gone)?;
            let copy = PackedDescriptor::from_words(copy).with_flags(flags);
            if let Some(tracker) = &mut self.tracker {
                tracker.add(areas.in_flight()?, copy)?;
            }
            let goes_on = append(self.features, memory, copy, descriptors == 0, chain)?;
            descriptors += 1;
            position = position.advance_packed(1, self.size);
            if !goes_on {
                break copy.id();
            }
            // Relaxed: written before the flags of the chain's head.
            flags = areas.flags(position, Ordering::Relaxed)?;
        };
        let entry = match &mut self.tracker {
            Some(tracker) => tracker.taken(areas.in_flight()?)?,
            None => 0,
        };
        self.next_available = position;
        self.in_flight += descriptors;
        Ok(Some(ChainId::new(id, descriptors, entry)))
    }

    /// Takes the next chains, at most `count`, up to one that is not what is collected. None of a ring that is tracked.
    #[inline]
    pub(crate) fn pop_burst<M: GuestMemory>(
        &mut self,
        areas: &Areas<'_>,
        count: u16,
        collector: &mut Collector<'_, '_, M>,
    ) -> Result<(), QueueError> {
        if self.tracker.is_some() {
            return Ok(());
        }
        // As many as are not the device's already: more would be a loop.
        let count = count.min(self.size.saturating_sub(self.in_flight));
        for _ in 0..count {
            let at = self.next_available;
            // Acquire: what the driver wrote before these flags is read after them (2.8.21.1).
            let flags = areas.flags(at, Ordering::Acquire)?;
            if !is_available(flags, at.wrap) {
                break;
            }
            let copy = descriptor::read(&areas.descriptors, usize::from(at.index)).map_err(descriptors_gone)?;
            let copy = PackedDescriptor::from_words(copy).with_flags(flags);
            if !collector.take(ChainId::new(copy.id(), 1, 0), copy.segment(), flags) {
                break;
            }
            self.next_available = at.advance_packed(1, self.size);
            self.in_flight += 1;
        }
        Ok(())
    }

    /// Takes again the next chain that was in flight at the restart.
    #[cold]
    fn pop_again<M: GuestMemory>(
        &mut self,
        areas: &Areas<'_>,
        memory: &M,
        chain: &mut Chain,
    ) -> Result<Option<ChainId>, QueueError> {
        let region = areas.in_flight()?;
        let tracker = self.tracker.as_mut().ok_or(QueueError::InFlightState)?;
        let Some((entry, descriptors)) = tracker.next_again(region)? else { return Ok(None) };
        chain.clear();
        let mut id = 0;
        let mut at = entry;
        for done in 1..=descriptors {
            let (copy, next) = tracker.descriptor(region, at)?;
            let goes_on = append(self.features, memory, copy, done == 1, chain)?;
            if goes_on != (done < descriptors) {
                return Err(QueueError::InFlightState);
            }
            id = copy.id();
            at = next;
        }
        Ok(Some(ChainId::new(id, descriptors, entry)))
    }

    /// Puts the chain back that was taken last.
    pub(crate) fn unpop(&mut self, areas: &Areas<'_>, id: ChainId) -> Result<(), QueueError> {
        let in_flight = self.in_flight.checked_sub(id.descriptors()).ok_or(QueueError::NotInFlight)?;
        if let Some(tracker) = &mut self.tracker
            && tracker.put_back(areas.in_flight()?, id.entry())?
        {
            return Ok(());
        }
        self.in_flight = in_flight;
        self.next_available = self.next_available.retreat_packed(id.descriptors(), self.size);
        Ok(())
    }

    /// Writes a used descriptor; of a batch the driver sees none before the first one's flags.
    #[inline(always)]
    pub(crate) fn stage(&mut self, areas: &Areas<'_>, id: ChainId, written: u32) -> Result<(), QueueError> {
        let in_flight = self.in_flight.checked_sub(id.descriptors()).ok_or(QueueError::NotInFlight)?;
        let at = self.next_used;
        let next = at.advance_packed(id.descriptors(), self.size);
        if let Some(tracker) = &self.tracker {
            tracker.staged(areas.in_flight()?, id.entry(), at, next)?;
        }
        let flags = used_flags(at, written);
        if self.staged.is_some() {
            areas.set_used(at, id, written)?;
        } else {
            let offset = DESCRIPTOR_SIZE * usize::from(at.index);
            // Relaxed: made visible by the flags, once the batch is published.
            areas.descriptors.store_u32(offset + LEN, written, Ordering::Relaxed).map_err(descriptors_gone)?;
            areas.descriptors.store_u16(offset + ID, id.index(), Ordering::Relaxed).map_err(descriptors_gone)?;
            self.staged = Some((at, flags));
        }
        (self.next_used, self.in_flight) = (next, in_flight);
        if let Some(not_notified) = &mut self.not_notified {
            *not_notified = not_notified.saturating_add(u32::from(id.descriptors()));
        }
        if let Some(tracker) = &self.tracker {
            // One by one: a batch that is left half written would, behind the next device's used descriptors, tell the
            // driver of buffers that it does not have.
            let tracker = *tracker;
            self.publish(areas)?;
            tracker.published(areas.in_flight()?, id.entry(), next)?;
        }
        Ok(())
    }

    /// As [`Self::stage`] for chains of one descriptor each, and not of a ring that is tracked.
    #[inline(always)]
    pub(crate) fn stage_singles(
        &mut self,
        areas: &Areas<'_>,
        mut singles: impl Iterator<Item = (ChainId, u32)>,
    ) -> Result<(), QueueError> {
        // The driver sees none of the others before this one.
        let Some((id, written)) = singles.next() else { return Ok(()) };
        self.stage(areas, id, written)?;
        let mut count = 0;
        for (id, written) in singles {
            areas.set_used(self.next_used, id, written)?;
            self.next_used = self.next_used.advance_packed(1, self.size);
            count += 1;
        }
        self.in_flight = self.in_flight.checked_sub(count).ok_or(QueueError::NotInFlight)?;
        if let Some(not_notified) = &mut self.not_notified {
            *not_notified = not_notified.saturating_add(u32::from(count));
        }
        Ok(())
    }

    /// Shows the driver all that was staged.
    #[inline(always)]
    pub(crate) fn publish(&mut self, areas: &Areas<'_>) -> Result<(), QueueError> {
        let Some((position, flags)) = self.staged.take() else { return Ok(()) };
        // Release: all that was written to the ring and to buffers comes before (2.8.12, 2.8.22).
        areas.set_flags(position, flags, Ordering::Release)
    }

    /// Whether the driver wants to be notified of what was published since this was last asked (2.8.10).
    #[inline]
    pub(crate) fn needs_notification(&mut self, areas: &Areas<'_>) -> Result<bool, QueueError> {
        if self.staged.is_some() {
            return Ok(false);
        }
        let Some(count) = self.not_notified.replace(0) else { return Ok(true) };
        if count == 0 {
            return Ok(false);
        }
        // What we have used must be visible before we look at what the driver wants, as it looks at the ring again after
        // it has written that: one of us sees the other's store (2.8.21.3.1, for the device likewise).
        fence(Ordering::SeqCst);
        // Acquire: the position belongs to these flags, and the driver writes it before them.
        let flags = areas.driver.load_u16(EVENT_FLAGS, Ordering::Acquire).map_err(driver_gone)? & 3;
        if flags == EVENT_DISABLE {
            return Ok(false);
        }
        if flags != EVENT_DESCRIPTOR || !self.features.contains(RingFeatures::EVENT_IDX) {
            return Ok(true);
        }
        // Relaxed: ordered by the Acquire of the flags.
        let event = areas.driver.load_u16(EVENT_POSITION, Ordering::Relaxed).map_err(driver_gone)?;
        let event = Position::from_packed(event);
        // Counted from the beginning of the lap in which the used position is: the position asked for is of this lap or
        // of the one before.
        let laps = if event.wrap == self.next_used.wrap { 0 } else { i64::from(self.size) };
        let event = i64::from(event.index) - laps;
        let new = i64::from(self.next_used.index);
        Ok((new - i64::from(count)..new).contains(&event))
    }

    /// Asks the driver to notify of the next buffer; returns whether there is one already (2.8.10).
    #[inline]
    pub(crate) fn enable_kicks(&mut self, areas: &Areas<'_>) -> Result<bool, QueueError> {
        if self.features.contains(RingFeatures::EVENT_IDX) {
            let position = self.next_available.to_packed();
            // Relaxed, then Release: the position is there before the flags that make it count.
            areas.device.store_u16(EVENT_POSITION, position, Ordering::Relaxed).map_err(device_gone)?;
            areas.device.store_u16(EVENT_FLAGS, EVENT_DESCRIPTOR, Ordering::Release).map_err(device_gone)?;
        } else {
            // Relaxed: ordered by the fence.
            areas.device.store_u16(EVENT_FLAGS, EVENT_ENABLE, Ordering::Relaxed).map_err(device_gone)?;
        }
        // What we want must be visible before we look for buffers once more (2.8.21.3.1).
        fence(Ordering::SeqCst);
        // Relaxed: only looked at; `pop` acquires.
        let flags = areas.flags(self.next_available, Ordering::Relaxed)?;
        Ok(self.left_again() > 0 || is_available(flags, self.next_available.wrap))
    }

    /// Tells the driver that it need not notify.
    #[inline]
    pub(crate) fn disable_kicks(&mut self, areas: &Areas<'_>) -> Result<(), QueueError> {
        // Relaxed: a hint, which the driver may see late.
        areas.device.store_u16(EVENT_FLAGS, EVENT_DISABLE, Ordering::Relaxed).map_err(device_gone)
    }
}

impl Areas<'_> {
    #[inline(always)]
    fn flags(&self, position: Position, order: Ordering) -> Result<Flags, QueueError> {
        let offset = DESCRIPTOR_SIZE * usize::from(position.index) + FLAGS;
        self.descriptors.load_u16(offset, order).map(Flags::from_bits_retain).map_err(descriptors_gone)
    }

    /// Writes a used descriptor behind the first one of a batch.
    #[inline(always)]
    fn set_used(&self, at: Position, id: ChainId, written: u32) -> Result<(), QueueError> {
        let offset = DESCRIPTOR_SIZE * usize::from(at.index);
        let flags = u64::from(used_flags(at, written).bits());
        let rest = u64::from(written) | u64::from(id.index()) << 32 | flags << 48;
        // Relaxed: the driver looks here only after it has seen the first one's flags. One store, as stores to lines that
        // the driver's CPU had last are what a batch waits for.
        self.descriptors.store_u64(offset + LEN, rest, Ordering::Relaxed).map_err(descriptors_gone)
    }

    #[inline(always)]
    fn set_flags(&self, position: Position, flags: Flags, order: Ordering) -> Result<(), QueueError> {
        let offset = DESCRIPTOR_SIZE * usize::from(position.index) + FLAGS;
        self.descriptors.store_u16(offset, flags.bits(), order).map_err(descriptors_gone)
    }
}

/// The flags of a used descriptor.
#[inline(always)]
fn used_flags(at: Position, written: u32) -> Flags {
    let mut flags = Flags::empty();
    flags.set(Flags::AVAIL | Flags::USED, at.wrap);
    // 2.8.3, 2.8.4: the length counts only with this flag.
    flags.set(Flags::WRITE, written > 0);
    flags
}

/// Whether a descriptor with these flags is the device's to take, in the lap with this wrap counter (2.8.1).
#[inline(always)]
fn is_available(flags: Flags, wrap: bool) -> bool {
    flags.contains(Flags::AVAIL) == wrap && flags.contains(Flags::USED) != wrap
}

/// Appends what a descriptor of the ring describes; returns whether the chain goes on.
#[inline(always)]
fn append<M: GuestMemory>(
    features: RingFeatures,
    memory: &M,
    copy: PackedDescriptor,
    is_first: bool,
    chain: &mut Chain,
) -> Result<bool, QueueError> {
    let goes_on = copy.flags().contains(Flags::NEXT);
    if !copy.flags().contains(Flags::INDIRECT) {
        chain.append(copy.segment())?;
        return Ok(goes_on);
    }
    // A list has descriptors of one kind only (2.8.5, 2.8.19).
    if goes_on || !is_first {
        return Err(QueueError::IndirectChained);
    }
    let (table, count) = descriptor::indirect_table(memory, copy.segment(), features)?;
    append_table(&table, count, chain)?;
    Ok(false)
}

/// Appends an indirect table: its descriptors follow each other, and of their flags only VIRTQ_DESC_F_WRITE counts (2.8.7).
#[inline]
fn append_table(table: &GuestSlice<'_>, count: u32, chain: &mut Chain) -> Result<(), QueueError> {
    for index in 0..count as usize {
        let copy = descriptor::read(table, index).map_err(descriptors_gone)?;
        chain.append(PackedDescriptor::from_words(copy).segment())?;
    }
    Ok(())
}
