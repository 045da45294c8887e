//! The station as others find it: ARP, echo, closed ports.

mod common;

use std::net::Ipv4Addr;

use common::*;
use dragonfly_card_services::Source;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{ArpOperation, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, IpProtocol},
};

fn echo(data: &[u8]) -> Vec<u8> {
    let message = Icmpv4Repr::EchoRequest { ident: 77, seq_no: 3, data };
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut Icmpv4Packet::new_unchecked(bytes.as_mut_slice()), &ChecksumCapabilities::default());
    bytes
}

#[test]
fn who_asks_for_the_stations_address_is_told() {
    let mut bench = Bench::new();
    let target = ([0; 6], CARD);
    let request = |from| arp(from, target, ArpOperation::Request);
    for (source, from) in [
        (Source::Net(0), (mac(0), address(0))),
        (Source::Net(2), (mac(2), Ipv4Addr::UNSPECIFIED)),
        (Source::Outside, (ROUTER_MAC, ROUTER)),
    ] {
        let mut broadcast = request(from);
        broadcast[..6].fill(0xff);
        let reply = arp((CARD_MAC, CARD), from, ArpOperation::Reply);
        assert_eq!(bench.receive(source, &broadcast), [reply]);
    }
}

#[test]
fn nothing_else_of_arp_is_answered() {
    let mut bench = Bench::new();
    let own = (mac(0), address(0));
    let right = arp(own, (CARD_MAC, CARD), ArpOperation::Request);
    let mut token_ring = right.clone();
    token_ring[15] = 6;
    let cases = [
        ("a request for another", Source::Net(0), arp(own, (BROADCAST, address(1)), ArpOperation::Request)),
        ("an announcement", Source::Net(0), arp(own, (BROADCAST, address(0)), ArpOperation::Request)),
        ("a reply", Source::Net(0), arp(own, (CARD_MAC, CARD), ArpOperation::Reply)),
        ("another's Ethernet address", Source::Net(1), right.clone()),
        ("another hardware", Source::Net(0), token_ring),
        ("half a packet", Source::Net(0), right[..40].to_vec()),
        ("a frame for another station", Source::Net(0), [&mac(1)[..], &right[6..]].concat()),
        ("no header", Source::Net(0), right[..13].to_vec()),
    ];
    for (case, source, frame) in cases {
        assert!(bench.receive(source, &frame).is_empty(), "{case}");
    }
    assert_eq!(bench.receive(Source::Net(0), &right).len(), 1);
}

#[test]
fn echo_comes_back_with_all_its_data() {
    let mut bench = Bench::new();
    for data in [&b""[..], b"odd", &[7; 1472]] {
        let frame = ipv4((mac(1), address(1)), (CARD_MAC, CARD), IpProtocol::Icmp, &echo(data));
        let (to_mac, header, payload) = read_ipv4(&bench.ask(1, &frame));
        assert_eq!((to_mac, header.src_addr, header.dst_addr), (mac(1), CARD, address(1)));
        let packet = Icmpv4Packet::new_checked(payload.as_slice()).unwrap();
        let reply = Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default());
        assert_eq!(reply, Ok(Icmpv4Repr::EchoReply { ident: 77, seq_no: 3, data }));
    }
}

#[test]
fn packets_that_are_damaged_or_for_others_are_not_answered() {
    let mut bench = Bench::new();
    let from = (mac(0), address(0));
    let to = (CARD_MAC, CARD);
    let right = ipv4(from, to, IpProtocol::Icmp, &echo(b"data"));
    let change = |at: usize, bit: u8| {
        let mut frame = right.clone();
        frame[at] ^= bit;
        frame
    };
    let forged = |address: [u8; 4]| ipv4((mac(0), address.into()), to, IpProtocol::Icmp, &echo(b"data"));
    let cases = [
        ("a wrong checksum of the header", change(24, 1)),
        ("a wrong checksum of the message", change(36, 1)),
        ("another version", change(14, 0x20)),
        ("a longer length", change(16, 1)),
        ("a piece", change(20, 0x20)),
        ("another's address", ipv4(from, (CARD_MAC, address(1)), IpProtocol::Icmp, &echo(b"data"))),
        ("everybody's address", ipv4(from, (BROADCAST, Ipv4Addr::BROADCAST), IpProtocol::Icmp, &echo(b"data"))),
        ("nobody as the sender", forged([0; 4])),
        ("everybody as the sender", forged([255; 4])),
        ("a group as the sender", forged([224, 0, 0, 1])),
        ("the station itself as the sender", forged([10, 0, 2, 4])),
        ("another Ethernet type", ethernet(mac(0), CARD_MAC, EthernetProtocol::Ipv6, &right[14..])),
        ("an unknown protocol", ipv4(from, to, IpProtocol::Unknown(132), b"data")),
    ];
    for (case, frame) in cases {
        assert!(bench.receive(Source::Net(0), &frame).is_empty(), "{case}");
    }
    assert_eq!(bench.receive(Source::Net(0), &right).len(), 1);
}

#[test]
fn guests_are_told_that_a_port_is_closed() {
    let mut bench = Bench::new();
    let datagram = udp((mac(0), address(0), 4000), (CARD_MAC, CARD, 123), b"what time is it");
    let segment = ipv4((mac(0), address(0)), (CARD_MAC, CARD), IpProtocol::Tcp, &[0x0f, 0xa0, 0, 53, 0, 0, 0, 1]);
    for frame in [&datagram, &segment] {
        let (_, header, payload) = read_ipv4(&bench.ask(0, frame));
        assert_eq!((header.next_header, &payload[..2]), (IpProtocol::Icmp, &[3, 3][..]));
        assert_eq!(payload[8..], frame[14..42], "the header and the ports are quoted");
        assert!(Icmpv4Packet::new_checked(payload.as_slice()).unwrap().verify_checksum());
    }
    let outside = udp((ROUTER_MAC, ROUTER, 4000), (CARD_MAC, CARD, 123), b"anybody there");
    assert!(bench.receive(Source::Outside, &outside).is_empty());
}
