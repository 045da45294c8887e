//! Learning, VLANs, floods, anti-spoofing, limits, counters, capture.

mod common;

use std::num::NonZeroU64;

use common::*;
use dragonfly_vswitch::{
    ConfigError, MacAddress, Offload, PartialChecksum, PortConfig, PortId, Role, SegmentKind, Segmentation, Switch,
    SwitchConfig,
    capture::{CaptureConfig, file_header},
    counters::{Count, DropReason},
    identity::Identity,
    limit::{Limits, Rate},
    vlan::VlanMode,
};

const NOBODY: [u16; 0] = [];

fn udp(from: u8, to: u8) -> Vec<u8> {
    Build::udp(from, to, (1, 2), b"data").frame()
}

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    Some(Rate { per_second: NonZeroU64::new(per_second)?, burst: NonZeroU64::new(burst)? })
}

fn bound(last: u8) -> PortConfig {
    let identity = Identity {
        macs: vec![mac(last)],
        addresses: [prefix(&format!("10.0.0.{last}/32")), prefix(&format!("fd00::{last}/128"))]
            .into_iter()
            .flatten()
            .collect(),
    };
    PortConfig { identity: Some(identity), ..guest() }
}

#[test]
fn frames_to_unknown_stations_go_everywhere_and_to_known_ones_to_their_port() {
    let mut switch = switch_of(vec![guest(), guest(), guest()]);
    assert_eq!(ports_of(&mut switch, 0, &udp(0, 2), 1), [1, 2]);
    assert_eq!(ports_of(&mut switch, 2, &udp(2, 0), 2), [0]);
    assert_eq!(ports_of(&mut switch, 0, &udp(0, 2), 3), [2]);
    assert_eq!(ports_of(&mut switch, 0, &udp(0, 2), 4), [2], "by the cache now");
    assert_eq!(ports_of(&mut switch, 1, &udp(2, 0), 5), [0], "the station has moved");
    assert_eq!(ports_of(&mut switch, 0, &udp(0, 2), 6), [1], "and the cache knows");
    assert_eq!(ports_of(&mut switch, 0, &udp(0, 0), 7), NOBODY, "it is where the frame comes from");
}

#[test]
fn a_station_that_is_silent_for_too_long_is_forgotten() {
    let lifetime = SwitchConfig::new(1).station_lifetime_ns;
    let mut switch = switch_of(vec![guest(), guest(), guest()]);
    introduce(&mut switch, 3, 0);
    let mut now = 0;
    for _ in 0..5 {
        now += lifetime - 1;
        // Both speak, by the cache.
        for _ in 0..2 {
            assert_eq!(ports_of(&mut switch, 0, &udp(0, 2), now), [2]);
            assert_eq!(ports_of(&mut switch, 2, &udp(2, 0), now), [0]);
        }
    }
    assert_eq!(ports_of(&mut switch, 0, &udp(0, 2), now + lifetime), [1, 2]);
}

#[test]
fn a_batch_is_forwarded_in_order_whatever_its_length() {
    let mut switch = switch_of(vec![guest(), guest()]);
    introduce(&mut switch, 2, 0);
    let frames: Vec<_> = (0..100_u16).map(|n| Build::udp(0, 1, (n % 7, 2), b"data").frame()).collect();
    let batch: Vec<_> = frames.iter().map(|frame| &frame[..]).collect();
    for now in 1..3 {
        let recorder = send(&mut switch, 0, &batch, now);
        assert_eq!(recorder.numbers, (0..100).collect::<Vec<_>>());
        assert_eq!(recorder.sent.iter().map(|(_, frame)| frame.clone()).collect::<Vec<_>>(), frames);
    }
}

