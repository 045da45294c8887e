//! Split rings: a table of descriptors, a ring of what is available and one of what is used (virtio 1.2, 2.7).

use crate::sync::{Ordering, fence};

use crate::burst::{Collector, MAX_BURST};
use crate::chain::{Chain, ChainId};
use crate::descriptor::{self, DESCRIPTOR_SIZE, Flags, SplitDescriptor};
use crate::in_flight::SplitTracker;
use crate::memory::{Access, GuestMemory, GuestSlice, LINE};
use crate::queue::{Areas, descriptors_gone, device_gone, driver_gone};
use crate::{QueueConfig, QueueError, RingFeatures};

/// Offset of `flags` in the available and the used ring (2.7.6, 2.7.8).
const FLAGS: usize = 0;
/// Offset of `idx`.
const INDEX: usize = 2;
/// Offset of the first ring entry.
const RING: usize = 4;

/// VIRTQ_AVAIL_F_NO_INTERRUPT (2.7.6).
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY (2.7.8).
const NO_NOTIFY: u16 = 1;

/// How far a split ring has come. Indices run through all values of 16 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Split {
    size: u16,
    features: RingFeatures,
    /// The next available entry to take.
    pub(crate) next_available: u16,
    /// The driver's `idx` as it was last read: entries before it can be taken without another look.
    seen_available: u16,
    /// The next used entry to write.
    pub(crate) next_used: u16,
    /// `idx` of the used ring, as the driver sees it.
    pub(crate) published: u16,
    /// `published` when the driver was last notified or needed no notification; unknown after a restart.
    notified: Option<u16>,
    tracker: Option<SplitTracker>,
}

impl Split {
    pub(crate) fn new(config: &QueueConfig) -> Self {
        let available = config.state.next_available.index;
        let used = config.state.next_used.index;
        Self {
            size: config.size,
            features: config.features,
            next_available: available,
            seen_available: available,
            next_used: used,
            published: used,
            notified: (config.state == Default::default()).then_some(used),
            tracker: None,
        }
    }

    /// Takes up what the used ring and the memory for tracking say.
    pub(crate) fn recover(&mut self, areas: &Areas<'_>) -> Result<(), QueueError> {
        // Acquire: before anything that depends on it.
        let used = areas.device.load_u16(INDEX, Ordering::Acquire).map_err(device_gone)?;
        let tracker = SplitTracker::recover(areas.in_flight()?, self.size, used)?;
        // What was taken and not given back are the entries before the next available one.
        let available = used.wrapping_add(tracker.left());
        (self.next_used, self.published) = (used, used);
        (self.next_available, self.seen_available) = (available, available);
        if available != 0 {
            self.notified = None;
        }
        self.tracker = Some(tracker);
        Ok(())
    }

