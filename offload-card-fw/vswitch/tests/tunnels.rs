//! VXLAN and Geneve, byte for byte.

mod common;

use common::*;
use dragonfly_vswitch::{
    MacAddress, PortConfig, PortId, Role, Switch,
    capture::CaptureConfig,
    counters::DropReason,
    tunnel::{Tunnel, TunnelProtocol},
    vlan::VlanMode,
};

const UPLINK: u16 = 0;
const GUEST: u16 = 1;
const TUNNEL: u16 = 2;

fn tunnel(protocol: TunnelProtocol) -> Tunnel {
    Tunnel {
        protocol,
        network: 0x12_3456,
        local: [192, 0, 2, 1].into(),
        remote: [192, 0, 2, 2].into(),
        local_mac: MacAddress([6, 0, 0, 0, 0, 1]),
        next_hop_mac: MacAddress([6, 0, 0, 0, 0, 2]),
        vlan: None,
        uplink: PortId(UPLINK),
        has_checksum: false,
    }
}

fn ipv6(tunnel: Tunnel) -> Tunnel {
    let local = "2001:db8::1".parse().expect("an address");
    Tunnel { local, remote: "2001:db8::2".parse().expect("an address"), ..tunnel }
}

fn switch(tunnel: Tunnel) -> Switch {
    let vlan = VlanMode::Access(100);
    switch_of(vec![
        PortConfig::new(Role::Uplink),
        PortConfig { vlan: vlan.clone(), ..guest() },
        PortConfig { vlan, ..PortConfig::new(Role::Tunnel(tunnel)) },
    ])
}

/// The guest is station 1; station 9 is on the other host.
fn inner() -> Vec<u8> {
    Build::udp(1, 9, (1, 2), b"hi").frame()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).expect("hexadecimal")).collect()
}

/// What the other host sends back: outer headers from it, around a frame from station 9.
fn wrapped_by_peer(shim: &str, inner: &[u8]) -> Vec<u8> {
    wrapped(4789, shim, inner)
}

fn wrapped(port: u16, shim: &str, inner: &[u8]) -> Vec<u8> {
    let mut build = Build::udp(0, 0, (50_000, port), &[&hex(shim)[..], inner].concat());
    build.source_mac = MacAddress([6, 0, 0, 0, 0, 2]);
    build.destination_mac = MacAddress([6, 0, 0, 0, 0, 1]);
    build.addresses = ([192, 0, 2, 2], [192, 0, 2, 1]);
    build.frame()
}

fn from_peer() -> Vec<u8> {
    Build::udp(9, 1, (2, 1), b"ho").frame()
}

#[test]
fn frames_are_wrapped_as_the_standards_say() {
    let ethernet = "06 00 00 00 00 02  06 00 00 00 00 01";
    // 44 bytes of inner frame. Lengths: UDP 60 = 0x3c, IPv4 80 = 0x50. Source ports (----) are compared apart.
    let ipv4 = "08 00  45 00 00 50 00 00 40 00 40 11 b6 99 c0 00 02 01 c0 00 02 02";
    let ipv6_header = "86 dd  60 00 00 00 00 3c 11 40
        20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01  20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 02";
    let vxlan = "00 00 12 b5 00 3c 00 00  08 00 00 00 12 34 56 00";
    let geneve = "00 00 17 c1 00 3c 00 00  00 00 65 58 12 34 56 00";
    let cases = [
        (tunnel(TunnelProtocol::Vxlan), [ethernet, "", ipv4, vxlan]),
        (tunnel(TunnelProtocol::Geneve), [ethernet, "", ipv4, geneve]),
        (ipv6(tunnel(TunnelProtocol::Vxlan)), [ethernet, "", ipv6_header, vxlan]),
        (Tunnel { vlan: Some(7), ..tunnel(TunnelProtocol::Vxlan) }, [ethernet, "81 00 00 07", ipv4, vxlan]),
    ];
    for (tunnel, golden) in cases {
        let golden = hex(&golden.concat());
        let mut switch = switch(tunnel);
        let frame = inner();
        let batch = [&frame[..]];
        let mut sent = send(&mut switch, GUEST, &batch, 0).sent;
        assert_eq!(sent.len(), 1, "flooded to the tunnel alone, and out at its uplink");
        let (port, bytes) = &mut sent[0];
        assert_eq!(*port, PortId(UPLINK));
        let udp = tunnel.header_length() - 16;
        let source_port = u16::from_be_bytes([bytes[udp], bytes[udp + 1]]);
        assert!(source_port >= 49_152, "{source_port}");
        bytes[udp..udp + 2].fill(0);
        assert_eq!(bytes[..golden.len()], golden, "{tunnel:?}");
        assert_eq!(bytes[golden.len()..], frame);
    }
}

