//! A client that uses a device.

use core::cell::Cell;

use dragonfly_vhost_user::{Platform, Received, Reply, Session, SessionError};
use dragonfly_virtqueue::{GuestMemory, QueueError};
use log::{debug, warn};

use crate::serve::Serve;

/// Broken rings of one client that the log has at its usual level: a guest can break them as often as it likes.
pub const MAX_LINES: u32 = 32;

/// How a client's guest is reached.
pub trait GuestAccess: Platform {
    /// The guest's memory as a queue sees it: with the queue's part of the area for what is in flight.
    type Memory<'a>: GuestMemory
    where
        Self: 'a;

    /// The guest's memory as this queue sees it.
    fn memory(&self, index: u16) -> Self::Memory<'_>;

    /// Whether a ring has no kick, so that it must be polled.
    fn is_polled(&self, index: u16) -> bool;

    /// Tells the guest that buffers were used.
    fn call(&self, index: u16);

    /// Tells the front end that a ring is broken.
    fn report_broken(&self, index: u16);

    /// Tells the front end that the configuration space has changed, if it has said by what.
    fn report_config_change(&self) {}
}

/// Why a connection is to be closed.
pub type ConnectionError<P> = SessionError<QueueError, <P as Platform>::Error>;

/// A client: what it has said so far, and how its guest is reached. To be ended with [`Self::close`].
#[derive(Debug)]
pub struct Connection<P> {
    session: Session,
    lines_left: Cell<u32>,
    /// How the guest is reached.
    pub platform: P,
}

/// What a round over a device's rings came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Something was done, so there may be more to do.
    pub has_worked: bool,
    /// The earliest time at which there is something to do, in nanoseconds, if it is known.
    pub wait_until_ns: Option<u64>,
}

impl<P: GuestAccess> Connection<P> {
    /// A client that has said nothing.
    #[must_use]
    pub fn new(platform: P) -> Self {
        Self { session: Session::default(), lines_left: Cell::new(MAX_LINES), platform }
    }

    /// The same, with so many lines left for the log: what [`Self::close`] gave for a client of the same guest.
    #[must_use]
    pub fn with_lines(self, lines: u32) -> Self {
        self.lines_left.set(lines);
        self
    }

    /// Does what a message says.
    ///
    /// # Errors
    /// The message is wrong; the connection is to be closed.
    pub fn handle<D: Serve>(
        &mut self,
        message: Received<'_, P::Resource>,
        device: &mut D,
        shared: &mut D::Shared,
    ) -> Result<Option<Reply<P::Resource>>, ConnectionError<P>> {
        let reply = self.session.handle(message, device, &mut self.platform);
        device.rings_changed(shared);
        reply
    }

    /// Serves all rings once; `now_ns` is the time since some moment, in nanoseconds.
    pub fn serve<D: Serve>(&self, device: &mut D, shared: &mut D::Shared, now_ns: u64) -> Round {
        let mut round = Round::default();
        for index in 0..device.queues() {
            let memory = self.platform.memory(index);
            match device.serve(shared, index, &memory, now_ns) {
                Ok(service) => {
                    round.add(Round { has_worked: service.has_worked, wait_until_ns: service.wait_until_ns });
                    if service.notify {
                        self.platform.call(index);
                    }
                }
                Err(reason) => {
                    let left = self.lines_left.get();
                    self.lines_left.set(left.saturating_sub(1));
                    if left > 0 {
                        warn!("{}: queue {index} has stopped: {reason}", device.name());
                    } else {
                        debug!("{}: queue {index} has stopped: {reason}", device.name());
                    }
                    self.platform.report_broken(index);
                }
            }
        }
        self.tell_of_config(device);
        round
    }

    /// Tells the front end if the device's configuration space has changed since it was told last.
    pub fn tell_of_config<D: Serve>(&self, device: &mut D) {
        if device.take_config_change() {
            self.platform.report_config_change();
        }
    }

    /// Asks for kicks of all rings, and says whether there is something to do already, or a ring that nobody kicks.
    pub fn enable_kicks<D: Serve>(&self, device: &mut D) -> bool {
        let mut has_work = false;
        for index in 0..device.queues() {
            if device.runs(index) {
                let memory = self.platform.memory(index);
                has_work |= self.platform.is_polled(index) || device.enable_kicks(index, &memory);
            }
        }
        has_work
    }

    /// Ends the session: no ring of the device runs any more, and no memory is mapped. Gives the lines for the log that are
    /// left.
    pub fn close<D: Serve>(mut self, device: &mut D, shared: &mut D::Shared) -> u32 {
        self.session.close(device, &mut self.platform);
        device.rings_changed(shared);
        self.lines_left.get()
    }
}

impl Round {
    /// Both rounds together.
    pub fn add(&mut self, other: Self) {
        self.has_worked |= other.has_worked;
        self.wait_until_ns = match (self.wait_until_ns, other.wait_until_ns) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
}
