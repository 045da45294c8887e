//! Console devices under drivers that follow the specification.

#[path = "../common/mod.rs"]
mod common;
mod guest;

use common::ring_config;
use dragonfly_card_devices::{Cables, ConsoleDevice, PortTaken, Serve};
use dragonfly_vhost_user::{Device, RingConfig};
use dragonfly_virtqueue::RingFeatures;
use guest::*;

/// What waits for a port at most.
const ROOM: usize = 32 << 10;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn drivers_are_told_of_their_ports() {
    let mut cables = Cables::default();
    let mut guest =
        Guest::new(&mut cables, &table(&["shell", "talk"], Some("shell")), RingFeatures::empty(), MULTIPORT);
    assert_eq!(guest.told(&mut cables), []);
    guest.say(&mut cables, 0, READY, 1);
    assert_eq!(guest.told(&mut cables), [(0, ADD, 1, vec![]), (1, ADD, 1, vec![])]);
    guest.say(&mut cables, 0, PORT_READY, 1);
    let size = [25, 0, 80, 0].to_vec();
    let expected = [(0, CONSOLE, 1, vec![]), (0, NAME, 1, b"shell".to_vec()), (0, RESIZE, 0, size)];
    assert_eq!(guest.told(&mut cables), expected);
    // However often it asks, it is told once when it has a buffer: there was one, and then another.
    for _ in 0..100 {
        guest.say(&mut cables, 1, PORT_READY, 1);
    }
    assert_eq!(guest.told(&mut cables), vec![(1, NAME, 1, b"talk".to_vec()); 2]);
    // What makes no sense changes nothing.
    for (port, event, value) in [(2, PORT_READY, 1), (u32::MAX, OPEN, 1), (1, NAME, 1), (1, 99, 1), (0, READY, 0)] {
        guest.say(&mut cables, port, event, value);
        assert_eq!(guest.told(&mut cables), [], "{port} {event} {value}");
    }
    let mut config = [0xff; 10];
    guest.device.read_config(0, &mut config);
    assert_eq!(config, [80, 0, 25, 0, 2, 0, 0, 0, 0, 0]);
}

#[test]
fn a_port_is_told_when_somebody_is_at_its_other_end() {
    let mut cables = Cables::default();
    let mut one = Guest::new(&mut cables, &table(&["a", "talk"], None), RingFeatures::empty(), MULTIPORT);
    let mut two = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    one.begin(&mut cables);
    assert_eq!(one.told(&mut cables), []);
    two.begin(&mut cables);
    assert_eq!(one.told(&mut cables), [(1, OPEN, 1, vec![])]);
    assert!(two.send(&mut cables, TRANSMIT, b"last words"));
    two.say(&mut cables, 0, OPEN, 0);
    assert_eq!(one.told(&mut cables), [], "not before it has all that was sent");
    assert_eq!(one.receive(&mut cables, SECOND, 64).unwrap(), b"last words");
    assert_eq!(one.told(&mut cables), [(1, OPEN, 0, vec![])]);
    two.say(&mut cables, 0, OPEN, 1);
    assert_eq!(one.told(&mut cables), [(1, OPEN, 1, vec![])]);
    // As when the guest is reset.
    two.renew(RECEIVE, &mut cables);
    assert_eq!(one.told(&mut cables), [(1, OPEN, 0, vec![])]);
}

#[test]
fn what_a_port_sends_comes_out_of_the_other_whole_as_far_as_there_is_room() {
    for layout in [RingFeatures::empty(), RingFeatures::RING_PACKED] {
        let mut cables = Cables::default();
        let mut one = Guest::new(&mut cables, &table(&["talk"], None), layout, MULTIPORT);
        let mut two = Guest::new(&mut cables, &table(&["talk"], None), layout, MULTIPORT);
        one.begin(&mut cables);
        two.begin(&mut cables);
        let all = content(ROOM + 7000);
        assert!(one.send(&mut cables, TRANSMIT, &all[..20_000]));
        assert!(!one.send(&mut cables, TRANSMIT, &all[20_000..]), "there is no room for all");
        assert!(!one.device.enable_kicks(TRANSMIT, &one.memory), "it waits for room, not for kicks");
        let mut got = vec![];
        while let Some(bytes) = two.receive(&mut cables, RECEIVE, 999) {
            got.extend(bytes);
            one.serve(&mut cables);
        }
        assert!(got == all, "{} bytes of {} came, or others", got.len(), all.len());
        assert_eq!(one.used(TRANSMIT), Some(0));
        assert!(two.send(&mut cables, TRANSMIT, b"answer"));
        assert_eq!(one.receive(&mut cables, RECEIVE, 999).unwrap(), b"answer");
    }
}

#[test]
fn a_console_never_waits_and_its_last_words_are_kept() {
    let mut cables = Cables::default();
    let shell = table(&["shell"], Some("shell"));
    let mut console = Guest::new(&mut cables, &shell, RingFeatures::empty(), 0);
    let all = content(3 * ROOM);
    for part in all.chunks(0x2000) {
        assert!(console.send(&mut cables, TRANSMIT, part));
    }
    let mut reader = Guest::new(&mut cables, &table(&["shell"], None), RingFeatures::empty(), MULTIPORT);
    reader.begin(&mut cables);
    let mut got = vec![];
    while let Some(bytes) = reader.receive(&mut cables, RECEIVE, 4000) {
        got.extend(bytes);
    }
    assert!(got == all[2 * ROOM..]);
    // A driver that knows of no ports has its console open.
    assert!(reader.send(&mut cables, TRANSMIT, b"ls\n"));
    assert_eq!(console.receive(&mut cables, RECEIVE, 64).unwrap(), b"ls\n");
}

#[test]
fn two_ports_have_the_same_name_at_most() {
    let mut cables = Cables::default();
    let table = table(&["talk"], None);
    assert!(ConsoleDevice::new(&table, &mut cables).is_ok());
    assert!(ConsoleDevice::new(&table, &mut cables).is_ok());
    assert_eq!(ConsoleDevice::new(&table, &mut cables).unwrap_err(), PortTaken("talk".into()));
}

#[test]
fn a_port_that_another_card_served_is_taken_as_open() {
    let mut cables = Cables::default();
    let mut one = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    one.begin(&mut cables);
    let mut after = Cables::default();
    let mut device = ConsoleDevice::new(&table(&["talk"], None), &mut after).unwrap();
    device.set_features(RingFeatures::VERSION_1.bits() | MULTIPORT);
    for (index, (config, _)) in (0..).zip(&one.rings) {
        let base = one.device.stop_ring(index);
        device.start_ring(index, RingConfig { base, ..ring_config(config) }).unwrap();
        device.rings_changed(&mut after);
    }
    let mut two = Guest::new(&mut after, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    two.begin(&mut after);
    assert!(two.send(&mut after, TRANSMIT, b"again"));
    one.device = device;
    assert_eq!(one.receive(&mut after, RECEIVE, 64).unwrap(), b"again");
}
