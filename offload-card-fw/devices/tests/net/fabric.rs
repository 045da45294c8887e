//! Ports where there is no guest.

use std::slice;

use dragonfly_card_devices::{
    Control, Fabric, PortError, Unfinished,
    tables::{Tunnel, Underlay},
};
use dragonfly_vswitch::{MacAddress, tunnel::TunnelProtocol, vlan::VlanMode};

use crate::{
    packets::{KINDS, Kind, Place},
    station::*,
};

const SERVICE: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 0xff]);
const OUTSIDER: MacAddress = MacAddress([0x52, 0x54, 0, 0, 1, 1]);

const UDP: Kind = KINDS[2];

/// A frame between two stations, of no known protocol but ARP's number.
fn frame(to: [u8; 6], from: MacAddress, filling: u8) -> Vec<u8> {
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &from.0, &[10, 0, 2, filling], &to, &[10, 0, 2, 1]].concat();
    [&to[..], &from.0, &[8, 6], &arp, &[0; 18]].concat()
}

/// A broadcast datagram to these ports.
fn broadcast(from: MacAddress, source: u16, destination: u16) -> Vec<u8> {
    let mut frame = UDP.frame(Place::default(), b"DHCP or not");
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&from.0);
    frame[34..36].copy_from_slice(&source.to_be_bytes());
    frame[36..38].copy_from_slice(&destination.to_be_bytes());
    // No checksum.
    frame[40..42].fill(0);
    frame
}

fn all(fabric: &mut Fabric, port: dragonfly_vswitch::PortId) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| fabric.take(port)).collect()
}

#[test]
fn frames_go_out_by_the_uplink_and_come_in_by_it() {
    let (mut fabric, nets) = two_nets();
    let uplink = fabric.add_uplink().unwrap();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, 0);
    let question = frame([0xff; 6], MACS[0], 1);
    one.send(&mut fabric, PLAIN, &question);
    assert_eq!(all(&mut fabric, uplink), slice::from_ref(&question));
    assert_eq!(two.receive(&mut fabric), [question]);
    let mut answer = fabric.buffer();
    assert!(answer.is_empty());
    answer.extend_from_slice(&frame(MACS[0].0, OUTSIDER, 2));
    let mut frames = vec![answer.clone()];
    fabric.inject(uplink, &mut frames, 0);
    assert_eq!(frames, [[0; 0]; 0]);
    assert_eq!(one.receive(&mut fabric), [answer]);
    assert_eq!(two.receive(&mut fabric), [[0; 0]; 0]);
}

#[test]
fn a_tables_limit_holds_for_what_comes_from_outside_too() {
    const PERIOD_NS: u64 = 500_000;
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\npackets_per_second = 500\npackets_burst = 5\n");
    let uplink = fabric.add_uplink().unwrap();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let frame = frame(MACS[0].0, OUTSIDER, 2);
    let come = (0..4000).map(|number| {
        fabric.inject(uplink, &mut vec![frame.clone()], number * PERIOD_NS);
        one.receive(&mut fabric).len()
    });
    let come: usize = come.sum();
    assert!(come.abs_diff(1000) <= 20, "{come} in 2 s");
}

#[test]
fn the_cards_services_are_a_station_as_others_are() {
    let (mut fabric, nets) = two_nets();
    let service = fabric.add_service(SERVICE).unwrap();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, 0);
    let question = frame(SERVICE.0, MACS[0], 1);
    one.send(&mut fabric, PLAIN, &question);
    assert_eq!(all(&mut fabric, service), [question]);
    let answer = frame(MACS[0].0, SERVICE, 2);
    fabric.inject(service, &mut vec![answer.clone()], 0);
    assert_eq!(one.receive(&mut fabric), [answer]);
    assert_eq!(two.receive(&mut fabric), [[0; 0]; 0]);
}

#[test]
fn dhcp_stays_within_the_card() {
    let (mut fabric, nets) = two_nets();
    let uplink = fabric.add_uplink().unwrap();
    let service = fabric.add_service(SERVICE).unwrap();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let others = broadcast(MACS[0], 1068, 1067);
    for sent in [broadcast(MACS[0], 68, 67), others.clone()] {
        one.send(&mut fabric, PLAIN, &sent);
        assert_eq!(all(&mut fabric, service), [sent]);
    }
    assert_eq!(all(&mut fabric, uplink), [others]);
    let others = broadcast(OUTSIDER, 1067, 1068);
    fabric.inject(uplink, &mut vec![broadcast(OUTSIDER, 67, 68), others.clone()], 0);
    assert_eq!(one.receive(&mut fabric), slice::from_ref(&others));
    assert_eq!(all(&mut fabric, service), [others]);
}

