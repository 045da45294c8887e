//! A queue of either layout.

use crate::burst::{Burst, Collector, MAX_BURST, Single};
use crate::chain::{Chain, ChainId};
use crate::memory::{Access, GuestMemory, GuestSlice, MemoryError};
use crate::packed::Packed;
use crate::split::Split;
use crate::{Position, QueueConfig, QueueError, QueueState, RingFeatures, RingPart};

/// The device's side of a virtqueue.
///
/// Each call takes the memory in which the ring lies. A device that handles several chains in a row saves look-ups with
/// [`Queue::attach`].
#[derive(Clone, Debug)]
pub struct Queue {
    config: QueueConfig,
    ring: Ring,
    error: Option<QueueError>,
    /// Counts resets, so that chains from before one are known.
    generation: u16,
    /// How many chains were taken.
    popped: u16,
    /// How many chains were given back.
    pushed: u16,
}

#[derive(Clone, Debug)]
enum Ring {
    Split(Split),
    Packed(Packed),
}

/// Calls the same function of either layout.
macro_rules! ring {
    ($queue:expr, $ring:ident => $call:expr) => {
        match $queue {
            Ring::Split($ring) => $call,
            Ring::Packed($ring) => $call,
        }
    };
}

/// Where a ring's parts are mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Areas<'m> {
    pub(crate) descriptors: GuestSlice<'m>,
    pub(crate) driver: GuestSlice<'m>,
    pub(crate) device: GuestSlice<'m>,
    in_flight: Option<GuestSlice<'m>>,
}

impl<'m> Areas<'m> {
    /// The memory that tracks what is in flight.
    #[inline]
    pub(crate) fn in_flight(&self) -> Result<&GuestSlice<'m>, QueueError> {
        self.in_flight.as_ref().ok_or(QueueError::InFlightMemory)
    }
}

impl Queue {
    /// A queue that goes on at `config.state`.
    ///
    /// # Errors
    /// [`QueueError::Size`], [`QueueError::Alignment`], [`QueueError::RingWraps`], [`QueueError::Position`].
    pub fn new(config: QueueConfig) -> Result<Self, QueueError> {
        config.check()?;
        let ring =
            if config.is_packed() { Ring::Packed(Packed::new(&config)) } else { Ring::Split(Split::new(&config)) };
        Ok(Self { config, ring, error: None, generation: 0, popped: 0, pushed: 0 })
    }

    /// A queue that goes on where a predecessor left it, maybe by dying, as told by the memory where that tracked what it
    /// had in flight ([`GuestMemory::in_flight`], [`in_flight_region_size`](crate::in_flight_region_size)). What it had
    /// in flight is taken first, in the same order. If that memory was never used, the queue begins to track there and
    /// goes on at `config.state`: for a split ring, at what its used ring says.
    ///
    /// From then on each call needs the same memory. It belongs to one life of the ring: who resets the ring clears it.
    ///
    /// # Errors
    /// As [`Self::new`]; [`QueueError::RingUnmapped`], [`QueueError::InFlightMemory`], [`QueueError::InFlightState`].
    pub fn recover<M: GuestMemory>(config: QueueConfig, memory: &M) -> Result<Self, QueueError> {
        let mut queue = Self::new(config)?;
        let areas = queue.areas(memory)?;
        ring!(&mut queue.ring, ring => ring.recover(&areas))?;
        Ok(queue)
    }

    /// Forgets everything and goes on as a queue made from `config`; chains taken before cannot be given back any more
    /// (virtio 1.2, 2.6.1). It is the transport that tells the driver so.
    ///
    /// # Errors
    /// As [`Self::new`]; then the queue is as it was.
    pub fn reset(&mut self, config: QueueConfig) -> Result<(), QueueError> {
        let generation = self.generation.wrapping_add(1);
        *self = Self { generation, ..Self::new(config)? };
        Ok(())
    }

    /// Why the queue has stopped, if it has.
    #[inline]
    #[must_use]
    pub const fn error(&self) -> Option<QueueError> {
        self.error
    }

