//! Devices against the card's own sessions.

mod fake;

use alloc::collections::{BTreeMap, BTreeSet};

use dragonfly_guest_boot::GuestPhys;
use dragonfly_machine::Message;
use dragonfly_machine::virtio::{DeviceKind, Failed, QueueSetup};
use dragonfly_machine_file::MachineFile;
use dragonfly_vhost_user::{F_PROTOCOL_FEATURES, RingConfig};

use super::Card;
use super::device::Device;
use fake::{ACCEPTED, FEATURES, FakeCard, QUEUES, RAM, RING_PACKED, Resource, Shared, VERSION_1};

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
fn a_change_to_the_configuration_space_is_found_once() {
    let (shared, mut device) = connected();
    assert_eq!(shared.card(|card| card.platform.channel), Some(Resource::Config));
    assert_eq!(device.take_config_change(), Ok(false));
    shared.card(|card| card.device.config = *b"disc");
    assert_eq!(device.take_config_change(), Ok(true));
    assert_eq!(device.take_config_change(), Ok(false));
    let mut config = [0; 4];
    device.read_config(0, &mut config);
    assert_eq!(&config, b"disc");
}

#[test]
fn a_card_that_tells_of_no_change_is_not_asked_for_any() {
    let shared = Shared::new();
    shared.card(|card| card.device.tells_of_config = false);
    let mut device = Device::connect(DeviceKind::Block, shared.clone(), |_| Ok(shared.clone())).unwrap();
    shared.card(|card| card.device.config = *b"disc");
    assert_eq!(shared.card(|card| card.platform.channel), None);
    assert_eq!(device.take_config_change(), Ok(false));
}

#[test]
fn what_the_next_card_has_in_another_way_is_a_change() {
    let (shared, mut device) = running();
    let mut next = FakeCard::offering(FEATURES);
    next.device.config = *b"disc";
    die(&shared, &mut device, Some(next)).unwrap();
    assert_eq!(shared.card(|card| card.platform.channel), Some(Resource::Config));
    assert_eq!(device.take_config_change(), Ok(true));
    device.reset();
    assert_eq!(device.take_config_change(), Ok(false), "a driver that begins reads it all");
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
