//! The driver of one virtio-blk device.

use alloc::string::String;
use core::ops::Range;
use core::time::Duration;

use arrayvec::ArrayVec;
use bitflags::bitflags;
use dragonfly_rt::sys::{Interrupt, Notification, Owned};
use dragonfly_storage::{BlockError, Geometry, SECTOR_BYTES, Sector};
use log::error;
use virtio_drivers::transport::Transport;

use super::request::{DATA_BYTES, ID_BYTES, Kind, Piece, SLOT_BYTES};
use crate::error::{Fault, OpenError};
use crate::hal::{Completed, SlotQueue, quiesce};
use crate::interrupt::{Wake, set_interrupt};
use crate::negotiation::{VERSION_1, negotiate, read_config};
use crate::transport::OnBus;
use crate::{Clock, REQUEST_TIMEOUT};

bitflags! {
    /// What the driver makes use of (virtio 1.2 5.2.3).
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        const SIZE_MAX = 1 << 1;
        const RO = 1 << 5;
        const BLK_SIZE = 1 << 6;
        const FLUSH = 1 << 9;
        const DISCARD = 1 << 13;
        const WRITE_ZEROES = 1 << 14;
        const VERSION_1 = VERSION_1;
    }
}

/// Fields of `struct virtio_blk_config` (virtio 1.2 5.2.4).
const CAPACITY: usize = 0;
const SIZE_MAX: usize = 8;
const BLK_SIZE: usize = 20;
const MAX_DISCARD_SECTORS: usize = 36;
const MAX_WRITE_ZEROES_SECTORS: usize = 48;

/// The queue that every device has.
const QUEUE: u16 = 0;

/// Requests under way at most, and their descriptors: each has four at most.
const SLOTS: usize = 4;
const RING: usize = 4 * SLOTS;

/// How long a request is polled for before who waits for it sleeps: what waking up costs.
const SPIN_TIME: Duration = Duration::from_micros(100);

/// How long it sleeps without looking.
const MAX_SLEEP_NS: u64 = 100_000_000;

/// The largest block that a disk may have.
const MAX_BLOCK_BYTES: u32 = DATA_BYTES as u32;

/// What the device says about itself, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) geometry: Geometry,
    /// Sectors of data in a request at most: whole blocks.
    pub(super) data_sectors: u64,
    /// Whether there is a cache to flush.
    pub(super) has_flush: bool,
    /// Sectors in a request to discard at most, if the device knows it.
    pub(super) discard_sectors: Option<u64>,
    /// Sectors in a request to fill with zeros at most, if the device knows it.
    pub(super) zeroes_sectors: Option<u64>,
}

