//! A device of the card as the guest's machine has it: a vhost-user front end that remembers what the guest's driver has
//! said, so that another card can go on where one has died.

use alloc::vec;
use alloc::vec::Vec;

use dragonfly_abi::Status;
use dragonfly_machine::Message;
use dragonfly_machine::virtio::{Description, DeviceKind, Failed, QueueSetup};
use dragonfly_vhost_user::wire::{InflightArea, VringAddress};
use dragonfly_vhost_user::{F_PROTOCOL_FEATURES, FrontEnd, FrontEndError, ProtocolFeatures, Transport};
use log::{debug, warn};
use thiserror::Error;

use super::offer::Offer;
use super::transport::CarryError;
use super::wiring::Wiring;

/// Most descriptors of a queue.
const QUEUE_SIZE: u16 = 256;

/// Features that guests are not offered: the protocol's own, and packed rings, in which another card could not find out
/// where one has died.
const WITHHELD: u64 = F_PROTOCOL_FEATURES | 1 << 34;

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum DeviceError {
    /// A message did not get through, or was not understood.
    #[error(transparent)]
    Session(#[from] FrontEndError<CarryError>),
    /// The card's version does not fit.
    #[error("the card does not have {0:?}")]
    Lacks(ProtocolFeatures),
    /// A card that was started again offers less than its predecessor.
    #[error("the card offers something else than the one before")]
    Changed,
    /// A running ring is not in RAM.
    #[error("where ring {0} was is not known")]
    Unknown(u16),
    /// The kernel refuses what its queues need.
    #[error("its queues cannot be connected: {0}")]
    Kernel(#[from] Status),
}

/// How it is with the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The card knows all that the driver has said.
    Up,
    /// The card is gone: the next one is told everything.
    Lost,
    /// The card has ended the session: all begins anew when the driver resets the device.
    Failed,
}

/// A queue as the driver has set it up.
#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    /// While it runs.
    setup: Option<QueueSetup>,
    /// Whether there may be something of it in the memory for requests under way, which belongs to one life of a ring.
    is_tracked: bool,
    doorbell: Option<u16>,
}

/// A device of the card. Messages are carried by `T`, signals by `W`.
pub(crate) struct Device<T, W> {
    front_end: FrontEnd<T>,
    wiring: W,
    kind: DeviceKind,
    state: State,
    /// What the card offers.
    offered: u64,
    extensions: ProtocolFeatures,
    /// What the driver has accepted.
    accepted: Option<u64>,
    config: Vec<u8>,
    /// Whether that has changed and the driver is to be told.
    is_config_changed: bool,
    rings: Vec<Ring>,
    /// Whether this session knows the memory for requests under way.
    knows_in_flight: bool,
    /// Whether it was told that the card has ended a session: a guest may bring that about again and again.
    has_warned: bool,
}

