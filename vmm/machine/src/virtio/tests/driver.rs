//! A driver's way from reset to queues that run, in the order of Linux's, and the ways that go astray.

use super::*;

fn setup(queue: u64, base: u32) -> QueueSetup {
    let address = |offset: u64| GuestPhys(0x1_0010_0000 + offset + (queue << 16));
    QueueSetup { size: 64, base, descriptors: address(0), driver_area: address(0x1000), device_area: address(0x2000) }
}

#[test]
fn the_features_are_the_back_ends_and_the_transports() {
    let mut guest = Guest::new();
    assert_eq!(guest.features(), model::FEATURES | VERSION_1 | RING_PACKED | RING_RESET);
    for select in [2, 3, u32::MAX] {
        guest.set32(0, select);
        assert_eq!(guest.get32(4), 0);
    }
}

#[test]
fn a_driver_may_accept_what_was_offered_with_version_1() {
    for (accepted, is_taken) in [
        (VERSION_1, true),
        (VERSION_1 | RING_PACKED | RING_RESET | model::FEATURES, true),
        (model::FEATURES, false),
        (0, false),
        (VERSION_1 | 1 << 30, false),
        (VERSION_1 | 1 << 38, false),
        (VERSION_1 | 1, false),
        (u64::MAX, false),
    ] {
        let mut guest = Guest::new();
        let expected = if is_taken { 0xb } else { 3 };
        assert_eq!(guest.negotiate(accepted), expected, "{accepted:#x}");
        let own = accepted & (model::FEATURES | RING_PACKED);
        let told = if is_taken { vec![Call::Negotiate(own)] } else { Vec::new() };
        assert_eq!(guest.model.take_calls(), told, "{accepted:#x}");
    }
}

#[test]
fn features_stay_once_they_were_negotiated() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    guest.accept(u64::MAX);
    guest.set32(8, 1);
    assert_eq!(guest.get32(0xc), 1);
    assert_eq!(guest.get8(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

#[test]
fn a_back_end_may_refuse_features() {
    let mut guest = Guest::new();
    guest.model.state().is_failing = true;
    assert_eq!(guest.negotiate(VERSION_1), ACKNOWLEDGE | DRIVER);
    // Another try, with others.
    guest.model.state().is_failing = false;
    guest.set8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_eq!(guest.get8(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK);
}

#[test]
fn the_queues_run_when_the_driver_is_ready() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    guest.model.take_calls();
    for queue in 0..2 {
        guest.set_up_queue(queue, 0xffff);
        assert_eq!(guest.get16(0x1e), queue, "the place of its doorbell");
    }
    for queue in 0..2 {
        guest.set16(QUEUE_SELECT, queue);
        guest.set16(QUEUE_ENABLE, 1);
    }
    assert_eq!(guest.model.take_calls(), []);
    guest.set8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    let expected = [
        Call::Start(0, setup(0, 0)),
        Call::Start(1, setup(1, 0)),
        Call::Doorbell(0, Some(PORTS)),
        Call::Doorbell(1, Some(PORTS + 4)),
    ];
    assert_eq!(guest.model.take_calls(), expected);
}

#[test]
fn a_queue_that_is_enabled_later_runs_at_once_and_one_that_is_not_never() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    guest.set_up_queue(1, 0xffff);
    guest.set8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(guest.model.running(), []);
    guest.set16(QUEUE_ENABLE, 1);
    assert_eq!(guest.model.running(), [1]);
}

#[test]
fn a_packed_ring_starts_with_both_wrap_counters_set() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1 | RING_PACKED);
    guest.set_up_queue(0, 0xffff);
    // Not a power of two, as only packed rings may be.
    guest.set16(QUEUE_SIZE, 48);
    guest.set16(QUEUE_ENABLE, 1);
    guest.model.take_calls();
    guest.set8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    let expected = Call::Start(0, QueueSetup { size: 48, ..setup(0, 0x8000_8000) });
    assert_eq!(guest.model.take_calls().first(), Some(&expected));
}

