//! Requests about rings, and when a ring runs.
//!
//! A ring runs once its size and its addresses are known, it was said how buffers are told of, and it is enabled. It stops
//! when its base is asked for, and with the session.

use arrayvec::ArrayVec;

use super::{Outcome, Result, Session, no_resources, one_resource, wrong};
use crate::{
    device::{Device, RingConfig},
    error::SessionError,
    feature::F_PROTOCOL_FEATURES,
    platform::{MAX_RESOURCES, Platform},
    reply::Reply,
    request::Request,
    vring::{MAX_QUEUES, Vring},
    wire::{self, VringAddress, VringState},
};

/// In the payload of `SET_VRING_KICK`, `_CALL` and `_ERR`: no resource comes along.
const NO_RESOURCE: u64 = 1 << 8;
const INDEX_MASK: u64 = 0xff;
/// The most descriptors of a ring (virtio 1.2 2.7, 2.8.10.1).
const MAX_RING_SIZE: u32 = 1 << 15;

impl Session {
    /// `SET_VRING_NUM`.
    pub(super) fn set_size<D: Device, P: Platform>(&mut self, payload: &[u8], device: &D) -> Result<(), D, P> {
        let request = Request::SetVringNum;
        let VringState { index, num } = wire::exactly(request, payload)?;
        let ring = self.stopped_ring::<D, P>(request, index, device)?;
        match u16::try_from(num) {
            Ok(size) if (1..=MAX_RING_SIZE).contains(&num) => ring.size = Some(size),
            _ => return Err(wrong(request, "size", num.into()).into()),
        }
        Ok(())
    }

    /// `SET_VRING_ADDR`.
    pub(super) fn set_addresses<D: Device, P: Platform>(&mut self, payload: &[u8], device: &D) -> Result<(), D, P> {
        let request = Request::SetVringAddr;
        let addresses: VringAddress = wire::exactly(request, payload)?;
        // Logging, the only flag, is not offered.
        if addresses.flags != 0 {
            return Err(wrong(request, "flags", addresses.flags.into()).into());
        }
        self.stopped_ring::<D, P>(request, addresses.index, device)?.addresses = Some(addresses);
        Ok(())
    }

    /// `SET_VRING_BASE`.
    pub(super) fn set_base<D: Device, P: Platform>(&mut self, payload: &[u8], device: &D) -> Result<(), D, P> {
        let VringState { index, num } = wire::exactly(Request::SetVringBase, payload)?;
        self.stopped_ring::<D, P>(Request::SetVringBase, index, device)?.base = num;
        Ok(())
    }

    /// `GET_VRING_BASE`: stops the ring.
    pub(super) fn get_base<D: Device, P: Platform>(
        &mut self,
        payload: &[u8],
        device: &mut D,
        platform: &mut P,
    ) -> Result<Outcome<P::Resource>, D, P> {
        let request = Request::GetVringBase;
        let VringState { index, .. } = wire::exactly(request, payload)?;
        let (number, ring) = self.ring::<D, P>(index, device)?;
        stop(ring, number, device);
        ring.has_kick = false;
        platform.set_kick(number, None);
        Ok(Outcome::Answer(Reply::new(request, &VringState { index, num: ring.base })))
    }

    /// `SET_VRING_KICK`.
    pub(super) fn set_kick<D: Device, P: Platform>(
        &mut self,
        payload: &[u8],
        resources: ArrayVec<P::Resource, MAX_RESOURCES>,
        device: &mut D,
        platform: &mut P,
    ) -> Result<(), D, P> {
        let (index, kick) = Self::signal::<D, P>(Request::SetVringKick, payload, resources, device)?;
        platform.set_kick(index, kick);
        self.ring::<D, P>(index.into(), device)?.1.has_kick = true;
        self.start_if_ready::<D, P>(index, device)
    }

    /// `SET_VRING_ENABLE`.
    pub(super) fn enable<D: Device, P: Platform>(&mut self, payload: &[u8], device: &mut D) -> Result<(), D, P> {
        let request = Request::SetVringEnable;
        let VringState { index, num } = wire::exactly(request, payload)?;
        if num > 1 {
            return Err(wrong(request, "state", num.into()).into());
        }
        let (number, ring) = self.ring::<D, P>(index, device)?;
        ring.is_enabled = num == 1;
        if ring.is_enabled {
            return self.start_if_ready::<D, P>(number, device);
        }
        stop(ring, number, device);
        Ok(())
    }