#[test]
fn source_ports_tell_flows_apart_and_stay_with_a_flow() {
    let mut switch = switch(tunnel(TunnelProtocol::Vxlan));
    let mut port_of = |flow: u16| {
        let frame = Build::udp(1, 9, (flow, 2), b"hi").frame();
        let bytes = send(&mut switch, GUEST, &[&frame], 0).sent[0].1.clone();
        u16::from_be_bytes([bytes[34], bytes[35]])
    };
    let ports: Vec<_> = (0..100).map(&mut port_of).collect();
    assert_eq!(ports, (0..100).map(&mut port_of).collect::<Vec<_>>());
    let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
    assert!(distinct.len() > 90, "{}", distinct.len());
}

#[test]
fn frames_from_the_peer_are_unwrapped_and_teach_where_stations_are() {
    for (protocol, port, shim) in [
        (TunnelProtocol::Vxlan, 4789, "08 00 00 00 12 34 56 00"),
        (TunnelProtocol::Vxlan, 4789, "ff ff ff ff 12 34 56 ff"),
        (TunnelProtocol::Geneve, 6081, "00 00 65 58 12 34 56 00"),
        (TunnelProtocol::Geneve, 6081, "02 00 65 58 12 34 56 00  01 01 00 01 aa bb cc dd"),
    ] {
        let mut switch = switch(tunnel(protocol));
        send(&mut switch, GUEST, &[&inner()], 0);
        for now in 1..4 {
            let outer = wrapped(port, shim, &from_peer());
            let batch = [&outer[..]];
            let recorder = send(&mut switch, UPLINK, &batch, now);
            assert_eq!(recorder.sent, [(PortId(GUEST), from_peer())], "{shim}");
        }
        assert_eq!(switch.station(mac(9), 100, 5), Some(PortId(TUNNEL)));
    }
}