#[test]
fn a_queue_has_a_size_that_it_can_have() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    assert_eq!(guest.get16(QUEUE_SIZE), 256);
    for (written, expected) in [(128, 128), (0, 128), (100, 128), (512, 128), (0xffff, 128), (256, 256), (1, 1)] {
        guest.set16(QUEUE_SIZE, written);
        assert_eq!(guest.get16(QUEUE_SIZE), expected, "{written}");
    }
}

#[test]
fn a_queue_that_is_not_there_has_the_size_zero_and_keeps_nothing() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    for queue in [2, 63, 64, 0xffff] {
        guest.set_up_queue(queue, 0);
        guest.set16(QUEUE_ENABLE, 1);
        assert_eq!((guest.get16(QUEUE_SIZE), guest.get16(QUEUE_ENABLE), guest.get16(QUEUE_VECTOR)), (0, 0, 0xffff));
        assert_eq!(guest.get32(0x20), 0);
    }
}

#[test]
fn a_queue_that_is_enabled_stays_as_it_is() {
    let mut guest = Guest::new();
    guest.drive();
    guest.set16(QUEUE_SIZE, 128);
    guest.set32(0x20, 0);
    guest.set16(QUEUE_ENABLE, 0);
    assert_eq!((guest.get16(QUEUE_SIZE), guest.get32(0x20), guest.get16(QUEUE_ENABLE)), (64, 0x11_0000, 1));
    assert_eq!(guest.model.take_calls(), []);
}

#[test]
fn nothing_is_enabled_before_the_negotiation() {
    let mut guest = Guest::new();
    guest.set_command(7);
    guest.set_up_queue(0, 0xffff);
    guest.set16(QUEUE_ENABLE, 1);
    guest.set8(STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK);
    assert_eq!((guest.get16(QUEUE_ENABLE), guest.get8(STATUS)), (0, ACKNOWLEDGE | DRIVER));
}

#[test]
fn writes_to_the_doorbells_ports_of_any_width_ring() {
    let mut guest = Guest::new();
    guest.drive();
    for (port, width, queue) in [(0, 2, 0), (4, 2, 1), (4, 1, 1), (4, 4, 1), (6, 2, 1), (1, 1, 0)] {
        guest.machine.port_out(PORTS + port, width, 0xffff, 0);
        assert_eq!(guest.model.take_calls(), [Call::Notify(queue)], "{port} {width}");
    }
    guest.machine.port_out(PORTS + 8, 2, 0, 0);
    guest.machine.port_out(PORTS + 0xfc, 4, 0, 0);
    assert_eq!(guest.model.take_calls(), []);
}

#[test]
fn doorbells_move_with_their_window() {
    let mut guest = Guest::new();
    guest.drive();
    // By one doorbell in the register: windows are aligned, so nothing moves.
    guest.set_config(0x10, u32::from(PORTS) + 4);
    assert_eq!(guest.model.take_calls(), []);
    for (offset, value, expected) in [
        (0x10, 0xc000, [Some(0xc000), Some(0xc004)]),
        // Beyond the ports that there are, and before those of the host bridge.
        (0x10, 0x1_0000, [None; 2]),
        (0x10, 0x100, [None; 2]),
        (0x10, 0xff00, [Some(0xff00), Some(0xff04)]),
        (0x04, 6, [None; 2]),
        (0x04, 7, [Some(0xff00), Some(0xff04)]),
    ] {
        guest.set_config(offset, value);
        assert_eq!(guest.model.doorbells(), expected, "{offset:#x} {value:#x}");
        assert_eq!(guest.model.running(), [0, 1]);
    }
}

#[test]
fn a_reset_leaves_nothing_but_the_generation() {
    let mut guest = Guest::new();
    guest.drive();
    guest.machine.virtio_config_changed(guest.at);
    guest.set8(STATUS, 0);
    assert_eq!(guest.model.running(), []);
    assert_eq!(guest.model.take_calls().last(), Some(&Call::Reset));
    assert_eq!((guest.get8(STATUS), guest.get8(GENERATION), guest.get16(CONFIG_VECTOR)), (0, 1, 0xffff));
    guest.set16(QUEUE_SELECT, 1);
    assert_eq!((guest.get16(QUEUE_SIZE), guest.get16(QUEUE_ENABLE), guest.get16(QUEUE_VECTOR)), (256, 0, 0xffff));
    assert_eq!((guest.get32(0x20), guest.get32(0xc), guest.messages()), (0, 0, Vec::new()));
    guest.drive();
    assert_eq!(guest.model.running(), [0, 1]);
}

