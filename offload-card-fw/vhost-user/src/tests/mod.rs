//! A front end made of messages, and a device and a platform that note what the session does with them.

mod front_end;
mod hostile;
mod memory;
mod negotiation;
mod rings;

use std::collections::BTreeMap;

use arrayvec::ArrayVec;
use zerocopy::{Immutable, IntoBytes};

use crate::{
    ConfigError, Device, F_PROTOCOL_FEATURES, HEADER_LEN, Header, Inflight, Platform, ProtocolFeatures, Received,
    Region, Request, RingConfig, Session, SessionError,
    wire::{InflightArea, VringAddress, VringState},
};

/// What the device offers beside the protocol's own bit.
const FEATURES: u64 = 1 << 32 | 1 << 28 | 0b1010;
/// What a front end uses.
const ALL_FEATURES: u64 = FEATURES | F_PROTOCOL_FEATURES;
const QUEUES: u16 = 3;
const RAM: Region = Region { guest_address: 0, size: 0x10_0000, user_address: 0x7f00_0000_0000, mmap_offset: 0 };

type Error = SessionError<&'static str, &'static str>;

#[derive(Default)]
struct FakeDevice {
    features: u64,
    running: BTreeMap<u16, RingConfig>,
    config: [u8; 8],
    resets: usize,
    refuses: bool,
}

impl Device for FakeDevice {
    type RingError = &'static str;

    fn features(&self) -> u64 {
        FEATURES
    }

    fn set_features(&mut self, features: u64) {
        assert!(self.running.is_empty());
        self.features = features;
    }

    fn extensions(&self) -> ProtocolFeatures {
        ProtocolFeatures::all()
    }

    fn queues(&self) -> u16 {
        QUEUES
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        for (place, byte) in (offset..).zip(into) {
            *byte = self.config.get(place).copied().unwrap_or(0);
        }
    }

    fn write_config(&mut self, offset: usize, from: &[u8]) -> Result<(), ConfigError> {
        // Only the last byte can be written.
        match from {
            [byte] if offset == 7 => self.config[7] = *byte,
            _ => return Err(ConfigError),
        }
        Ok(())
    }

    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), &'static str> {
        if self.refuses {
            return Err("not this one");
        }
        assert!(self.running.insert(index, config).is_none(), "ring {index} runs already");
        Ok(())
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        // As if five buffers had been used.
        self.running.remove(&index).expect("the ring runs").base + 5
    }

    fn reset(&mut self) {
        assert!(self.running.is_empty());
        self.resets += 1;
    }

    fn inflight_len(&self, queue_size: u16) -> Option<u64> {
        Some(u64::from(queue_size) * 16)
    }
}

#[derive(Default)]
struct FakePlatform {
    regions: BTreeMap<u64, (Region, u32)>,
    kicks: BTreeMap<u16, Option<u32>>,
    calls: BTreeMap<u16, Option<u32>>,
    errs: BTreeMap<u16, Option<u32>>,
    inflight: Option<(u64, u32)>,
    channel: Option<u32>,
    refuses: bool,
}

impl Platform for FakePlatform {
    type Resource = u32;
    type Error = &'static str;

    fn map(&mut self, region: &Region, resource: u32) -> Result<(), &'static str> {
        if self.refuses {
            return Err("no memory");
        }
        assert!(self.regions.insert(region.guest_address, (*region, resource)).is_none());
        Ok(())
    }

    fn unmap(&mut self, region: &Region) {
        self.regions.remove(&region.guest_address).expect("the region is mapped");
    }

    fn set_kick(&mut self, index: u16, kick: Option<u32>) {
        self.kicks.insert(index, kick);
    }

    fn set_call(&mut self, index: u16, call: Option<u32>) {
        self.calls.insert(index, call);
    }

    fn set_err(&mut self, index: u16, err: Option<u32>) {
        self.errs.insert(index, err);
    }

    fn set_back_end_channel(&mut self, channel: u32) {
        self.channel = Some(channel);
    }

    fn make_inflight(&mut self, area: &InflightArea) -> Result<Inflight<u32>, &'static str> {
        self.inflight = Some((area.mmap_size, 99));
        Ok(Inflight { resource: 99, offset: 0x1000 })
    }

    fn map_inflight(&mut self, area: &InflightArea, resource: u32) -> Result<(), &'static str> {
        self.inflight = Some((area.mmap_size, resource));
        Ok(())
    }
}