    /// Stops the queue: for devices that find the driver's fault in a chain's contents. The first reason stays.
    pub fn stop(&mut self, reason: QueueError) {
        self.error.get_or_insert(reason);
    }

    /// What the queue was made from.
    #[inline]
    #[must_use]
    pub const fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// How far the queue has come: where another one can go on, once nothing is in flight.
    #[must_use]
    pub fn state(&self) -> QueueState {
        match &self.ring {
            Ring::Split(ring) => QueueState {
                next_available: Position { index: ring.next_available, wrap: true },
                next_used: Position { index: ring.published, wrap: true },
            },
            Ring::Packed(ring) => QueueState { next_available: ring.next_available, next_used: ring.published() },
        }
    }

    /// How many chains have been taken and not given back.
    #[inline]
    #[must_use]
    pub const fn in_flight(&self) -> u16 {
        self.popped.wrapping_sub(self.pushed)
    }

    /// Looks up where the ring lies in `memory`, for several calls.
    ///
    /// # Errors
    /// Why the queue has stopped; [`QueueError::RingUnmapped`], which stops it.
    #[inline]
    pub fn attach<'q, 'm, M: GuestMemory>(&'q mut self, memory: &'m M) -> Result<Attached<'q, 'm, M>, QueueError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match self.areas(memory) {
            Ok(areas) => Ok(Attached { queue: self, memory, areas }),
            Err(error) => Err(*self.error.insert(error)),
        }
    }

    /// Takes the next chain. A large value: [`Self::pop_into`] moves less.
    ///
    /// # Errors
    /// Why the queue has stopped.
    #[inline]
    pub fn pop<M: GuestMemory>(&mut self, memory: &M) -> Result<Option<Chain>, QueueError> {
        let mut chain = Chain::new();
        Ok(self.pop_into(memory, &mut chain)?.then_some(chain))
    }

    /// Takes the next chain into `chain`; returns whether there was one. If not, what `chain` holds means nothing.
    ///
    /// # Errors
    /// Why the queue has stopped.
    #[inline]
    pub fn pop_into<M: GuestMemory>(&mut self, memory: &M, chain: &mut Chain) -> Result<bool, QueueError> {
        self.attach(memory)?.pop_into(chain)
    }

    /// Gives a chain back to the driver, with how many bytes were written to it.
    ///
    /// # Errors
    /// Why the queue has stopped; [`QueueError::NotInFlight`] and [`QueueError::OutOfOrder`], which do not stop it.
    #[inline]
    pub fn push<M: GuestMemory>(&mut self, memory: &M, id: ChainId, written: u32) -> Result<(), QueueError> {
        self.attach(memory)?.push(id, written)
    }

    /// Whether the driver wants a notification of what was given back since this was last asked. A queue that has
    /// stopped needs none.
    #[inline]
    pub fn needs_notification<M: GuestMemory>(&mut self, memory: &M) -> bool {
        self.attach(memory).is_ok_and(|mut attached| attached.needs_notification())
    }

    /// Asks the driver to notify of the next chain; returns whether there already is one, of which it may not notify.
    #[inline]
    pub fn enable_kicks<M: GuestMemory>(&mut self, memory: &M) -> bool {
        self.attach(memory).is_ok_and(|mut attached| attached.enable_kicks())
    }

    /// Tells the driver that it need not notify: a hint.
    #[inline]
    pub fn disable_kicks<M: GuestMemory>(&mut self, memory: &M) {
        if let Ok(mut attached) = self.attach(memory) {
            attached.disable_kicks();
        }
    }

    #[inline]
    fn areas<'m, M: GuestMemory>(&self, memory: &'m M) -> Result<Areas<'m>, QueueError> {
        let [descriptors, driver, device] = self
            .config
            .parts()
            .map(|(part, address, len, _)| memory.slice(address, len).map_err(|_| QueueError::RingUnmapped(part)));
        let in_flight = memory.in_flight();
        Ok(Areas { descriptors: descriptors?, driver: driver?, device: device?, in_flight })
    }
}

