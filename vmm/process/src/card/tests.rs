//! Devices against the card's own sessions, with a card that can die and a machine that notes what is done to it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use std::sync::Mutex;

use dragonfly_abi::Status;
use dragonfly_guest_boot::GuestPhys;
use dragonfly_machine::Message;
use dragonfly_machine::virtio::{DeviceKind, Failed, QueueSetup};
use dragonfly_machine_file::MachineFile;
use dragonfly_vhost_user as vhost;
use dragonfly_vhost_user::wire::InflightArea;
use dragonfly_vhost_user::{
    ConfigError, F_PROTOCOL_FEATURES, Header, Inflight, MAX_MESSAGE, Platform, Received, Region, RingConfig, Session,
    Transport,
};

use super::Card;
use super::device::Device;
use super::transport::CarryError;
use super::wiring::Wiring;

const RAM: u64 = 0x10_0000;
const VERSION_1: u64 = 1 << 32;
const RING_PACKED: u64 = 1 << 34;
const FEATURES: u64 = VERSION_1 | RING_PACKED | 0b110;
const ACCEPTED: u64 = VERSION_1 | 0b10;
const QUEUES: u16 = 3;

/// What comes along with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    Ram,
    InFlight(u32),
    Kick(u32),
    Call(u16),
    Err,
}

struct FakeDevice {
    offered: u64,
    accepted: u64,
    running: BTreeMap<u16, RingConfig>,
    config: [u8; 4],
    resets: u32,
}

impl vhost::Device for FakeDevice {
    type RingError = &'static str;

    fn features(&self) -> u64 {
        self.offered
    }

    fn set_features(&mut self, features: u64) {
        self.accepted = features;
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
struct FakePlatform {
    regions: BTreeSet<u64>,
    kicks: BTreeMap<u16, Option<Resource>>,
    calls: BTreeMap<u16, Option<Resource>>,
    in_flight: Option<Resource>,
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

    fn make_inflight(&mut self, _: &InflightArea) -> Result<Inflight<Resource>, &'static str> {
        Err("the VMM makes it")
    }

    fn map_inflight(&mut self, _: &InflightArea, resource: Resource) -> Result<(), &'static str> {
        self.in_flight = Some(resource);
        Ok(())
    }
}

/// A card with one device.
struct FakeCard {
    session: Session,
    device: FakeDevice,
    platform: FakePlatform,
}

impl FakeCard {
    fn offering(offered: u64) -> Self {
        let device = FakeDevice { offered, accepted: 0, running: BTreeMap::new(), config: *b"disk", resets: 0 };
        Self { session: Session::default(), device, platform: FakePlatform::default() }
    }
}

/// The machine of a guest, and the card if there is one.
struct Bench {
    card: Option<FakeCard>,
    kick: u32,
    kicked: u32,
    doorbells: BTreeMap<u16, u32>,
    messages: BTreeMap<u16, Message>,
    interrupted: Vec<u16>,
    used: u16,
    in_flight: u32,
    is_in_flight_made: bool,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Bench>>);