#[test]
fn what_is_not_right_is_dropped() {
    use DropReason::{TunnelHeader, TunnelUnknown};
    use TunnelProtocol::{Geneve, Vxlan};
    let cases = [
        ("no number", Vxlan, 4789, "00 00 00 00 12 34 56 00", TunnelHeader),
        ("another network", Vxlan, 4789, "08 00 00 00 12 34 57 00", TunnelUnknown),
        ("version 1", Geneve, 6081, "40 00 65 58 12 34 56 00", TunnelHeader),
        ("control", Geneve, 6081, "00 80 65 58 12 34 56 00", TunnelHeader),
        ("an option that must be understood", Geneve, 6081, "01 40 65 58 12 34 56 00 01 01 80 00", TunnelHeader),
        ("not Ethernet", Geneve, 6081, "00 00 08 00 12 34 56 00", TunnelHeader),
        ("options beyond the frame", Geneve, 6081, "3f 00 65 58 12 34 56 00", TunnelHeader),
        ("the other protocol", Geneve, 4789, "08 00 00 00 12 34 56 00", TunnelUnknown),
    ];
    for (name, protocol, port, shim, reason) in cases {
        let mut switch = switch(tunnel(protocol));
        send(&mut switch, GUEST, &[&inner()], 0);
        assert_eq!(ports_of(&mut switch, UPLINK, &wrapped(port, shim, &from_peer()), 1), [0_u16; 0], "{name}");
        assert_eq!(drops(&switch, UPLINK, reason), 1, "{name}");
    }
    let mut switch = switch(tunnel(Vxlan));
    send(&mut switch, GUEST, &[&inner()], 0);
    let cut = wrapped_by_peer("08 00 00 00 12 34 56 00", &[0; 13]);
    assert_eq!(ports_of(&mut switch, UPLINK, &cut, 1), [0_u16; 0]);
    assert_eq!(drops(&switch, UPLINK, DropReason::Malformed), 1, "an inner frame that is none");
    let mut stranger = wrapped_by_peer("08 00 00 00 12 34 56 00", &from_peer());
    stranger[29] = 3;
    assert_eq!(ports_of(&mut switch, UPLINK, &stranger, 1), [0_u16; 0]);
    assert_eq!(drops(&switch, UPLINK, TunnelUnknown), 1, "another host");
}

