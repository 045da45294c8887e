//! A card of the card's own sessions, which can die, and a machine that notes what is done to it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use std::sync::Mutex;

use dragonfly_abi::Status;
use dragonfly_guest_boot::GuestPhys;
use dragonfly_machine::Message;
use dragonfly_vhost_user as vhost;
use dragonfly_vhost_user::wire::InflightArea;
use dragonfly_vhost_user::{
    ConfigError, Header, Inflight, MAX_MESSAGE, Platform, ProtocolFeatures, Received, Region, RingConfig, Session,
    Transport,
};

use crate::card::transport::CarryError;
use crate::card::wiring::Wiring;

pub(super) const RAM: u64 = 0x10_0000;
pub(super) const VERSION_1: u64 = 1 << 32;
pub(super) const RING_PACKED: u64 = 1 << 34;
pub(super) const FEATURES: u64 = VERSION_1 | RING_PACKED | 0b110;
pub(super) const ACCEPTED: u64 = VERSION_1 | 0b10;
pub(super) const QUEUES: u16 = 3;

/// What comes along with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Ram,
    InFlight(u32),
    Kick(u32),
    Call(u16),
    Err,
    Config,
}

pub(super) struct FakeDevice {
    pub offered: u64,
    pub accepted: u64,
    pub running: BTreeMap<u16, RingConfig>,
    pub config: [u8; 4],
    pub tells_of_config: bool,
    pub resets: u32,
}

impl vhost::Device for FakeDevice {
    type RingError = &'static str;

    fn features(&self) -> u64 {
        self.offered
    }

    fn set_features(&mut self, features: u64) {
        self.accepted = features;
    }

    fn extensions(&self) -> ProtocolFeatures {
        let silent = if self.tells_of_config { ProtocolFeatures::empty() } else { ProtocolFeatures::BACKEND_REQ };
        ProtocolFeatures::all() - silent
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
        self.config.get_mut(offset..offset + from.len()).ok_or(ConfigError)?.copy_from_slice(from);
        Ok(())
    }

    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), &'static str> {
        self.running.insert(index, config);
        Ok(())
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        // As if five buffers had been used.
        self.running.remove(&index).expect("the ring runs").base + 5
    }

    fn reset(&mut self) {
        self.resets += 1;
    }

    fn inflight_len(&self, _: u16) -> Option<u64> {
        Some(0x1000)
    }
}

#[derive(Default)]
pub(super) struct FakePlatform {
    pub regions: BTreeSet<u64>,
    pub kicks: BTreeMap<u16, Option<Resource>>,
    pub calls: BTreeMap<u16, Option<Resource>>,
    pub in_flight: Option<Resource>,
    pub channel: Option<Resource>,
}

impl Platform for FakePlatform {
    type Resource = Resource;
    type Error = &'static str;

    fn map(&mut self, region: &Region, resource: Resource) -> Result<(), &'static str> {
        assert_eq!(resource, Resource::Ram);
        self.regions.insert(region.guest_address);
        Ok(())
    }

    fn unmap(&mut self, region: &Region) {
        self.regions.remove(&region.guest_address);
    }

    fn set_kick(&mut self, index: u16, kick: Option<Resource>) {
        self.kicks.insert(index, kick);
    }

    fn set_call(&mut self, index: u16, call: Option<Resource>) {
        self.calls.insert(index, call);
    }

    fn set_err(&mut self, _: u16, err: Option<Resource>) {
        assert_eq!(err, Some(Resource::Err));
    }

    fn set_back_end_channel(&mut self, channel: Resource) {
        self.channel = Some(channel);
    }

    fn make_inflight(&mut self, _: &InflightArea) -> Result<Inflight<Resource>, &'static str> {
        Err("the VMM makes it")
    }

    fn map_inflight(&mut self, _: &InflightArea, resource: Resource) -> Result<(), &'static str> {
        self.in_flight = Some(resource);
        Ok(())
    }
}

/// A card with one device.
pub(super) struct FakeCard {
    pub session: Session,
    pub device: FakeDevice,
    pub platform: FakePlatform,
}

impl FakeCard {
    pub fn offering(offered: u64) -> Self {
        let device = FakeDevice {
            offered,
            accepted: 0,
            running: BTreeMap::new(),
            config: *b"disk",
            tells_of_config: true,
            resets: 0,
        };
        Self { session: Session::default(), device, platform: FakePlatform::default() }
    }
}