impl Shared {
    fn new() -> Self {
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

    fn bench<A>(&self, look: impl FnOnce(&mut Bench) -> A) -> A {
        look(&mut self.0.lock().unwrap())
    }

    fn card<A>(&self, look: impl FnOnce(&mut FakeCard) -> A) -> A {
        self.bench(|bench| look(bench.card.as_mut().expect("the card lives")))
    }

    fn running(&self) -> Vec<(u16, u32)> {
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

fn setup(queue: u16) -> QueueSetup {
    let at = |offset| GuestPhys(0x1_0000 * u64::from(queue) + offset);
    QueueSetup { size: 128, base: 0, descriptors: at(0), driver_area: at(0x2000), device_area: at(0x3000) }
}

fn connected() -> (Shared, Device<Shared, Shared>) {
    let shared = Shared::new();
    let wire = |queues| {
        assert_eq!(queues, QUEUES);
        Ok(shared.clone())
    };
    let device = Device::connect(DeviceKind::Block, shared.clone(), wire).expect("a card");
    (shared, device)
}

/// A device whose driver uses queues 0 and 1.
fn running() -> (Shared, Device<Shared, Shared>) {
    let (shared, mut device) = connected();
    device.negotiate(ACCEPTED).unwrap();
    for queue in [0, 1] {
        device.start_queue(queue, &setup(queue)).unwrap();
        device.set_doorbell(queue, Some(0xc000 + 4 * queue));
    }
    (shared, device)
}

/// The card dies, and the next one, if there is one, is told of its guest.
fn die(shared: &Shared, device: &mut Device<Shared, Shared>, next: Option<FakeCard>) -> Result<(), Failed> {
    shared.bench(|bench| {
        bench.card = next;
        bench.kick += 1;
        bench.used = 40;
    });
    device.resume()
}

#[test]
fn a_machine_with_devices_and_no_way_to_a_card_is_told_at_its_first_table() {
    let file = |tables| MachineFile::parse("m.toml", &format!("name = \"a\"\nkernel = \"k\"\n{tables}")).unwrap();
    let told = |tables| Card::find(&file(tables), 0).map(|card| card.is_some()).map_err(|problem| problem.to_string());
    assert_eq!(told(""), Ok(false));
    let without_gate = told("\n[[net]]\n[[disk]]\n").unwrap_err();
    assert!(without_gate.starts_with("m.toml:5: `disk` is served by the offload card"), "{without_gate}");
    assert!(without_gate.contains("`use = [\"card\"]`"), "{without_gate}");
    assert!(told("[[net]]\n").unwrap_err().starts_with("m.toml:3: `net` "));
}

#[test]
fn a_device_is_what_the_card_offers_without_what_cannot_outlive_it() {
    let (shared, device) = connected();
    assert_eq!(device.features(), FEATURES & !RING_PACKED);
    let description = device.description();
    assert_eq!((description.kind, description.queues), (DeviceKind::Block, QUEUES));
    let mut config = [0xff; 6];
    device.read_config(1, &mut config);
    assert_eq!(&config, b"isk\0\0\0");
    assert_eq!(shared.card(|card| card.platform.regions.clone()), BTreeSet::from([0]));
}

#[test]
fn a_network_device_has_two_queues_for_a_pair_and_one_for_control() {
    const NET_F_CTRL_VQ: u64 = 1 << 17;
    for (features, queues) in [(FEATURES, 6), (FEATURES | NET_F_CTRL_VQ, 7)] {
        let shared = Shared::new();
        shared.bench(|bench| bench.card = Some(FakeCard::offering(features)));
        let device = Device::connect(DeviceKind::Network, shared.clone(), |_| Ok(shared.clone())).unwrap();
        assert_eq!(device.description().queues, queues);
    }
}

#[test]
fn the_card_serves_queues_as_the_driver_has_set_them_up() {
    let (shared, _device) = running();
    shared.card(|card| {
        let config = RingConfig { size: 128, base: 0, descriptor: 0x1_0000, available: 0x1_2000, used: 0x1_3000 };
        assert_eq!(card.device.running[&1], config);
        assert_eq!(card.device.accepted, ACCEPTED & !F_PROTOCOL_FEATURES);
        assert_eq!(card.platform.kicks[&0], Some(Resource::Kick(1)));
        assert_eq!(card.platform.calls[&1], Some(Resource::Call(1)));
        assert_eq!(card.platform.in_flight, Some(Resource::InFlight(1)));
    });
    assert_eq!(shared.bench(|bench| bench.doorbells.clone()), BTreeMap::from([(0xc000, 1), (0xc004, 1)]));
}

#[test]
fn a_stopped_queue_says_where_to_go_on() {
    let (shared, mut device) = running();
    assert_eq!(device.stop_queue(1), Ok(5));
    assert_eq!(shared.running(), [(0, 0)]);
    assert_eq!(device.stop_queue(1), Err(Failed), "it does not run");
}

#[test]
fn what_the_guest_writes_to_the_configuration_space_is_read_back() {
    let (shared, mut device) = connected();
    device.write_config(3, b"c");
    let mut config = [0; 4];
    device.read_config(0, &mut config);
    assert_eq!((&config, shared.card(|card| card.device.config)), (b"disc", *b"disc"));
}

#[test]
fn a_reset_reaches_the_card_once_and_forgets_what_was_under_way() {
    let (shared, mut device) = running();
    device.reset();
    device.reset();
    assert_eq!(shared.card(|card| (card.device.resets, card.device.running.len())), (1, 0));
    device.negotiate(ACCEPTED).unwrap();
    device.start_queue(0, &setup(0)).unwrap();
    assert_eq!(shared.card(|card| card.platform.in_flight), Some(Resource::InFlight(2)));
    assert_eq!(shared.running(), [(0, 0)]);
}

#[test]
fn a_queue_that_begins_a_new_life_lets_the_others_go_on_with_fresh_memory_for_what_is_under_way() {
    let (shared, mut device) = running();
    device.stop_queue(1).unwrap();
    device.start_queue(1, &setup(1)).unwrap();
    assert_eq!(shared.running(), [(0, 5), (1, 0)]);
    assert_eq!(shared.card(|card| card.platform.in_flight), Some(Resource::InFlight(2)));
}

#[test]
fn the_next_card_goes_on_where_one_has_died() {
    let (shared, mut device) = running();
    die(&shared, &mut device, Some(FakeCard::offering(FEATURES))).unwrap();
    assert_eq!(shared.running(), [(0, 40), (1, 40)]);
    shared.card(|card| {
        assert_eq!(card.device.accepted, ACCEPTED);
        assert_eq!(card.platform.kicks[&1], Some(Resource::Kick(2)));
        assert_eq!(card.platform.in_flight, Some(Resource::InFlight(1)), "what was under way is known");
    });
    shared.bench(|bench| {
        assert_eq!(bench.doorbells, BTreeMap::from([(0xc000, 2), (0xc004, 2)]));
        assert_eq!(bench.interrupted, [0, 1]);
    });
}

#[test]
fn what_the_driver_does_while_there_is_no_card_is_told_to_the_next() {
    let (shared, mut device) = running();
    shared.bench(|bench| bench.card = None);
    device.start_queue(2, &setup(2)).unwrap();
    assert_eq!(device.stop_queue(0), Ok(0), "the used ring tells");
    device.set_doorbell(0, None);
    die(&shared, &mut device, Some(FakeCard::offering(FEATURES))).unwrap();
    assert_eq!(shared.running(), [(1, 40), (2, 40)]);
    assert_eq!(shared.bench(|bench| bench.doorbells.clone()), BTreeMap::from([(0xc004, 2)]));
}

#[test]
fn a_reset_while_there_is_no_card_leaves_nothing_to_tell() {
    let (shared, mut device) = running();
    shared.bench(|bench| bench.card = None);
    assert_eq!(device.stop_queue(0), Ok(0));
    device.reset();
    die(&shared, &mut device, Some(FakeCard::offering(FEATURES))).unwrap();
    assert_eq!(shared.running(), []);
    device.negotiate(ACCEPTED).unwrap();
    device.start_queue(0, &setup(0)).unwrap();
    assert_eq!(shared.running(), [(0, 0)]);
}

#[test]
fn a_card_that_dies_at_once_is_no_reason_to_give_up() {
    let (shared, mut device) = running();
    assert_eq!(die(&shared, &mut device, None), Ok(()));
    die(&shared, &mut device, Some(FakeCard::offering(FEATURES))).unwrap();
    assert_eq!(shared.running(), [(0, 40), (1, 40)]);
}

#[test]
fn a_next_card_that_offers_less_fails_the_device_until_it_is_reset() {
    let (shared, mut device) = running();
    assert_eq!(die(&shared, &mut device, Some(FakeCard::offering(VERSION_1))), Err(Failed));
    assert_eq!(device.negotiate(VERSION_1), Err(Failed));
    device.reset();
    assert_eq!(device.negotiate(VERSION_1), Err(Failed), "it is still another device");
    shared.bench(|bench| bench.card = Some(FakeCard::offering(FEATURES)));
    device.reset();
    assert_eq!(device.negotiate(VERSION_1), Ok(()));
}

#[test]
fn a_session_that_the_card_ends_begins_anew_when_the_driver_resets_the_device() {
    let (shared, mut device) = running();
    let outside = QueueSetup { device_area: GuestPhys(RAM), ..setup(2) };
    assert_eq!(device.start_queue(2, &outside), Err(Failed));
    assert_eq!(device.start_queue(2, &setup(2)), Err(Failed));
    assert_eq!(shared.running(), []);
    device.reset();
    device.negotiate(ACCEPTED).unwrap();
    device.start_queue(2, &setup(2)).unwrap();
    assert_eq!(shared.running(), [(2, 0)]);
}

#[test]
fn a_kick_that_no_doorbell_has_taken_reaches_the_card() {
    let (shared, device) = running();
    device.notify();
    assert_eq!(shared.bench(|bench| bench.kicked), 1);
}

#[test]
fn interrupts_are_kept_without_a_message_and_go_out_with_one() {
    let (_shared, device) = running();
    assert!(device.take_pending(1));
    device.set_message(1, Some(Message { address: 0xfee0_0000, data: 0x31 }));
    assert!(!device.take_pending(1));
}

#[test]
fn the_end_of_the_machine_takes_its_memory_from_the_card() {
    let (shared, mut device) = running();
    device.set_message(0, Some(Message { address: 0xfee0_0000, data: 0x31 }));
    device.end();
    shared.card(|card| assert!(card.platform.regions.is_empty() && card.device.running.is_empty()));
    assert!(shared.bench(|bench| bench.messages.is_empty()));
}