/// The caller's side of a call.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// What is read goes there.
    Into(&'a mut [u8]),
    /// What is written comes from there.
    From(&'a [u8]),
    /// What is written, if anything, is zeros.
    None,
}

/// A device in use.
pub(super) struct Driver<T: Transport + OnBus> {
    name: String,
    transport: T,
    queue: SlotQueue<RING>,
    /// What each slot is for.
    pieces: [Option<Piece>; SLOTS],
    /// How to sleep while the device works.
    sleeper: Option<Sleeper>,
    fault: Option<Fault>,
    clock: Clock,
}

/// What the device wakes.
struct Sleeper {
    notification: Owned<Notification>,
    _interrupt: Owned<Interrupt>,
}

impl<T: Transport + OnBus> Driver<T> {
    /// Sets the device up. Who waits for it sleeps if the device can interrupt that CPU.
    pub(super) fn start(
        name: &str,
        mut transport: T,
        cpu: Option<u32>,
        clock: Clock,
    ) -> Result<(Self, Shape), OpenError> {
        let features: Features = negotiate(&mut transport, clock)?;
        let shape = read_shape(&transport, features)?;
        let sleeper = cpu.and_then(|cpu| Sleeper::new(name, &mut transport, cpu));
        let queue = SlotQueue::new(&mut transport, QUEUE, SLOTS, SLOT_BYTES)?;
        transport.finish_init();
        let (name, pieces) = (name.into(), [None; SLOTS]);
        let mut driver = Self { name, transport, queue, pieces, sleeper, fault: None, clock };
        driver.queue.set_interrupts(false);
        Ok((driver, shape))
    }

    /// Why the device was stopped, if it was.
    pub(super) const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// The serial number; empty if the device does not tell.
    pub(super) fn serial(&mut self) -> Result<String, BlockError> {
        let mut id = [0; ID_BYTES];
        let piece = Piece { kind: Kind::GetId, first: Sector(0), sectors: 0 };
        match self.perform(core::iter::once(piece), Sector(0), Data::Into(&mut id)) {
            Err(error) if self.fault.is_some() => return Err(error),
            Err(_) => return Ok(String::new()),
            Ok(()) => {}
        }
        let text = id.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Performs requests, several at a time, and waits for all. `first` is the sector of the start of `data`. After an error no
    /// more are begun.
    pub(super) fn perform(
        &mut self,
        mut pieces: impl Iterator<Item = Piece>,
        first: Sector,
        mut data: Data<'_>,
    ) -> Result<(), BlockError> {
        if self.fault.is_some() {
            return Err(BlockError::Medium);
        }
        self.run(&mut pieces, first, &mut data).unwrap_or_else(|fault| {
            self.stop(fault);
            Err(BlockError::Medium)
        })
    }

    fn run(
        &mut self,
        pieces: &mut impl Iterator<Item = Piece>,
        first: Sector,
        data: &mut Data<'_>,
    ) -> Result<Result<(), BlockError>, Fault> {
        let mut outcome = Ok(());
        loop {
            let mut has_submitted = false;
            while outcome.is_ok()
                && let Some(slot) = self.queue.free_slot()
                && let Some(piece) = pieces.next()
            {
                self.submit(slot, piece, place_in_data(&piece, first), data)?;
                has_submitted = true;
            }
            if has_submitted {
                self.queue.notify(&mut self.transport);
            }
            if !self.queue.is_busy() {
                return Ok(outcome);
            }
            let done = self.wait()?;
            outcome = outcome.and(self.finish(done, first, data)?);
        }
    }

    fn submit(&mut self, slot: usize, piece: Piece, place: Range<usize>, data: &Data<'_>) -> Result<(), Fault> {
        self.queue.write(slot, 0, &piece.head());
        if piece.kind == Kind::Write {
            match data {
                Data::From(bytes) => {
                    self.queue.write(slot, piece.data().start, bytes.get(place).ok_or(Fault::Internal)?);
                }
                _ => self.queue.clear(slot, piece.data().start, piece.data_bytes()),
            }
        }
        self.queue.write(slot, piece.status(), &Piece::no_status());
        let layout = piece.layout();
        let parts = |parts: [Range<usize>; 2]| -> ArrayVec<Range<usize>, 2> {
            parts.into_iter().filter(|part| !part.is_empty()).collect()
        };
        self.queue.submit(slot, &parts(layout.readable), &parts(layout.writable))?;
        *self.pieces.get_mut(slot).ok_or(Fault::Internal)? = Some(piece);
        Ok(())
    }

    /// Waits until the device is done with a request.
    fn wait(&mut self) -> Result<Completed, Fault> {
        let start = (self.clock)();
        loop {
            if let Some(done) = self.queue.take_completed()? {
                return Ok(done);
            }
            match (self.clock)().saturating_sub(start) {
                waited if waited > REQUEST_TIMEOUT => return Err(Fault::Timeout),
                waited if waited > SPIN_TIME => self.sleep(),
                _ => core::hint::spin_loop(),
            }
        }
    }

    /// Sleeps until the device interrupts, if it can.
    fn sleep(&mut self) {
        let Some(sleeper) = &self.sleeper else { return core::hint::spin_loop() };
        self.queue.set_interrupts(true);
        if !self.queue.has_completed() {
            // Whatever woke it, the queue tells whether the device is done.
            let _ = sleeper.notification.wait_timed(MAX_SLEEP_NS);
        }
        self.queue.set_interrupts(false);
    }

    fn finish(&mut self, done: Completed, first: Sector, data: &mut Data<'_>) -> Result<Result<(), BlockError>, Fault> {
        let piece = self.pieces.get_mut(done.slot).and_then(Option::take).ok_or(Fault::Internal)?;
        let mut status = Piece::no_status();
        self.queue.read(done.slot, piece.status(), &mut status);
        let outcome = piece.judge(status[0], done.written)?;
        if outcome.is_ok()
            && let Data::Into(bytes) = data
        {
            let into = bytes.get_mut(place_in_data(&piece, first)).ok_or(Fault::Internal)?;
            self.queue.read(done.slot, piece.data().start, into);
        }
        Ok(outcome)
    }

    /// Never uses the device again, and keeps it from accessing memory.
    fn stop(&mut self, fault: Fault) {
        error!("{}: the disk was stopped: {fault}", self.name);
        self.fault = Some(fault);
        if !quiesce(&mut self.transport, self.clock) {
            self.transport.cut_off();
        }
    }
}

impl Sleeper {
    /// `None` where the machine or the device has no such interrupts.
    fn new<T: OnBus>(name: &str, transport: &mut T, cpu: u32) -> Option<Self> {
        let notification = Notification::create().ok()?;
        let interrupt = set_interrupt(name, transport, QUEUE, Wake { notification: *notification, bits: 1, cpu })?;
        Some(Self { notification, _interrupt: interrupt })
    }
}

impl<T: Transport + OnBus> Drop for Driver<T> {
    fn drop(&mut self) {
        if self.fault.is_none() && !quiesce(&mut self.transport, self.clock) {
            self.transport.cut_off();
        }
    }
}

/// Where the piece's data is in the caller's, which starts at `first`.
fn place_in_data(piece: &Piece, first: Sector) -> Range<usize> {
    // Data is in memory, so this is a number of bytes in it.
    let start = piece.first.0.saturating_sub(first.0) as usize * SECTOR_BYTES;
    start..start + piece.data_bytes()
}

fn read_shape<T: Transport>(transport: &T, features: Features) -> Result<Shape, OpenError> {
    let read = |feature, offset| {
        let has_it = features.contains(feature);
        read_config(
            transport,
            |transport| {
                if has_it { transport.read_config_space::<u32>(offset).map(Some) } else { Ok(None) }
            },
        )
    };
    let capacity = read_config(transport, |transport| {
        let half = |offset| transport.read_config_space::<u32>(offset).map(u64::from);
        Ok(half(CAPACITY)? | half(CAPACITY + 4)? << 32)
    })?;
    let block_bytes = read(Features::BLK_SIZE, BLK_SIZE)?.unwrap_or(SECTOR_BYTES as u32);
    if !block_bytes.is_power_of_two() || !(SECTOR_BYTES as u32..=MAX_BLOCK_BYTES).contains(&block_bytes) {
        return Err(OpenError::Configuration("the size of a block"));
    }
    let block_sectors = u64::from(block_bytes) / SECTOR_BYTES as u64;
    let whole_blocks = |sectors: u64| sectors / block_sectors * block_sectors;
    let most_bytes = read(Features::SIZE_MAX, SIZE_MAX)?.map_or(DATA_BYTES, |most| DATA_BYTES.min(most as usize));
    let data_sectors = whole_blocks((most_bytes / SECTOR_BYTES) as u64);
    if data_sectors == 0 {
        return Err(OpenError::Configuration("the largest segment is smaller than a block"));
    }
    // Less than a block in a request is as good as none.
    let ranges = |most: Option<u32>| most.map(|most| whole_blocks(most.into())).filter(|most| *most > 0);
    Ok(Shape {
        geometry: Geometry {
            capacity_sectors: whole_blocks(capacity),
            block_bytes,
            is_read_only: features.contains(Features::RO),
        },
        data_sectors,
        has_flush: features.contains(Features::FLUSH),
        discard_sectors: ranges(read(Features::DISCARD, MAX_DISCARD_SECTORS)?),
        zeroes_sectors: ranges(read(Features::WRITE_ZEROES, MAX_WRITE_ZEROES_SECTORS)?),
    })
}