#[test]
fn an_outer_checksum_is_checked_if_there_is_one() {
    let mut switch = switch(tunnel(TunnelProtocol::Vxlan));
    send(&mut switch, GUEST, &[&inner()], 0);
    let mut build = Build::udp(0, 0, (50_000, 4789), &[&hex("08 00 00 00 12 34 56 00")[..], &from_peer()].concat());
    build.source_mac = MacAddress([6, 0, 0, 0, 0, 2]);
    build.destination_mac = MacAddress([6, 0, 0, 0, 0, 1]);
    build.addresses = ([192, 0, 2, 2], [192, 0, 2, 1]);
    let sum = naive_checksum(&[build.pseudo_header(), build.transport.clone()].concat());
    build.transport[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(ports_of(&mut switch, UPLINK, &build.frame(), 1), [GUEST]);
    build.transport[7] ^= 1;
    assert_eq!(ports_of(&mut switch, UPLINK, &build.frame(), 2), [0_u16; 0]);
    assert_eq!(drops(&switch, UPLINK, DropReason::TunnelChecksum), 1);
}

#[test]
fn tunnels_packets_of_other_hosts_pass_through() {
    let mut switch = switch_of(vec![
        PortConfig::new(Role::Uplink),
        guest(),
        PortConfig { vlan: VlanMode::Access(100), ..PortConfig::new(Role::Tunnel(tunnel(TunnelProtocol::Vxlan))) },
    ]);
    send(&mut switch, GUEST, &[&inner()], 0);
    let mut outer = wrapped_by_peer("08 00 00 00 12 34 56 00", &from_peer());
    outer[..6].copy_from_slice(&mac(1).0);
    assert_eq!(ports_of(&mut switch, UPLINK, &outer, 1), [GUEST], "a guest may have tunnels of its own");
}

#[test]
fn frames_do_not_go_from_tunnel_to_tunnel() {
    let mut switch = switch(tunnel(TunnelProtocol::Vxlan));
    let other = Tunnel { remote: [192, 0, 2, 3].into(), ..tunnel(TunnelProtocol::Vxlan) };
    let config = PortConfig { vlan: VlanMode::Access(100), ..PortConfig::new(Role::Tunnel(other)) };
    switch.add_port(PortId(3), config).expect("another peer");
    let broadcast = arp(9, 9, false);
    let outer = wrapped_by_peer("08 00 00 00 12 34 56 00", &broadcast);
    assert_eq!(ports_of(&mut switch, UPLINK, &outer, 1), [GUEST]);
    assert_eq!(ports_of(&mut switch, GUEST, &arp(1, 1, false), 1), [UPLINK, UPLINK], "but from a guest to both");
}

#[test]
fn a_packet_that_does_not_fit_the_underlay_is_answered_with_what_does() {
    // 1,500 less IPv4, UDP, VXLAN and the inner Ethernet header; IPv6 takes 20 more.
    for (tunnel, fits) in [(tunnel(TunnelProtocol::Vxlan), 1450_usize), (ipv6(tunnel(TunnelProtocol::Geneve)), 1430)] {
        let mut switch = switch(tunnel);
        let packet = |length: usize, is_v6: bool| {
            let build = Build::udp(1, 9, (1, 2), &vec![0; length - 28 - 20 * usize::from(is_v6)]);
            if is_v6 { build.v6() } else { build }
        };
        for is_v6 in [false, true] {
            let longest = packet(fits, is_v6).frame();
            assert_eq!(ports_of(&mut switch, GUEST, &longest, 0), [UPLINK]);
            let too_long = packet(fits + 1, is_v6).frame();
            let batch = [&too_long[..]];
            let recorder = send(&mut switch, GUEST, &batch, 0);
            assert!(recorder.sent.is_empty());
            let [(PortId(GUEST), answer)] = &recorder.originated[..] else { panic!("{:?}", recorder.originated) };
            assert_eq!(answer[..12], [mac(1).0, mac(9).0].concat());
            let icmp = if is_v6 { 54 } else { 34 };
            assert_eq!(answer[icmp..icmp + 2], if is_v6 { [2, 0] } else { [3, 4] });
            assert_eq!(usize::from(u16::from_be_bytes([answer[icmp + 6], answer[icmp + 7]])), fits);
            assert_eq!(answer[icmp + 8..], too_long[14..14 + 128], "quotes the packet");
            let mut summed = answer[icmp..].to_vec();
            if is_v6 {
                let mut pseudo = Build::ip(9, 1, 1, summed.clone()).v6().pseudo_header();
                pseudo.extend(summed);
                summed = pseudo;
            } else {
                assert_eq!(naive_checksum(&answer[14..34]), 0);
            }
            assert_eq!(naive_checksum(&summed), 0);
        }
        assert_eq!(drops(&switch, TUNNEL, DropReason::TooLong), 2);
        let mut may_fragment = packet(1500, false);
        may_fragment.flags_and_offset = 0;
        let frame = may_fragment.frame();
        assert!(send(&mut switch, GUEST, &[&frame], 0).originated.is_empty(), "it did not ask to be told");
    }
}

#[test]
fn a_larger_underlay_lets_longer_packets_pass() {
    let mut switch = switch(tunnel(TunnelProtocol::Vxlan));
    let frame = Build::udp(1, 9, (1, 2), &[0; 1472]).frame();
    assert_eq!(ports_of(&mut switch, GUEST, &frame, 0), [0_u16; 0]);
    switch.change_port(PortId(UPLINK), PortConfig { mtu: 1600, ..PortConfig::new(Role::Uplink) }).expect("it exists");
    assert_eq!(ports_of(&mut switch, GUEST, &frame, 1), [UPLINK]);
    switch.remove_port(PortId(UPLINK)).expect("it exists");
    assert_eq!(ports_of(&mut switch, GUEST, &inner(), 2), [0_u16; 0], "without an underlay nothing does");
}

#[test]
fn a_captured_tunnel_shows_inner_frames_both_ways() {
    let mut switch = switch(tunnel(TunnelProtocol::Vxlan));
    let capture = CaptureConfig { snap_length: 100, received: true, sent: true, transport_port: None };
    switch.set_capture(PortId(TUNNEL), Some(capture)).expect("it exists");
    assert_eq!(send(&mut switch, GUEST, &[&inner()], 0).captured[16..], inner());
    let outer = wrapped_by_peer("08 00 00 00 12 34 56 00", &from_peer());
    assert_eq!(send(&mut switch, UPLINK, &[&outer], 0).captured[16..], from_peer());
}