/// The machine of a guest, and the card if there is one.
pub(super) struct Bench {
    pub card: Option<FakeCard>,
    pub kick: u32,
    pub kicked: u32,
    pub doorbells: BTreeMap<u16, u32>,
    pub messages: BTreeMap<u16, Message>,
    pub interrupted: Vec<u16>,
    pub used: u16,
    pub in_flight: u32,
    pub is_in_flight_made: bool,
}

#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<Bench>>);

impl Shared {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Bench {
            card: Some(FakeCard::offering(FEATURES)),
            kick: 1,
            kicked: 0,
            doorbells: BTreeMap::new(),
            messages: BTreeMap::new(),
            interrupted: Vec::new(),
            used: 0,
            in_flight: 0,
            is_in_flight_made: false,
        })))
    }

    pub fn bench<A>(&self, look: impl FnOnce(&mut Bench) -> A) -> A {
        look(&mut self.0.lock().unwrap())
    }

    pub fn card<A>(&self, look: impl FnOnce(&mut FakeCard) -> A) -> A {
        self.bench(|bench| look(bench.card.as_mut().expect("the card lives")))
    }

    pub fn running(&self) -> Vec<(u16, u32)> {
        self.card(|card| card.device.running.iter().map(|(queue, config)| (*queue, config.base)).collect())
    }
}

impl Transport for Shared {
    type Resource = Resource;
    type Error = CarryError;

    fn exchange(
        &mut self,
        message: &[u8],
        resources: &[Resource],
        answer: &mut [u8; MAX_MESSAGE],
    ) -> Result<usize, CarryError> {
        self.bench(|bench| {
            let FakeCard { session, device, platform } =
                bench.card.as_mut().ok_or(CarryError::Gone(Status::Aborted))?;
            let (header, payload) = message.split_first_chunk().expect("a header");
            let header = Header::parse(*header).expect("a request");
            let received = Received { header, payload, resources: resources.iter().copied().collect() };
            match session.handle(received, device, platform) {
                Ok(reply) => {
                    let bytes = reply.as_ref().map_or(&[][..], |reply| reply.bytes());
                    answer[..bytes.len()].copy_from_slice(bytes);
                    Ok(bytes.len())
                }
                Err(_) => {
                    session.close(device, platform);
                    Err(CarryError::Closed)
                }
            }
        })
    }
}

impl Wiring for Shared {
    type Resource = Resource;

    fn memory(&self) -> Vec<(Region, Resource)> {
        vec![(Region { guest_address: 0, size: RAM, user_address: 0, mmap_offset: 0 }, Resource::Ram)]
    }

    fn in_flight(&mut self) -> Result<(u64, Resource), Status> {
        self.bench(|bench| {
            bench.in_flight += u32::from(!bench.is_in_flight_made);
            bench.is_in_flight_made = true;
            Ok((0x1000 * u64::from(QUEUES), Resource::InFlight(bench.in_flight)))
        })
    }

    fn forget_in_flight(&mut self) {
        self.bench(|bench| bench.is_in_flight_made = false);
    }

    fn used_index(&self, used_ring: GuestPhys) -> Option<u16> {
        (used_ring.0 < RAM).then(|| self.bench(|bench| bench.used))
    }

    fn kick(&self) -> Resource {
        Resource::Kick(self.bench(|bench| bench.kick))
    }

    fn call(&self, queue: u16) -> Option<Resource> {
        Some(Resource::Call(queue))
    }

    fn err(&self) -> Resource {
        Resource::Err
    }

    fn config(&self) -> Resource {
        Resource::Config
    }

    fn ring(&self) {
        self.bench(|bench| bench.kicked += 1);
    }

    fn interrupt(&self, queue: u16) {
        self.bench(|bench| bench.interrupted.push(queue));
    }

    fn set_doorbell(&self, port: u16) {
        self.bench(|bench| bench.doorbells.insert(port, bench.kick));
    }

    fn clear_doorbell(&self, port: u16) {
        self.bench(|bench| bench.doorbells.remove(&port));
    }

    fn set_message(&self, queue: u16, message: Option<Message>) {
        self.bench(|bench| match message {
            Some(message) => bench.messages.insert(queue, message),
            None => bench.messages.remove(&queue),
        });
    }

    fn take_pending(&self, queue: u16) -> bool {
        self.bench(|bench| !bench.messages.contains_key(&queue))
    }
}
