//! What a session needs of the hypervisor: mappings of handles, and notifications for calls.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_abi::Handle;
use dragonfly_card_devices::GuestAccess;
use dragonfly_rt::sys::{Memory, Notification, Object, Owned};
use dragonfly_vhost_user::{Inflight, MAX_QUEUES, Platform, Region, wire::InflightArea};
use dragonfly_virtqueue::{GuestAddress, GuestMemory, GuestSlice, MemoryError};

use crate::card::Client;
use crate::faults::Faults;
use crate::memory::{GuestRam, InFlight, MapError};

/// A handle that came with a message, closed when it goes out of scope.
pub(crate) struct Resource(
    /// Any object: the kernel looks at a handle's type when it is used, not when it is closed.
    Owned<Memory>,
);

impl Resource {
    /// Takes a handle over.
    pub(crate) fn new(handle: Handle) -> Self {
        Self(Owned::new(Memory::from_handle(handle)))
    }

    fn memory(&self) -> Memory {
        *self.0
    }

    fn into_notification(self) -> Owned<Notification> {
        Owned::new(Notification::from_handle(self.0.keep().handle()))
    }
}

/// One client's memory and notifications.
pub(crate) struct GatePlatform {
    faults: Arc<Faults>,
    ram: GuestRam,
    in_flight: Option<InFlight>,
    rings: [Signals; MAX_QUEUES],
    /// Tells of changes to the configuration space.
    config: Option<Owned<Notification>>,
    is_gone: Arc<AtomicBool>,
}

#[derive(Default)]
struct Signals {
    /// Kicks come by the notification that the worker waits for.
    is_kicked: bool,
    call: Option<Owned<Notification>>,
    err: Option<Owned<Notification>>,
}

impl GatePlatform {
    /// A client that has shared nothing yet.
    pub(crate) fn new(faults: &Arc<Faults>) -> Self {
        let is_gone = Arc::new(AtomicBool::new(false));
        Self {
            faults: faults.clone(),
            ram: GuestRam::new(faults.clone(), is_gone.clone()),
            in_flight: None,
            rings: Default::default(),
            config: None,
            is_gone,
        }
    }

    fn signals(&self, index: u16) -> Option<&Signals> {
        self.rings.get(usize::from(index))
    }

    fn signals_mut(&mut self, index: u16) -> Option<&mut Signals> {
        self.rings.get_mut(usize::from(index))
    }
}

impl Client for GatePlatform {
    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

/// Who is gone, or has sent something else than a notification, is told nothing.
fn signal(notification: Option<&Owned<Notification>>) {
    if let Some(notification) = notification {
        let _ = notification.signal(1);
    }
}

impl Platform for GatePlatform {
    type Resource = Resource;
    type Error = MapError;

    fn map(&mut self, region: &Region, resource: Resource) -> Result<(), MapError> {
        self.ram.add(region, resource.memory())
    }

    fn unmap(&mut self, region: &Region) {
        self.ram.remove(region.guest_address);
    }

    /// All kicks are signals of one notification, so which handle it is does not matter.
    fn set_kick(&mut self, index: u16, kick: Option<Resource>) {
        if let Some(signals) = self.signals_mut(index) {
            signals.is_kicked = kick.is_some();
        }
    }

    fn set_call(&mut self, index: u16, call: Option<Resource>) {
        if let Some(signals) = self.signals_mut(index) {
            signals.call = call.map(Resource::into_notification);
        }
        // Whatever was used while there was none.
        self.call(index);
    }

    fn set_err(&mut self, index: u16, err: Option<Resource>) {
        if let Some(signals) = self.signals_mut(index) {
            signals.err = err.map(Resource::into_notification);
        }
    }

    fn set_back_end_channel(&mut self, channel: Resource) {
        self.config = Some(channel.into_notification());
        // Whatever has changed while there was none.
        self.report_config_change();
    }

    fn make_inflight(&mut self, _area: &InflightArea) -> Result<Inflight<Resource>, MapError> {
        Err(MapError::NotLasting)
    }

    fn map_inflight(&mut self, area: &InflightArea, resource: Resource) -> Result<(), MapError> {
        self.in_flight = Some(InFlight::map(area, resource.memory(), &self.faults, &self.is_gone)?);
        Ok(())
    }
}

impl GuestAccess for GatePlatform {
    type Memory<'a> = QueueMemory<'a>;

    fn memory(&self, index: u16) -> QueueMemory<'_> {
        let in_flight = self.in_flight.as_ref().and_then(|in_flight| in_flight.of_queue(index));
        QueueMemory { ram: &self.ram, in_flight }
    }

    fn is_polled(&self, index: u16) -> bool {
        self.signals(index).is_none_or(|signals| !signals.is_kicked)
    }

    fn call(&self, index: u16) {
        signal(self.signals(index).and_then(|signals| signals.call.as_ref()));
    }

    fn report_broken(&self, index: u16) {
        signal(self.signals(index).and_then(|signals| signals.err.as_ref()));
    }

    fn report_config_change(&self) {
        signal(self.config.as_ref());
    }
}

/// A guest's memory as one queue sees it.
pub(crate) struct QueueMemory<'a> {
    ram: &'a GuestRam,
    in_flight: Option<GuestSlice<'a>>,
}

impl GuestMemory for QueueMemory<'_> {
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.ram.piece(address, limit)
    }

    fn in_flight(&self) -> Option<GuestSlice<'_>> {
        self.in_flight
    }
}