#[test]
fn tags_come_and_go_with_the_ports_vlans() {
    let trunk =
        |tagged: &[u16], native| PortConfig { vlan: VlanMode::Trunk { tagged: tagged.to_vec(), native }, ..guest() };
    let access = |vlan| PortConfig { vlan: VlanMode::Access(vlan), ..guest() };
    let configs = || vec![access(5), access(6), trunk(&[5, 6], None), trunk(&[6], Some(5)), access(5)];
    let plain = |to| Build::udp(9, to, (1, 2), b"data");
    let tagged = |to, vlan| plain(to).tag(vlan);
    // From which port, what, and who gets what.
    let broadcast = |build: Build| Build { destination_mac: MacAddress::BROADCAST, ..build };
    let priority = |build: Build| Build { tags: vec![[0x81, 0, 0xe0, 0]], ..build };
    let cases = [
        ("access", 0, plain(1), vec![(2, tagged(1, 5)), (3, plain(1)), (4, plain(1))]),
        ("tagged into access", 0, tagged(1, 5), vec![]),
        (
            "a priority alone",
            0,
            priority(plain(1)),
            vec![(2, Build { tags: vec![[0x81, 0, 0xe0, 5]], ..plain(1) }), (3, plain(1)), (4, plain(1))],
        ),
        ("trunk", 2, tagged(1, 5), vec![(0, plain(1)), (3, plain(1)), (4, plain(1))]),
        ("trunk, other VLAN", 2, tagged(1, 6), vec![(1, plain(1)), (3, tagged(1, 6))]),
        ("trunk without native", 2, plain(1), vec![]),
        ("trunk, VLAN that it is not in", 2, tagged(1, 7), vec![]),
        ("native", 3, plain(1), vec![(0, plain(1)), (2, tagged(1, 5)), (4, plain(1))]),
        ("broadcast", 1, broadcast(plain(1)), vec![(2, broadcast(tagged(1, 6))), (3, broadcast(tagged(1, 6)))]),
        ("two tags", 2, tagged(1, 6).tag(77), vec![(1, plain(1).tag(77)), (3, tagged(1, 6).tag(77))]),
    ];
    for (name, port, frame, expected) in cases {
        let mut switch = switch_of(configs());
        let bytes = frame.frame();
        let batch = [&bytes[..]];
        let expected: Vec<_> = expected.into_iter().map(|(port, build)| (PortId(port), build.frame())).collect();
        assert_eq!(send(&mut switch, port, &batch, 1).sent, expected, "{name}");
        // Known stations, twice, so that the cache answers.
        for (answerer, answer) in &expected {
            let mut known = switch_of(configs());
            let mut station = answer.clone();
            station[..6].copy_from_slice(&MacAddress::BROADCAST.0);
            station[6..12].copy_from_slice(&mac(1).0);
            send(&mut known, answerer.0, &[&station], 1);
            // Nobody behind an access port may speak with tags.
            if !["broadcast", "two tags"].contains(&name) {
                for now in 2..5 {
                    let sent = send(&mut known, port, &batch, now).sent;
                    assert_eq!(sent, [(*answerer, answer.clone())], "{name}, to a known station");
                }
            }
        }
    }
}

#[test]
fn floods_are_limited_and_other_frames_are_not() {
    let mut switch = switch_of(vec![PortConfig { flood_limit: rate(10, 5), ..guest() }, guest()]);
    introduce(&mut switch, 2, 0);
    let broadcast = arp(0, 0, false);
    let passed = |switch: &mut Switch, now| (0..50).filter(|_| ports_of(switch, 0, &broadcast, now) == [1]).count();
    assert_eq!(passed(&mut switch, 10 * SECOND), 5);
    assert_eq!(passed(&mut switch, 10 * SECOND + SECOND / 5), 2);
    assert_eq!(drops(&switch, 0, DropReason::Storm), 45 + 48);
    assert_eq!(ports_of(&mut switch, 0, &udp(0, 1), 10 * SECOND + SECOND / 5), [1]);
}