#[test]
fn a_reset_of_what_was_not_used_is_no_matter_for_the_back_end() {
    let mut guest = Guest::new();
    guest.set8(STATUS, 0);
    assert_eq!(guest.model.take_calls(), []);
    guest.write(MEMORY + DEVICE, &[1]);
    guest.set8(STATUS, 0);
    assert_eq!(guest.model.take_calls(), [Call::Reset]);
}

#[test]
fn a_queue_can_be_reset_by_itself_and_enabled_again() {
    let mut guest = Guest::new();
    guest.drive();
    guest.model.work(1, 7);
    guest.set16(QUEUE_SELECT, 1);
    guest.set16(QUEUE_RESET, 1);
    let message = Call::Message(1, None);
    assert_eq!(guest.model.take_calls(), [Call::Doorbell(1, None), Call::Stop(1), message]);
    assert_eq!((guest.get16(QUEUE_RESET), guest.get16(QUEUE_ENABLE), guest.get16(QUEUE_SIZE)), (0, 0, 256));
    guest.set_up_queue(1, 2);
    guest.set16(QUEUE_ENABLE, 1);
    let expected = [Call::Message(1, Some(0x4042)), Call::Start(1, setup(1, 0)), Call::Doorbell(1, Some(PORTS + 4))];
    assert_eq!(guest.model.take_calls(), expected);
}

#[test]
fn a_queues_reset_that_was_not_negotiated_resets_nothing() {
    let mut guest = Guest::new();
    guest.drive_with(VERSION_1);
    guest.set16(QUEUE_RESET, 1);
    assert_eq!((guest.get16(QUEUE_ENABLE), guest.model.take_calls()), (1, Vec::new()));
}

#[test]
fn a_device_that_may_not_access_memory_stands_still_and_goes_on_where_it_was() {
    let mut guest = Guest::new();
    guest.drive();
    guest.model.work(0, 5);
    guest.set_command(3);
    assert_eq!((guest.model.running(), guest.model.doorbells()), (Vec::new(), vec![None; 2]));
    guest.model.take_calls();
    guest.set_command(7);
    assert!(guest.model.take_calls().contains(&Call::Start(0, setup(0, 5))));
}

#[test]
fn a_driver_that_gives_up_stops_its_device() {
    let mut guest = Guest::new();
    guest.drive();
    guest.set8(STATUS, FAILED);
    assert_eq!(guest.model.running(), []);
}

#[test]
fn a_driver_takes_no_status_bit_back_but_by_a_reset() {
    let mut guest = Guest::new();
    guest.drive();
    guest.set8(STATUS, ACKNOWLEDGE | NEEDS_RESET);
    assert_eq!(guest.get8(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(guest.model.running(), [0, 1]);
}

#[test]
fn a_queue_that_cannot_be_started_fails_the_device_until_it_is_reset() {
    let mut guest = Guest::new();
    guest.negotiate(VERSION_1);
    guest.set_up_interrupts();
    guest.set16(CONFIG_VECTOR, 0);
    guest.set_up_queue(0, 1);
    guest.set16(QUEUE_ENABLE, 1);
    guest.model.state().is_failing = true;
    guest.set8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert_eq!(guest.get8(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
    assert_eq!(guest.messages(), [0x4040], "the driver is told by the configuration's vector");
    guest.model.state().is_failing = false;
    guest.drive();
    assert_eq!(guest.get8(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

#[test]
fn a_device_that_fails_by_itself_stops_all_queues() {
    let mut guest = Guest::new();
    guest.drive();
    guest.model.state().is_failing = true;
    guest.machine.virtio_failed(guest.at);
    assert_eq!((guest.model.running(), guest.messages()), (Vec::new(), vec![0x4040]));
    assert_eq!(guest.get8(STATUS) & NEEDS_RESET, NEEDS_RESET);
    guest.machine.virtio_failed(guest.at);
    assert_eq!(guest.messages(), [], "it fails once");
}