    /// The queue of `SET_VRING_KICK`, `_CALL` or `_ERR`, and the resource if there is one.
    pub(super) fn signal<D: Device, P: Platform>(
        request: Request,
        payload: &[u8],
        resources: ArrayVec<P::Resource, MAX_RESOURCES>,
        device: &D,
    ) -> Result<(u16, Option<P::Resource>), D, P> {
        let value: u64 = wire::exactly(request, payload)?;
        if value & !(INDEX_MASK | NO_RESOURCE) != 0 {
            return Err(wrong(request, "index", value).into());
        }
        let index = (value & INDEX_MASK) as u16;
        if index >= device.queues() {
            return Err(SessionError::NoSuchQueue { index: index.into(), queues: device.queues() });
        }
        if value & NO_RESOURCE != 0 {
            no_resources(request, &resources)?;
            return Ok((index, None));
        }
        Ok((index, Some(one_resource(request, resources)?)))
    }

    /// Stops all rings, and listens for no kick any more.
    pub(super) fn stop_all<D: Device, P: Platform>(&mut self, device: &mut D, platform: &mut P) {
        for (index, ring) in (0..device.queues()).zip(&mut self.rings) {
            stop(ring, index, device);
            ring.has_kick = false;
            platform.set_kick(index, None);
        }
    }

    /// Stops all rings, and says which ran.
    pub(super) fn pause<D: Device>(&mut self, device: &mut D) -> Running {
        let mut running = Running::new();
        for (index, ring) in (0..device.queues()).zip(&mut self.rings) {
            if ring.runs {
                running.push(index);
            }
            stop(ring, index, device);
        }
        running
    }

    /// Starts rings that were paused.
    pub(super) fn resume<D: Device, P: Platform>(&mut self, running: Running, device: &mut D) -> Result<(), D, P> {
        running.into_iter().try_for_each(|index| self.start_if_ready::<D, P>(index, device))
    }

    /// Refuses what may not be done to rings that run.
    pub(super) fn none_runs<D: Device, P: Platform>(&self, request: Request) -> Result<(), D, P> {
        match (0..).zip(&self.rings).find(|(_, ring)| ring.runs) {
            Some((index, _)) => Err(SessionError::RingRuns { request, index }),
            None => Ok(()),
        }
    }

    fn ring<D: Device, P: Platform>(&mut self, index: u32, device: &D) -> Result<(u16, &mut Vring), D, P> {
        let queues = device.queues();
        let number = u16::try_from(index).ok().filter(|number| *number < queues);
        number
            .and_then(|number| Some((number, self.rings.get_mut(usize::from(number))?)))
            .ok_or(SessionError::NoSuchQueue { index, queues })
    }

    fn stopped_ring<D: Device, P: Platform>(
        &mut self,
        request: Request,
        index: u32,
        device: &D,
    ) -> Result<&mut Vring, D, P> {
        let (index, ring) = self.ring::<D, P>(index, device)?;
        if ring.runs { Err(SessionError::RingRuns { request, index }) } else { Ok(ring) }
    }

    fn start_if_ready<D: Device, P: Platform>(&mut self, index: u16, device: &mut D) -> Result<(), D, P> {
        // Without the extension there is no SET_VRING_ENABLE, so rings are enabled from the start.
        let needs_no_enabling = self.features & F_PROTOCOL_FEATURES == 0;
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        let may_start = ring.has_kick && (ring.is_enabled || needs_no_enabling) && !ring.runs;
        let (Some(size), Some(addresses), true) = (ring.size, ring.addresses, may_start) else { return Ok(()) };
        let find = |part, address| {
            self.memory.guest_address(address).ok_or(SessionError::RingOutside { index, part, address })
        };
        let config = RingConfig {
            size,
            base: ring.base,
            descriptor: find("descriptor table", addresses.descriptor)?,
            available: find("available ring", addresses.available)?,
            used: find("used ring", addresses.used)?,
        };
        device.start_ring(index, config).map_err(|reason| SessionError::Ring { index, reason })?;
        ring.runs = true;
        Ok(())
    }
}

/// Queues whose rings run.
type Running = ArrayVec<u16, MAX_QUEUES>;

fn stop<D: Device>(ring: &mut Vring, index: u16, device: &mut D) {
    if ring.runs {
        ring.base = device.stop_ring(index);
        ring.runs = false;
    }
}