#[test]
fn a_guest_cannot_pretend_to_be_another() {
    use DropReason::{SpoofedAddress, SpoofedMac};
    let router = Build::icmp(0, 1, 134, 0, &[0; 12]).v6();
    let advertise = |target: u8| {
        let mut target_bytes = [0; 24];
        (target_bytes[4], target_bytes[19]) = (0xfd, target);
        Build::icmp(0, 1, 136, 0, &target_bytes[..20]).v6()
    };
    let with_option = |kind, station: u8| {
        let mut build = advertise(0);
        build.transport.extend([kind, 1]);
        build.transport.extend(mac(station).0);
        build
    };
    let source = |build: Build, last| Build { addresses: ([10, 0, 0, last], build.addresses.1), ..build };
    let dhcp = |address| Build { addresses: (address, [255; 4]), ..Build::udp(0, 1, (68, 67), b"discover") };
    let cases = [
        ("its own", udp(0, 1), None),
        ("its own IPv6", Build::udp(0, 1, (1, 2), b"").v6().frame(), None),
        ("another's MAC", udp(2, 1), Some(SpoofedMac)),
        (
            "a group's MAC",
            Build { source_mac: MacAddress::BROADCAST, ..Build::udp(0, 1, (1, 2), b"") }.frame(),
            Some(SpoofedMac),
        ),
        ("another's address", source(Build::udp(0, 1, (1, 2), b""), 2).frame(), Some(SpoofedAddress)),
        ("another's IPv6 address", source(Build::udp(0, 1, (1, 2), b"").v6(), 2).frame(), Some(SpoofedAddress)),
        ("asking for an address", dhcp([0; 4]).frame(), None),
        ("asking with another's", dhcp([10, 0, 0, 2]).frame(), Some(SpoofedAddress)),
        (
            "no address otherwise",
            Build { addresses: ([0; 4], [10, 0, 0, 1]), ..Build::udp(0, 1, (1, 2), b"") }.frame(),
            Some(SpoofedAddress),
        ),
        ("ARP", arp(0, 0, true), None),
        ("ARP for another's address", arp(0, 2, true), Some(SpoofedAddress)),
        (
            "ARP probe",
            {
                let mut probe = arp(0, 0, false);
                probe[28..32].fill(0);
                probe
            },
            None,
        ),
        (
            "ARP with another's MAC inside",
            {
                let mut lie = arp(0, 0, true);
                lie[27] = 2;
                lie
            },
            Some(SpoofedAddress),
        ),
        ("ARP cut off", arp(0, 0, true)[..30].to_vec(), Some(SpoofedAddress)),
        ("router advertisement", router.frame(), Some(SpoofedAddress)),
        ("redirect", Build::icmp(0, 1, 5, 0, &[0; 28]).frame(), Some(SpoofedAddress)),
        ("advertises itself", advertise(0).frame(), None),
        ("advertises another", advertise(2).frame(), Some(SpoofedAddress)),
        ("advertises its MAC", with_option(2, 0).frame(), None),
        ("advertises another's MAC", with_option(2, 2).frame(), Some(SpoofedAddress)),
    ];
    for (name, frame, reason) in cases {
        let mut switch = switch_of(vec![bound(0), guest()]);
        for now in 1..4 {
            assert_eq!(ports_of(&mut switch, 0, &frame, now).is_empty(), reason.is_some(), "{name}");
        }
        for counted in DropReason::ALL {
            assert_eq!(drops(&switch, 0, *counted), 3 * u64::from(reason == Some(*counted)), "{name}, {counted:?}");
        }
    }
}

#[test]
fn link_local_addresses_of_a_guests_mac_are_its_own() {
    let mut frame = Build::udp(0, 1, (1, 2), b"").v6().frame();
    // fe80::ff:fe00:0 of 02:00:00:00:00:00.
    frame[22..38].copy_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0]);
    let mut switch = switch_of(vec![bound(0), guest()]);
    assert_eq!(ports_of(&mut switch, 0, &frame, 1), [1]);
    frame[37] = 1;
    assert_eq!(ports_of(&mut switch, 0, &frame, 2), NOBODY);
}

#[test]
fn a_bound_station_stays_where_it_belongs() {
    let mut switch = switch_of(vec![bound(0), guest(), guest()]);
    assert_eq!(ports_of(&mut switch, 1, &udp(0, 2), 1), NOBODY);
    assert_eq!(drops(&switch, 1, DropReason::StationElsewhere), 1);
    assert_eq!(ports_of(&mut switch, 2, &udp(2, 0), 2), [0], "though it never sent");
    assert_eq!(ports_of(&mut switch, 2, &udp(2, 77), 3), [1], "unknown stations cannot be behind a bound port");
}

#[test]
fn the_world_outside_is_not_connected_through_the_switch() {
    let mut switch = switch_of(vec![PortConfig::new(Role::Uplink), PortConfig::new(Role::Uplink), guest()]);
    assert_eq!(ports_of(&mut switch, 0, &arp(0, 0, false), 1), [2]);
    assert_eq!(ports_of(&mut switch, 2, &arp(2, 2, false), 2), [0, 1]);
}