/// A session with all that belongs to it.
#[derive(Default)]
struct Setup {
    session: Session,
    device: FakeDevice,
    platform: FakePlatform,
}

impl Setup {
    /// Sends a request, and gives the answer's payload.
    fn send(
        &mut self,
        request: Request,
        needs_reply: bool,
        payload: &[u8],
        resources: &[u32],
    ) -> Result<Option<Vec<u8>>, Error> {
        let header = Header { request, needs_reply, payload_len: payload.len() };
        let resources: ArrayVec<u32, 8> = resources.iter().copied().collect();
        let received = Received { header, payload, resources };
        let reply = self.session.handle(received, &mut self.device, &mut self.platform)?;
        Ok(reply.map(|reply| {
            let words: Vec<_> = reply.bytes()[..HEADER_LEN].chunks(4).map(|word| word[0]).collect();
            assert_eq!(words[..2], [request as u8, 5], "version 1 and the reply flag");
            assert_eq!(usize::from(words[2]), reply.payload().len() & 0xff);
            reply.payload().to_vec()
        }))
    }

    fn tell<T: IntoBytes + Immutable + ?Sized>(&mut self, request: Request, payload: &T) -> Result<(), Error> {
        assert_eq!(self.send(request, false, payload.as_bytes(), &[])?, None, "{request:?}");
        Ok(())
    }

    fn tell_with<T: IntoBytes + Immutable + ?Sized>(
        &mut self,
        request: Request,
        payload: &T,
        resources: &[u32],
    ) -> Result<(), Error> {
        assert_eq!(self.send(request, false, payload.as_bytes(), resources)?, None, "{request:?}");
        Ok(())
    }

    fn ask(&mut self, request: Request, payload: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.send(request, false, payload, &[])?.expect("an answer"))
    }

    fn ask_number(&mut self, request: Request) -> Result<u64, Error> {
        Ok(u64::from_ne_bytes(self.ask(request, &[])?.try_into().expect("eight bytes")))
    }

    fn set_memory(&mut self, regions: &[Region], resources: &[u32]) -> Result<(), Error> {
        let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
        payload.extend_from_slice(regions.as_bytes());
        self.tell_with(Request::SetMemTable, &payload[..], resources)
    }

    /// A session whose front end has agreed on everything and shared its memory.
    fn negotiated() -> Self {
        let mut setup = Self::default();
        setup.tell(Request::SetProtocolFeatures, &ProtocolFeatures::all().bits()).unwrap();
        setup.tell(Request::SetFeatures, &ALL_FEATURES).unwrap();
        setup.set_memory(&[RAM], &[1]).unwrap();
        setup
    }

    /// Says everything about a ring but that it is enabled.
    fn describe_ring(&mut self, index: u32) -> Result<(), Error> {
        self.tell(Request::SetVringNum, &VringState { index, num: 256 })?;
        self.tell(Request::SetVringBase, &VringState { index, num: 7 })?;
        self.tell(Request::SetVringAddr, &addresses(index))?;
        self.tell_with(Request::SetVringKick, &u64::from(index), &[10 + index])
    }

    fn enable(&mut self, index: u32, num: u32) -> Result<(), Error> {
        self.tell(Request::SetVringEnable, &VringState { index, num })
    }

    /// A session with ring 1 running.
    fn running() -> Self {
        let mut setup = Self::negotiated();
        setup.describe_ring(1).unwrap();
        setup.enable(1, 1).unwrap();
        assert!(setup.device.running.contains_key(&1));
        setup
    }
}

fn addresses(index: u32) -> VringAddress {
    let at = |offset: u64| RAM.user_address + u64::from(index) * 0x1_0000 + offset;
    VringAddress { index, flags: 0, descriptor: at(0), used: at(0x3000), available: at(0x2000), log: 0 }
}
