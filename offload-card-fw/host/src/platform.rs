//! What a session needs of Linux: mappings, and event file descriptors for kicks and calls.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use dragonfly_card_devices::GuestAccess;
use dragonfly_vhost_user::{Inflight, MAX_QUEUES, Platform, Region, wire::InflightArea};
use log::warn;
use rustix::{
    event::epoll,
    fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_getfl, fcntl_setfl, ftruncate, memfd_create},
};

use crate::{
    poller::Token,
    shared_memory::{GuestRam, MapError, Mapping, QueueMemory},
};

/// The value that is written to an event file descriptor: one event.
const ONE_EVENT: [u8; 8] = 1u64.to_ne_bytes();

/// One client's memory and event file descriptors.
#[derive(Debug)]
pub struct LinuxPlatform {
    /// For log lines.
    name: String,
    epoll: Arc<OwnedFd>,
    device: u32,
    ram: GuestRam,
    in_flight: Option<InFlight>,
    rings: [Signals; MAX_QUEUES],
    fault: Option<io::Error>,
    has_warned: bool,
}

/// The area for what is in flight, of which each queue has an equal part.
#[derive(Debug)]
struct InFlight {
    mapping: Mapping,
    queue_len: usize,
}

#[derive(Debug, Default)]
struct Signals {
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    err: Option<OwnedFd>,
}

impl LinuxPlatform {
    /// A client that has shared nothing yet. Its kicks are told to `epoll` under `device`.
    #[must_use]
    pub fn new(name: &str, epoll: Arc<OwnedFd>, device: u32) -> Self {
        Self {
            name: name.into(),
            epoll,
            device,
            ram: GuestRam::default(),
            in_flight: None,
            rings: Default::default(),
            fault: None,
            has_warned: false,
        }
    }

    /// What went wrong since this was asked last and could not be said then.
    ///
    /// # Errors
    /// A kick came along that nobody can wait for.
    pub fn check(&mut self) -> io::Result<()> {
        self.fault.take().map_or(Ok(()), Err)
    }

    fn signals(&self, index: u16) -> Option<&Signals> {
        self.rings.get(usize::from(index))
    }

    fn slot(&mut self, index: u16, choose: fn(&mut Signals) -> &mut Option<OwnedFd>, value: Option<OwnedFd>) {
        if let Some(descriptor) = &value {
            // A client that fills the counter must not be able to make this process wait.
            let set = fcntl_getfl(descriptor).and_then(|flags| fcntl_setfl(descriptor, flags | OFlags::NONBLOCK));
            if let Err(errno) = set {
                self.fault = Some(errno.into());
            }
        }
        if let Some(signals) = self.rings.get_mut(usize::from(index)) {
            *choose(signals) = value;
        }
    }
}

impl InFlight {
    fn map(area: &InflightArea, file: &OwnedFd) -> Result<Self, MapError> {
        let mapping = Mapping::new(file, area.mmap_offset, area.mmap_size)?;
        // A part of what was just mapped, so it fits.
        let queue_len = (area.mmap_size / u64::from(area.queues.max(1))) as usize;
        Ok(Self { mapping, queue_len })
    }
}

/// A full counter is one more event than anyone counts, and a client that is gone needs none.
fn signal(descriptor: Option<&OwnedFd>) {
    if let Some(descriptor) = descriptor {
        let _ = rustix::io::write(descriptor, &ONE_EVENT);
    }
}

impl Platform for LinuxPlatform {
    type Resource = OwnedFd;
    type Error = MapError;

    fn map(&mut self, region: &Region, resource: OwnedFd) -> Result<(), MapError> {
        let can_shrink = self.ram.add(region, &resource)?.can_shrink();
        if can_shrink && !self.has_warned {
            self.has_warned = true;
            warn!("{}: the guest's memory is not sealed: a client that cuts it short ends this process", self.name);
        }
        Ok(())
    }

    fn unmap(&mut self, region: &Region) {
        self.ram.remove(region.guest_address);
    }

    /// Kicks are waited for by their edges and never read: each write to an eventfd is one.
    fn set_kick(&mut self, index: u16, kick: Option<OwnedFd>) {
        let Some(signals) = self.rings.get_mut(usize::from(index)) else { return };
        if let Some(old) = signals.kick.take() {
            // The front end has the event open too, so closing it here would not end the waiting.
            let _ = epoll::delete(&*self.epoll, old);
        }
        if let Some(kick) = &kick {
            let token = Token::Kick { device: self.device, queue: index };
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            if let Err(errno) = epoll::add(&*self.epoll, kick.as_fd(), token.data(), flags) {
                self.fault = Some(errno.into());
            }
        }
        signals.kick = kick;
    }

    fn set_call(&mut self, index: u16, call: Option<OwnedFd>) {
        self.slot(index, |signals| &mut signals.call, call);
        // Whatever was used while there was none.
        self.call(index);
    }

    fn set_err(&mut self, index: u16, err: Option<OwnedFd>) {
        self.slot(index, |signals| &mut signals.err, err);
    }

    fn make_inflight(&mut self, area: &InflightArea) -> Result<Inflight<OwnedFd>, MapError> {
        let file = memfd_create("offload-card-in-flight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, area.mmap_size)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        self.in_flight = Some(InFlight::map(area, &file)?);
        Ok(Inflight { resource: file, offset: 0 })
    }

    fn map_inflight(&mut self, area: &InflightArea, resource: OwnedFd) -> Result<(), MapError> {
        self.in_flight = Some(InFlight::map(area, &resource)?);
        Ok(())
    }
}

impl GuestAccess for LinuxPlatform {
    type Memory<'a> = QueueMemory<'a>;

    fn memory(&self, index: u16) -> QueueMemory<'_> {
        let in_flight = self.in_flight.as_ref().and_then(|in_flight| {
            let offset = in_flight.queue_len.checked_mul(usize::from(index))?;
            in_flight.mapping.slice(offset, in_flight.queue_len)
        });
        QueueMemory::new(&self.ram, in_flight)
    }

    fn is_polled(&self, index: u16) -> bool {
        self.signals(index).is_none_or(|signals| signals.kick.is_none())
    }

    fn call(&self, index: u16) {
        signal(self.signals(index).and_then(|signals| signals.call.as_ref()));
    }

    fn report_broken(&self, index: u16) {
        signal(self.signals(index).and_then(|signals| signals.err.as_ref()));
    }
}

impl Drop for LinuxPlatform {
    fn drop(&mut self) {
        for index in 0..MAX_QUEUES as u16 {
            self.set_kick(index, None);
        }
    }
}