#[test]
fn limits_hold_to_two_percent() {
    let frame = udp(0, 1);
    let bits = frame.len() as u64 * 8;
    // What is set, packets that pass in ten seconds of 2,000 each, reason for the rest.
    let none = Limits::default();
    let cases = [
        ("sent packets", Limits { packets: rate(500, 5), bits: None }, none, 5_000, DropReason::SendLimit),
        ("sent bits", Limits { packets: None, bits: rate(700 * bits, bits) }, none, 7_000, DropReason::SendLimit),
        ("received packets", none, Limits { packets: rate(300, 5), bits: None }, 3_000, DropReason::ReceiveLimit),
        (
            "received bits",
            none,
            Limits { packets: None, bits: rate(900 * bits, bits) },
            9_000,
            DropReason::ReceiveLimit,
        ),
        ("both", Limits { packets: rate(900, 1), bits: rate(400 * bits, bits) }, none, 4_000, DropReason::SendLimit),
    ];
    for (name, send_limits, receive_limits, expected, reason) in cases {
        let mut switch =
            switch_of(vec![PortConfig { send_limits, ..guest() }, PortConfig { receive_limits, ..guest() }]);
        introduce(&mut switch, 2, 0);
        let passed: usize =
            (0..20_000).map(|n| ports_of(&mut switch, 0, &frame, SECOND + n * SECOND / 2_000).len()).sum();
        assert!(passed.abs_diff(expected) <= expected / 50, "{name}: {passed}");
        let counted = drops(&switch, u16::from(reason == DropReason::ReceiveLimit), reason);
        assert_eq!(counted as usize, 20_000 - passed, "{name}");
    }
}

#[test]
fn what_the_card_is_to_cut_counts_as_its_parts() {
    let config = PortConfig { send_limits: Limits { packets: rate(100, 10), bits: None }, ..guest() };
    let mut switch = switch_of(vec![config, guest()]);
    introduce(&mut switch, 2, 0);
    let frame = Build::tcp(0, 1, (1, 2), Tcp { flags: ACK, ..Tcp::default() }, &vec![0; 10_000]).frame();
    let cut = Segmentation { kind: SegmentKind::Tcp, size: 1000 };
    let offload = Offload { segmentation: Some(cut), ..Offload::default() };
    let frames = [&frame[..]];
    let mut passed = |now| {
        let mut recorder = Recorder { frames: &frames, ..Recorder::default() };
        switch.receive(PortId(0), &[Offered(&frame, offload)], now, &mut recorder);
        recorder.sent.len()
    };
    assert_eq!(passed(SECOND), 1, "longer than the MTU, but its parts are not");
    assert_eq!(passed(SECOND), 0);
    assert_eq!(passed(SECOND + SECOND / 50), 1);
}

#[test]
fn a_checksum_cannot_change_what_was_judged() {
    let mut switch = switch_of(vec![guest(), guest()]);
    introduce(&mut switch, 2, 0);
    let udp = udp(0, 1);
    let cut = |kind, size| Offload { segmentation: Some(Segmentation { kind, size }), ..Offload::default() };
    let sum = |start, offset| Offload { checksum: Some(PartialChecksum { start, offset }), ..Offload::default() };
    let cases = [
        ("UDP's field", sum(34, 6), true),
        ("within the data, as a guest's own tunnel does", sum(42, 0), true),
        ("the destination port", sum(34, 2), false),
        ("the source address", sum(0, 26), false),
        ("the source address, from the network header on", sum(14, 12), false),
        ("segments of the other protocol", cut(SegmentKind::Tcp, 100), false),
        ("segments without data", cut(SegmentKind::Udp, 0), false),
        ("segments", cut(SegmentKind::Udp, 100), true),
    ];
    for (name, offload, passes) in cases {
        let frames = [&udp[..]];
        let mut recorder = Recorder { frames: &frames, ..Recorder::default() };
        switch.receive(PortId(0), &[Offered(&udp, offload)], 1, &mut recorder);
        assert_eq!(recorder.sent.len(), usize::from(passes), "{name}");
    }
    assert_eq!(drops(&switch, 0, DropReason::Offload), 5);
}