    /// How many chains were in flight at the restart and have not been taken again.
    #[inline(always)]
    pub(crate) fn left_again(&self) -> u16 {
        self.tracker.as_ref().map_or(0, SplitTracker::left)
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
        let Some(head) = self.next_head(areas)? else { return Ok(None) };
        self.read_chain(areas, memory, head, chain)?;
        if let Some(tracker) = &mut self.tracker {
            tracker.taken(areas.in_flight()?, head)?;
        }
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(ChainId::new(head, 0, 0)))
    }

    /// Takes again the next chain that was in flight at the restart.
    #[cold]
    fn pop_again<M: GuestMemory>(
        &mut self,
        areas: &Areas<'_>,
        memory: &M,
        chain: &mut Chain,
    ) -> Result<Option<ChainId>, QueueError> {
        let tracker = self.tracker.as_mut().ok_or(QueueError::InFlightState)?;
        let Some(head) = tracker.next_again(areas.in_flight()?)? else { return Ok(None) };
        self.read_chain(areas, memory, head, chain)?;
        Ok(Some(ChainId::new(head, 0, 0)))
    }

    #[inline(always)]
    const fn slot(&self, index: u16) -> usize {
        // The size is a power of two.
        (index & (self.size - 1)) as usize
    }

    /// Puts the chain back that was taken last.
    pub(crate) fn unpop(&mut self, areas: &Areas<'_>, id: ChainId) -> Result<(), QueueError> {
        if let Some(tracker) = &mut self.tracker
            && tracker.put_back(areas.in_flight()?, id.index())?
        {
            return Ok(());
        }
        self.next_available = self.next_available.wrapping_sub(1);
        Ok(())
    }

    /// Takes the next chains, at most `count`, up to one that is not what is collected. None of a ring that is tracked.
    ///
    /// Passes: one lets the CPU fetch descriptors, one reads them and lets it fetch buffers, so that all lines are on their way
    /// at once; and those of the used elements to be written.
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
        if self.seen_available.wrapping_sub(self.next_available) < count {
            self.look(areas)?;
        }
        let count = self.seen_available.wrapping_sub(self.next_available).min(count);
        if count == 0 {
            return Ok(());
        }
        let table = &areas.descriptors;
        let mut heads = [0; MAX_BURST];
        let heads = heads.get_mut(..usize::from(count)).unwrap_or_default();
        let first = self.slot(self.next_available);
        let (before_end, from_begin) = heads.split_at_mut(heads.len().min(usize::from(self.size) - first));
        // Relaxed: ordered by the Acquire of `idx`.
        areas.driver.load_u16s(RING + 2 * first, before_end).map_err(driver_gone)?;
        areas.driver.load_u16s(RING, from_begin).map_err(driver_gone)?;
        for head in &*heads {
            table.prefetch(DESCRIPTOR_SIZE * usize::from(*head), Access::Read);
        }
        let used = RING + 8 * self.slot(self.next_used);
        (0..8 * heads.len()).step_by(LINE).for_each(|offset| areas.device.prefetch(used + offset, Access::Write));
        for head in heads {
            if *head >= self.size {
                break;
            }
            let copy = descriptor::read(table, usize::from(*head)).map_err(descriptors_gone)?;
            let copy = SplitDescriptor::from_words(copy);
            if !collector.take(ChainId::new(*head, 0, 0), copy.segment(), copy.flags()) {
                break;
            }
            self.next_available = self.next_available.wrapping_add(1);
        }
        Ok(())
    }

    /// The head of the next available chain.
    #[inline(always)]
    fn next_head(&mut self, areas: &Areas<'_>) -> Result<Option<u16>, QueueError> {
        if self.next_available == self.seen_available {
            self.look(areas)?;
            if self.seen_available == self.next_available {
                return Ok(None);
            }
        }
        self.head(areas, self.next_available).map(Some)
    }

    /// Looks how far the driver has come.
    #[inline(always)]
    fn look(&mut self, areas: &Areas<'_>) -> Result<(), QueueError> {
        // Acquire: descriptors and ring entries, written before the driver's barrier, are read after this (2.7.13.3).
        let index = areas.driver.load_u16(INDEX, Ordering::Acquire).map_err(driver_gone)?;
        let in_use = self.next_available.wrapping_sub(self.published);
        if index.wrapping_sub(self.next_available) > self.size.saturating_sub(in_use) {
            let (used, size) = (self.published, self.size);
            return Err(QueueError::AvailableTooFar { available: index, used, size });
        }
        self.seen_available = index;
        Ok(())
    }

    /// The head of an available chain that was seen.
    #[inline(always)]
    fn head(&self, areas: &Areas<'_>, index: u16) -> Result<u16, QueueError> {
        // Relaxed: ordered by the Acquire of `idx`.
        areas.driver.load_u16(RING + 2 * self.slot(index), Ordering::Relaxed).map_err(driver_gone)
    }

    /// Copies the chain at `head` and checks it.
    #[inline(always)]
    fn read_chain<M: GuestMemory>(
        &self,
        areas: &Areas<'_>,
        memory: &M,
        head: u16,
        chain: &mut Chain,
    ) -> Result<(), QueueError> {
        chain.clear();
        let Some(indirect) = walk(&areas.descriptors, u32::from(self.size), head, chain)? else { return Ok(()) };
        if indirect.flags().contains(Flags::NEXT) {
            return Err(QueueError::IndirectChained);
        }
        let (table, count) = descriptor::indirect_table(memory, indirect.segment(), self.features)?;
        match walk(&table, count, 0, chain)? {
            None => Ok(()),
            Some(_) => Err(QueueError::IndirectOfIndirect),
        }
    }

    /// Writes a used element, which the driver does not see yet.
    #[inline(always)]
    pub(crate) fn stage(&mut self, areas: &Areas<'_>, id: ChainId, written: u32) -> Result<(), QueueError> {
        if let Some(tracker) = &mut self.tracker {
            tracker.staged(areas.in_flight()?, id.index())?;
        }
        let element = RING + 8 * self.slot(self.next_used);
        // The Release in `publish` makes them visible.
        areas.device.store_u32_pair(element, [u32::from(id.index()), written]).map_err(device_gone)?;
        self.next_used = self.next_used.wrapping_add(1);
        Ok(())
    }

    /// As [`Self::stage`] for chains of one descriptor each.
    #[inline(always)]
    pub(crate) fn stage_singles(
        &mut self,
        areas: &Areas<'_>,
        mut singles: impl Iterator<Item = (ChainId, u32)>,
    ) -> Result<(), QueueError> {
        singles.try_for_each(|(id, written)| self.stage(areas, id, written))
    }

    /// Shows the driver all that was staged.
    #[inline(always)]
    pub(crate) fn publish(&mut self, areas: &Areas<'_>) -> Result<(), QueueError> {
        if self.published != self.next_used {
            // Release: used elements and what was written to buffers come before `idx` (2.7.8.2).
            areas.device.store_u16(INDEX, self.next_used, Ordering::Release).map_err(device_gone)?;
            self.published = self.next_used;
            if let Some(tracker) = &mut self.tracker {
                tracker.published(areas.in_flight()?, self.published)?;
            }
        }
        Ok(())
    }

    /// Whether the driver wants to be notified of what was published since this was last asked (2.7.7.2).
    #[inline]
    pub(crate) fn needs_notification(&mut self, areas: &Areas<'_>) -> Result<bool, QueueError> {
        let new = self.published;
        let Some(old) = self.notified.replace(new) else { return Ok(true) };
        if new == old {
            return Ok(false);
        }
        // Our `idx` must be visible before we look at what the driver wants, as it looks at `idx` again after it has
        // written that: one of us sees the other's store (2.7.13.4.1, for the device likewise).
        fence(Ordering::SeqCst);
        if self.features.contains(RingFeatures::EVENT_IDX) {
            let event = RING + 2 * usize::from(self.size);
            // Relaxed: the fence orders it, and nothing hangs on it.
            let event = areas.driver.load_u16(event, Ordering::Relaxed).map_err(driver_gone)?;
            // Whether `event` is among the entries from `old` to `new`.
            Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
        } else {
            // Relaxed: as above.
            let flags = areas.driver.load_u16(FLAGS, Ordering::Relaxed).map_err(driver_gone)?;
            Ok(flags & NO_INTERRUPT == 0)
        }
    }

    /// Asks the driver to notify of the next buffer; returns whether there is one already (2.7.10).
    #[inline]
    pub(crate) fn enable_kicks(&mut self, areas: &Areas<'_>) -> Result<bool, QueueError> {
        // Relaxed: ordered by the fence.
        if self.features.contains(RingFeatures::EVENT_IDX) {
            let event = RING + 8 * usize::from(self.size);
            areas.device.store_u16(event, self.next_available, Ordering::Relaxed).map_err(device_gone)?;
        } else {
            areas.device.store_u16(FLAGS, 0, Ordering::Relaxed).map_err(device_gone)?;
        }
        // What we want must be visible before we look for buffers once more (2.7.13.4.1).
        fence(Ordering::SeqCst);
        // Relaxed: only compared; `next_head` acquires.
        let index = areas.driver.load_u16(INDEX, Ordering::Relaxed).map_err(driver_gone)?;
        Ok(self.left_again() > 0 || index != self.next_available)
    }

    /// Tells the driver that it need not notify. With the event index nothing is to be done: the one asked for last has
    /// passed, or passes once more (2.7.10.2 demands `flags` to be 0 then).
    #[inline]
    pub(crate) fn disable_kicks(&mut self, areas: &Areas<'_>) -> Result<(), QueueError> {
        if self.features.contains(RingFeatures::EVENT_IDX) {
            return Ok(());
        }
        // Relaxed: a hint, which the driver may see late.
        areas.device.store_u16(FLAGS, NO_NOTIFY, Ordering::Relaxed).map_err(device_gone)
    }
}

/// Appends descriptors of `table`, which has `count`, from `head` on, to the end of the chain or up to an indirect
/// descriptor, which it returns.
#[inline(always)]
fn walk(
    table: &GuestSlice<'_>,
    count: u32,
    head: u16,
    chain: &mut Chain,
) -> Result<Option<SplitDescriptor>, QueueError> {
    let mut index = head;
    for _ in 0..count {
        if u32::from(index) >= count {
            return Err(QueueError::DescriptorIndex { index, size: count });
        }
        let descriptor = descriptor::read(table, usize::from(index)).map_err(descriptors_gone)?;
        let descriptor = SplitDescriptor::from_words(descriptor);
        if descriptor.flags().contains(Flags::INDIRECT) {
            return Ok(Some(descriptor));
        }
        chain.append(descriptor.segment())?;
        if !descriptor.flags().contains(Flags::NEXT) {
            return Ok(None);
        }
        index = descriptor.next();
    }
    Err(QueueError::ChainTooLong)
}