/// A queue, and where its ring lies in memory. Here the calls of the data path are inlined, which is worth a fourth of
/// their time.
#[derive(Debug)]
pub struct Attached<'q, 'm, M> {
    queue: &'q mut Queue,
    memory: &'m M,
    areas: Areas<'m>,
}

impl<'m, M: GuestMemory> Attached<'_, 'm, M> {
    /// As [`Queue::pop_into`].
    ///
    /// # Errors
    /// As [`Queue::pop_into`].
    #[inline]
    pub fn pop_into(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        self.try_pop(chain).map_err(|error| self.stop(error))
    }

    /// Takes the next chains, at most `count` and [`MAX_BURST`](crate::MAX_BURST), into `burst`, as long as each is one buffer
    /// for this access that is mapped in one piece, and lets the CPU fetch the first two lines of each: for devices that take
    /// several in a row, all of it is on its way at once. Other chains are taken by [`Self::pop_into`], which also says
    /// what is wrong with them; so are all of a ring whose memory tracks what is in flight.
    ///
    /// # Errors
    /// Why the queue has stopped.
    #[inline]
    pub fn pop_burst(&mut self, count: usize, access: Access, burst: &mut Burst<'m>) -> Result<(), QueueError> {
        self.check()?;
        burst.clear();
        let queue = &mut *self.queue;
        let (popped, generation) = (queue.popped, queue.generation);
        let mut collector = Collector { memory: self.memory, access, popped, generation, burst };
        // At most a few.
        let count = count.min(MAX_BURST) as u16;
        let result = ring!(&mut queue.ring, ring => ring.pop_burst(&self.areas, count, &mut collector));
        queue.popped = collector.popped;
        result.map_err(|error| self.stop(error))
    }

    /// Puts the last chains of a burst back, as if they had not been taken, and keeps the first `kept`. Nothing may have been
    /// taken since.
    ///
    /// # Errors
    /// As [`Self::unpop`].
    #[inline]
    pub fn unpop_burst(&mut self, burst: &mut Burst<'m>, kept: usize) -> Result<(), QueueError> {
        while burst.len() > kept
            && let Some(single) = burst.pop()
        {
            self.unpop(single.id())?;
        }
        Ok(())
    }

    /// As [`Self::stage`] for each chain of a burst, with the bytes that were written to it.
    ///
    /// # Errors
    /// As [`Queue::push`].
    #[inline]
    pub fn stage_burst(&mut self, burst: &Burst<'_>, written: impl IntoIterator<Item = u32>) -> Result<(), QueueError> {
        self.check()?;
        let queue = &mut *self.queue;
        let Some(first) = burst.iter().next().map(Single::id) else { return Ok(()) };
        if first.generation() != queue.generation || usize::from(queue.in_flight()) < burst.len() {
            return Err(QueueError::NotInFlight);
        }
        if queue.config.features.contains(RingFeatures::IN_ORDER) && first.sequence() != queue.pushed {
            return Err(QueueError::OutOfOrder);
        }
        let mut staged = 0;
        let singles =
            burst.iter().zip(written).map(|(single, written)| (single.id(), written)).inspect(|_| staged += 1);
        let result = ring!(&mut queue.ring, ring => ring.stage_singles(&self.areas, singles));
        queue.pushed = queue.pushed.wrapping_add(staged);
        result.map_err(|error| self.stop(error))
    }

    /// Puts the chain that was taken last back, as if it had not been: for devices that need several chains for what they
    /// have, and find too few. May be repeated, with the chain taken before that, unless it was given back.
    ///
    /// # Errors
    /// Why the queue has stopped; [`QueueError::NotInFlight`] if it was not the last one, which does not stop the queue.
    #[inline]
    pub fn unpop(&mut self, id: ChainId) -> Result<(), QueueError> {
        self.check()?;
        let queue = &mut *self.queue;
        let last = queue.popped.wrapping_sub(1);
        if id.generation() != queue.generation || queue.in_flight() == 0 || id.sequence() != last {
            return Err(QueueError::NotInFlight);
        }
        ring!(&mut queue.ring, ring => ring.unpop(&self.areas, id)).map_err(|error| self.stop(error))?;
        self.queue.popped = last;
        Ok(())
    }

    /// Gives a chain back to the driver, who sees it at once.
    ///
    /// # Errors
    /// As [`Queue::push`].
    #[inline]
    pub fn push(&mut self, id: ChainId, written: u32) -> Result<(), QueueError> {
        self.stage(id, written)?;
        self.publish()
    }

    /// Gives a chain back to the driver, who sees it after [`Self::publish`]: a batch costs it fewer cache misses. On a
    /// packed ring with tracking it sees it at once.
    ///
    /// # Errors
    /// As [`Queue::push`].
    #[inline(always)]
    pub fn stage(&mut self, id: ChainId, written: u32) -> Result<(), QueueError> {
        self.check()?;
        let queue = &mut *self.queue;
        if id.generation() != queue.generation || queue.in_flight() == 0 {
            return Err(QueueError::NotInFlight);
        }
        if queue.config.features.contains(RingFeatures::IN_ORDER) && id.sequence() != queue.pushed {
            return Err(QueueError::OutOfOrder);
        }
        ring!(&mut queue.ring, ring => ring.stage(&self.areas, id, written)).map_err(|error| self.stop(error))?;
        self.queue.pushed = self.queue.pushed.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver all that was staged.
    ///
    /// # Errors
    /// Why the queue has stopped.
    #[inline(always)]
    pub fn publish(&mut self) -> Result<(), QueueError> {
        self.check()?;
        ring!(&mut self.queue.ring, ring => ring.publish(&self.areas)).map_err(|error| self.stop(error))
    }

    /// As [`Queue::needs_notification`]; what is staged does not count.
    #[inline]
    pub fn needs_notification(&mut self) -> bool {
        if self.queue.error.is_some() {
            return false;
        }
        ring!(&mut self.queue.ring, ring => ring.needs_notification(&self.areas)).unwrap_or_else(|error| {
            self.stop(error);
            false
        })
    }

    /// As [`Queue::enable_kicks`].
    #[inline]
    pub fn enable_kicks(&mut self) -> bool {
        if self.queue.error.is_some() {
            return false;
        }
        ring!(&mut self.queue.ring, ring => ring.enable_kicks(&self.areas)).unwrap_or_else(|error| {
            self.stop(error);
            false
        })
    }

    /// As [`Queue::disable_kicks`].
    #[inline]
    pub fn disable_kicks(&mut self) {
        if self.queue.error.is_some() {
            return;
        }
        let result = ring!(&mut self.queue.ring, ring => ring.disable_kicks(&self.areas));
        if let Err(error) = result {
            self.stop(error);
        }
    }

    #[inline(always)]
    fn try_pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        self.check()?;
        let queue = &mut *self.queue;
        let Some(id) = ring!(&mut queue.ring, ring => ring.pop(&self.areas, self.memory, chain))? else {
            return Ok(false);
        };
        chain.set_id(id.taken(queue.popped, queue.generation));
        queue.popped = queue.popped.wrapping_add(1);
        Ok(true)
    }

    #[inline(always)]
    fn check(&self) -> Result<(), QueueError> {
        if self.queue.error.is_some() { Err(self.why()) } else { Ok(()) }
    }

    /// Why the queue has stopped. Apart, so that the common path carries no error about.
    #[cold]
    fn why(&self) -> QueueError {
        self.queue.error.unwrap_or(QueueError::NotInFlight)
    }

    #[cold]
    fn stop(&mut self, error: QueueError) -> QueueError {
        *self.queue.error.get_or_insert(error)
    }
}

pub(crate) fn descriptors_gone(_: MemoryError) -> QueueError {
    QueueError::RingUnmapped(RingPart::Descriptors)
}

pub(crate) fn driver_gone(_: MemoryError) -> QueueError {
    QueueError::RingUnmapped(RingPart::Driver)
}

pub(crate) fn device_gone(_: MemoryError) -> QueueError {
    QueueError::RingUnmapped(RingPart::Device)
}