#[test]
fn ports_count_frames_and_bytes() {
    let mut switch = switch_of(vec![guest(), guest()]);
    introduce(&mut switch, 2, 0);
    let before = [0, 1].map(|port| *switch.counters(PortId(port)).expect("it exists"));
    let frame = udp(0, 1);
    for now in 0..5 {
        send(&mut switch, 0, &[&frame, &frame], now);
    }
    send(&mut switch, 0, &[&frame[..20]], 5);
    let after = [0, 1].map(|port| *switch.counters(PortId(port)).expect("it exists"));
    let difference = |before: Count, after: Count| (after.frames - before.frames, after.bytes - before.bytes);
    let bytes = 10 * frame.len() as u64;
    assert_eq!(difference(before[0].received, after[0].received), (11, bytes + 20));
    assert_eq!(difference(before[1].sent, after[1].sent), (10, bytes));
    assert_eq!(after[0].dropped(DropReason::Malformed), 1);
    assert_eq!(after[1].cached - before[1].cached, 8, "the first two were in one batch");
}

#[test]
fn a_captured_port_gives_a_pcap_file() {
    let mut switch = switch_of(vec![guest(), guest()]);
    introduce(&mut switch, 2, 0);
    let capture = CaptureConfig { snap_length: 40, received: true, sent: true, transport_port: Some(2) };
    switch.set_capture(PortId(0), Some(capture)).expect("it exists");
    let (out, other, back) =
        (udp(0, 1), Build::udp(0, 1, (5, 6), b"data").frame(), Build::udp(1, 0, (2, 1), b"").frame());
    let mut file = file_header(40).to_vec();
    file.extend(send(&mut switch, 0, &[&out, &other], 3 * SECOND + 7).captured);
    file.extend(send(&mut switch, 1, &[&back], 4 * SECOND).captured);
    let mut expected = vec![0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0];
    expected.extend([3, 0, 0, 0, 7, 0, 0, 0, 40, 0, 0, 0, out.len() as u8, 0, 0, 0]);
    expected.extend(&out[..40]);
    expected.extend([4, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, back.len() as u8, 0, 0, 0]);
    expected.extend(&back[..40]);
    assert_eq!(file, expected);
    switch.set_capture(PortId(0), None).expect("it exists");
    assert!(send(&mut switch, 0, &[&out], 5 * SECOND).captured.is_empty());
}

#[test]
fn mistakes_in_the_configuration_are_refused() {
    let mut switch = Switch::new(SwitchConfig { stations: 100, ..SwitchConfig::new(1) });
    let twice = PortConfig { vlan: VlanMode::Access(4095), ..guest() };
    let group =
        PortConfig { identity: Some(Identity { macs: vec![MacAddress::BROADCAST], addresses: vec![] }), ..guest() };
    let cases = [
        (PortId(1024), guest(), ConfigError::PortNumber),
        (PortId(0), twice, ConfigError::Vlan),
        (PortId(0), group, ConfigError::Mac),
        (PortId(0), PortConfig { stations: 101, ..guest() }, ConfigError::Stations),
    ];
    for (id, config, error) in cases {
        assert_eq!(switch.add_port(id, config), Err(error));
    }
    assert_eq!(switch.add_port(PortId(0), bound(0)), Ok(()));
    assert_eq!(switch.add_port(PortId(0), guest()), Err(ConfigError::PortExists));
    assert_eq!(switch.add_port(PortId(1), PortConfig { stations: 1, ..bound(0) }), Err(ConfigError::Mac));
    assert_eq!(switch.change_port(PortId(1), guest()), Err(ConfigError::NoSuchPort));
    assert_eq!(switch.change_port(PortId(0), PortConfig { stations: 101, ..bound(0) }), Err(ConfigError::Stations));
    assert_eq!(switch.station(mac(0), 0, 1), Some(PortId(0)), "as before");
    assert_eq!(switch.remove_port(PortId(0)), Ok(()));
    assert_eq!(switch.remove_port(PortId(0)), Err(ConfigError::NoSuchPort));
    assert_eq!(switch.add_port(PortId(1), PortConfig { stations: 1, ..bound(0) }), Ok(()));
}