impl<T, W> Device<T, W>
where
    T: Transport<Error = CarryError>,
    W: Wiring<Resource = T::Resource>,
{
    /// Begins a device's session. `wire` makes the wiring for so many queues.
    ///
    /// # Errors
    /// The card does not serve it.
    pub(crate) fn connect(
        kind: DeviceKind,
        transport: T,
        wire: impl FnOnce(u16) -> Result<W, Status>,
    ) -> Result<Self, DeviceError> {
        let mut front_end = FrontEnd::new(transport);
        let Offer { features, extensions, queues, config } = Offer::ask(&mut front_end, kind)?;
        let wiring = wire(queues)?;
        front_end.set_memory(&wiring.memory())?;
        let mut device = Self {
            front_end,
            wiring,
            kind,
            state: State::Up,
            offered: features,
            extensions,
            accepted: None,
            config,
            is_config_changed: false,
            rings: vec![Ring::default(); usize::from(queues)],
            knows_in_flight: false,
            has_warned: false,
        };
        device.set_channel()?;
        Ok(device)
    }

    /// What the guest's machine needs to know of it.
    pub(crate) fn description(&self) -> Description {
        Description {
            kind: self.kind,
            queues: self.rings.len() as u16,
            queue_size_max: QUEUE_SIZE,
            config_size: self.config.len() as u16,
        }
    }

    /// What its queues are connected with.
    pub(crate) const fn wiring_mut(&mut self) -> &mut W {
        &mut self.wiring
    }

    /// Goes on with a card that knows nothing of the device: tells it everything, and lets rings go on where their used
    /// rings end. What was used and not told to the guest is told now.
    ///
    /// # Errors
    /// The card cannot go on; the driver is to reset the device.
    pub(crate) fn resume(&mut self) -> Result<(), Failed> {
        if self.state == State::Failed {
            return Ok(());
        }
        self.state = State::Up;
        if self.attempt(Self::tell_all)?.is_none() {
            return Ok(());
        }
        for (queue, ring) in (0..).zip(&self.rings) {
            if let Some(port) = ring.doorbell {
                self.wiring.set_doorbell(port);
            }
            if ring.setup.is_some() {
                self.wiring.interrupt(queue);
            }
        }
        Ok(())
    }

    /// Whether the configuration space has changed since this was asked last. Only a card that tells of changes is asked for it:
    /// another may be long in answering.
    ///
    /// # Errors
    /// The card has ended the session; the driver is to reset the device.
    pub(crate) fn take_config_change(&mut self) -> Result<bool, Failed> {
        if self.extensions.contains(ProtocolFeatures::BACKEND_REQ) {
            self.attempt(Self::read_again)?;
        }
        Ok(core::mem::take(&mut self.is_config_changed))
    }

    /// Lets go of the guest's memory: the machine is to end.
    pub(crate) fn end(&mut self) {
        if self.state == State::Up {
            // A card that is gone has let go of it already; one whose disk hangs does when the VMM's memory goes.
            let _ = self.front_end.reset_device().and_then(|()| self.front_end.set_memory(&[]));
        }
        for (queue, ring) in (0..).zip(&mut self.rings) {
            ring.setup = None;
            self.wiring.set_message(queue, None);
        }
    }

    /// See [`Backend`](dragonfly_machine::virtio::Backend), as the others here.
    pub(crate) const fn features(&self) -> u64 {
        self.offered & !WITHHELD
    }

    pub(crate) fn negotiate(&mut self, features: u64) -> Result<(), Failed> {
        self.accepted = Some(features);
        self.attempt(|device| Ok(device.front_end.set_features(features | F_PROTOCOL_FEATURES)?)).map(drop)
    }

    pub(crate) fn read_config(&self, offset: u16, data: &mut [u8]) {
        let bytes = self.config.get(usize::from(offset)..).unwrap_or_default();
        for (into, from) in data.iter_mut().zip(bytes) {
            *into = *from;
        }
    }

    pub(crate) fn write_config(&mut self, offset: u16, data: &[u8]) {
        // What comes of it shows when it is read.
        let _ = self.attempt(|device| {
            device.front_end.write_config(offset.into(), data)?;
            device.read_again()
        });
    }

    pub(crate) fn start_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), Failed> {
        let ring = self.rings.get_mut(usize::from(queue)).ok_or(Failed)?;
        ring.setup = Some(*setup);
        if core::mem::replace(&mut ring.is_tracked, true) && self.extensions.contains(ProtocolFeatures::INFLIGHT_SHMFD)
        {
            return self.attempt(|device| device.restart(queue)).map(drop);
        }
        self.attempt(|device| device.start(queue, setup)).map(drop)
    }

    pub(crate) fn stop_queue(&mut self, queue: u16) -> Result<u32, Failed> {
        let setup = self.rings.get_mut(usize::from(queue)).and_then(|ring| ring.setup.take()).ok_or(Failed)?;
        match self.attempt(|device| Ok(device.front_end.stop_ring(queue)?))? {
            Some(base) => Ok(base),
            None => self.wiring.used_index(setup.device_area).map(u32::from).ok_or(Failed),
        }
    }

    pub(crate) fn notify(&self) {
        self.wiring.ring();
    }

    pub(crate) fn set_doorbell(&mut self, queue: u16, port: Option<u16>) {
        let Some(ring) = self.rings.get_mut(usize::from(queue)) else { return };
        if let Some(old) = ring.doorbell.take() {
            self.wiring.clear_doorbell(old);
        }
        if let Some(port) = port {
            self.wiring.set_doorbell(port);
        }
        ring.doorbell = port;
    }

    pub(crate) fn set_message(&self, queue: u16, message: Option<Message>) {
        self.wiring.set_message(queue, message);
    }

    pub(crate) fn take_pending(&self, queue: u16) -> bool {
        self.wiring.take_pending(queue)
    }

    pub(crate) fn reset(&mut self) {
        let is_fresh = self.accepted.is_none() && self.rings.iter().all(|ring| ring.setup.is_none());
        self.accepted = None;
        self.is_config_changed = false;
        self.rings.iter_mut().for_each(|ring| *ring = Ring { doorbell: ring.doorbell, ..Ring::default() });
        self.forget_in_flight();
        match self.state {
            State::Up if is_fresh => {}
            State::Up => drop(self.attempt(|device| {
                device.front_end.reset_device()?;
                device.read_again()
            })),
            State::Lost => {}
            State::Failed => {
                self.state = State::Up;
                let _ = self.attempt(Self::tell_all);
            }
        }
    }

    /// Does what needs the card, if there is one. `None` if there is none: what the driver has said is kept for the next.
    fn attempt<A>(&mut self, work: impl FnOnce(&mut Self) -> Result<A, DeviceError>) -> Result<Option<A>, Failed> {
        match self.state {
            State::Up => {}
            State::Lost => return Ok(None),
            State::Failed => return Err(Failed),
        }
        match work(self) {
            Ok(answer) => Ok(Some(answer)),
            Err(DeviceError::Session(FrontEndError::Transport {
                request,
                error: error @ (CarryError::Gone(_) | CarryError::Refused),
            })) => {
                debug!("{request:?}: {error}");
                self.state = State::Lost;
                Ok(None)
            }
            Err(error) => {
                if !self.has_warned {
                    warn!("a device of the guest's is lost until its driver resets it: {error}");
                }
                self.has_warned = true;
                self.state = State::Failed;
                Err(Failed)
            }
        }
    }

    /// Reads the configuration space, if there is one.
    fn read_again(&mut self) -> Result<(), DeviceError> {
        if !self.config.is_empty() {
            let mut config = vec![0; self.config.len()];
            self.front_end.read_config(0, &mut config)?;
            self.set_config(config);
        }
        Ok(())
    }

    fn set_config(&mut self, config: Vec<u8>) {
        self.is_config_changed |= self.config != config;
        self.config = config;
    }

    /// Lets the card tell of changes to the configuration space. It does so at once, should there have been one since that was read.
    fn set_channel(&mut self) -> Result<(), DeviceError> {
        if self.extensions.contains(ProtocolFeatures::BACKEND_REQ) {
            self.front_end.set_back_end_channel(self.wiring.config())?;
        }
        Ok(())
    }

    /// Begins a new session, and says in it all that the driver has said.
    fn tell_all(&mut self) -> Result<(), DeviceError> {
        let Offer { features, queues, config, .. } = Offer::ask(&mut self.front_end, self.kind)?;
        let missing = self.offered & !features;
        if missing != 0 || usize::from(queues) != self.rings.len() {
            return Err(DeviceError::Changed);
        }
        self.set_config(config);
        self.knows_in_flight = false;
        self.front_end.set_memory(&self.wiring.memory())?;
        self.set_channel()?;
        if let Some(accepted) = self.accepted {
            self.front_end.set_features(accepted | F_PROTOCOL_FEATURES)?;
        }
        for queue in 0..queues {
            let Some(setup) = self.rings.get(usize::from(queue)).and_then(|ring| ring.setup) else { continue };
            let base = self.wiring.used_index(setup.device_area).ok_or(DeviceError::Unknown(queue))?;
            self.start(queue, &QueueSetup { base: base.into(), ..setup })?;
        }
        Ok(())
    }

    /// Lets the card serve a queue that begins a new life, for which all of the others stop for a moment: they share the
    /// memory for requests under way.
    fn restart(&mut self, queue: u16) -> Result<(), DeviceError> {
        let others = (0..).zip(&self.rings).filter(|(other, ring)| *other != queue && ring.setup.is_some());
        let others: Vec<u16> = others.map(|(other, _)| other).collect();
        for other in &others {
            let base = self.front_end.stop_ring(*other)?;
            if let Some(setup) = self.rings.get_mut(usize::from(*other)).and_then(|ring| ring.setup.as_mut()) {
                setup.base = base;
            }
        }
        self.forget_in_flight();
        for queue in others.into_iter().chain([queue]) {
            if let Some(setup) = self.rings.get(usize::from(queue)).and_then(|ring| ring.setup) {
                self.start(queue, &setup)?;
            }
        }
        Ok(())
    }

    fn forget_in_flight(&mut self) {
        self.wiring.forget_in_flight();
        self.knows_in_flight = false;
    }

    /// Lets the card serve a queue.
    fn start(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), DeviceError> {
        if self.extensions.contains(ProtocolFeatures::INFLIGHT_SHMFD) && !self.knows_in_flight {
            let (mmap_size, resource) = self.wiring.in_flight()?;
            let queues = self.rings.len() as u16;
            let area = InflightArea { mmap_size, mmap_offset: 0, queues, queue_size: QUEUE_SIZE, padding: 0 };
            self.front_end.set_inflight(&area, resource)?;
            self.knows_in_flight = true;
        }
        let front_end = &mut self.front_end;
        front_end.set_ring_size(queue, setup.size)?;
        front_end.set_ring_base(queue, setup.base)?;
        front_end.set_ring_addresses(&VringAddress {
            index: queue.into(),
            flags: 0,
            descriptor: setup.descriptors.0,
            used: setup.device_area.0,
            available: setup.driver_area.0,
            log: 0,
        })?;
        front_end.set_call(queue, self.wiring.call(queue))?;
        front_end.set_err(queue, Some(self.wiring.err()))?;
        front_end.set_kick(queue, Some(self.wiring.kick()))?;
        Ok(front_end.enable_ring(queue, true)?)
    }
}