#[test]
fn machines_have_security_groups_of_their_own() {
    let rule = |port| {
        format!("[[rule]]\ngroup = 'g'\ndirection = 'in'\naction = 'allow'\nprotocol = 'udp'\nports = '{port}'\n")
    };
    let mut fabric = Fabric::new(1);
    let mut machine = |port: u16, mac: MacAddress| {
        let devices = devices(&format!("{}[[net]]\nname = 'n'\ngroups = ['g']\nmac = '{mac}'\n", rule(port)));
        let ports = fabric.add_machine(&devices).unwrap();
        (devices.nets[0].clone(), ports[0])
    };
    let nets = [machine(1000, MACS[0]), machine(2000, MACS[1])];
    let uplink = fabric.add_uplink().unwrap();
    let mut stations = nets.map(|net| Station::new(&mut fabric, &net, Control::Card, 0));
    let frames = [1000, 2000].map(|port| broadcast(OUTSIDER, 9, port));
    fabric.inject(uplink, &mut frames.to_vec(), 0);
    for (station, frame) in stations.iter_mut().zip(frames) {
        assert_eq!(station.receive(&mut fabric), [frame]);
    }
}

#[test]
fn an_address_that_another_port_has_is_refused() {
    let (mut fabric, _) = two_nets();
    let error = fabric.add_service(MACS[1]).unwrap_err();
    assert!(matches!(error, PortError::Refused { .. }), "{error}");
}

#[test]
fn what_nobody_takes_is_bounded() {
    let (mut fabric, nets) = two_nets();
    let uplink = fabric.add_uplink().unwrap();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, SENDS_ALL);
    for _ in 0..600 {
        one.send(&mut fabric, PLAIN, &frame([0xff; 6], MACS[0], 1));
    }
    assert_eq!(all(&mut fabric, uplink).len(), 512);
    // Frames that are not cut take more memory.
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, TAKES_ALL | MRG_RXBUF);
    for _ in 0..600 {
        one.send(&mut fabric, KINDS[0].cut(1400), &KINDS[0].partial(Place::default(), &[1; 40_000]));
    }
    let waiting = two.receive_by(&mut fabric, 0, 4096).len();
    assert!((10..=16).contains(&waiting), "{waiting} frames of 64 KiB");
}

#[test]
fn a_flow_keeps_to_one_queue_and_flows_to_all() {
    let text = "[[net]]\nname = 'one'\n[[net]]\nname = 'two'\nqueues = 4\n";
    let (mut fabric, nets) = nets(text);
    let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, MQ | CTRL_VQ);
    let mut used = [0; 4];
    for port in 0..64 {
        let mut datagram = broadcast(MACS[0], port, 99);
        datagram[..6].copy_from_slice(&MACS[1].0);
        for _ in 0..3 {
            one.send(&mut fabric, PLAIN, &datagram);
        }
        let counts = [0, 2, 4, 6].map(|queue| two.receive_by(&mut fabric, queue, 1600).len());
        assert!(counts.contains(&3) && counts.iter().sum::<usize>() == 3, "{counts:?}");
        used.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
    }
    assert!(used.iter().all(|count| *count > 10), "{used:?}");
}

#[test]
fn a_tunnel_carries_nothing_until_it_is_known_who_takes_its_packets() {
    const TUNNEL_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0, 2, 2]);
    let (mut fabric, nets) = two_nets();
    // The guests' VLAN goes through the tunnel, not out by itself.
    let uplink = fabric.add_uplink_in(VlanMode::Access(9), 1500).unwrap();
    let table = Tunnel {
        name: "t".into(),
        protocol: TunnelProtocol::Vxlan,
        network: 42,
        remote: [192, 0, 2, 1].into(),
        vlan: 0,
        has_checksum: false,
    };
    let own = Underlay { mac: TUNNEL_MAC, address: [192, 0, 2, 2].into(), prefix: 24, gateway: None };
    let tunnel = fabric.add_tunnel(&table, &own, uplink).unwrap();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let question = frame([0xff; 6], MACS[0], 1);
    one.send(&mut fabric, PLAIN, &question);
    assert_eq!(all(&mut fabric, uplink), [[0; 0]; 0]);
    fabric.set_next_hop(tunnel, OUTSIDER);
    one.send(&mut fabric, PLAIN, &question);
    let outer = all(&mut fabric, uplink);
    let [outer] = outer.as_slice() else { panic!("{outer:?}") };
    assert_eq!((&outer[..6], &outer[6..12]), (&OUTSIDER.0[..], &TUNNEL_MAC.0[..]));
    assert_eq!(outer[50..], question);
}

#[test]
fn what_is_left_to_do_about_a_frame_goes_along_with_it() {
    let (mut fabric, nets) = two_nets();
    let uplink = fabric.add_uplink().unwrap();
    fabric.leave_unfinished(uplink);
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let bytes = frame(MACS[0].0, OUTSIDER, 2);
    // No header claims this kind of segments.
    let nonsense = Unfinished { header: [0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], bytes: bytes.clone() };
    let plain = Unfinished { header: [0; 12], bytes: bytes.clone() };
    let mut frames = vec![nonsense, plain];
    fabric.inject_unfinished(uplink, &mut frames, 0);
    assert_eq!((frames.len(), one.receive(&mut fabric)), (0, vec![bytes]));
    let answer = frame(OUTSIDER.0, MACS[0], 1);
    one.send(&mut fabric, PLAIN, &answer);
    assert_eq!(fabric.take_unfinished(uplink), Some(Unfinished { header: [0; 12], bytes: answer }));
}
