//! What the switch reads from frames, kind by kind, and what it refuses.

mod common;

use std::net::Ipv6Addr;

use common::*;
use dragonfly_vswitch::packet::{HEAD, Packet, ParseError, ethertype};

fn parse(frame: &[u8]) -> Result<Packet, ParseError> {
    Packet::parse(&frame[..frame.len().min(HEAD)], frame.len())
}

/// A chain of extension headers before UDP from port 1 to 2.
fn extended(first: u8, chain: &[&[u8]]) -> Vec<u8> {
    let mut build = Build::udp(1, 2, (1, 2), b"data").v6();
    build.transport = [&chain.concat()[..], &build.transport].concat();
    build.protocol = first;
    build.frame()
}

#[test]
fn every_kind_of_frame_gives_its_key() {
    let udp = Build::udp(1, 2, (1, 2), b"data");
    let mut options = udp.frame();
    // Two words of options between header and UDP.
    (options[14], options[17]) = (0x47, options[17] + 8);
    options.splice(34..34, [1; 8]);
    let lengthened = [udp.frame(), vec![0; 18]].concat();
    let hop_by_hop = [17, 0, 1, 4, 0, 0, 0, 0];
    let to_fragment = [44, 0, 1, 4, 0, 0, 0, 0];
    let authentication = [&[17, 4][..], &[0; 22]].concat();
    // Frame, EtherType, VLAN, protocol, ports, where the transport header begins.
    let cases = [
        ("UDP", udp.frame(), (0x800, None, 17, (1, 2), 34)),
        ("padded", lengthened, (0x800, None, 17, (1, 2), 34)),
        ("options", options, (0x800, None, 17, (1, 2), 42)),
        ("a tag", udp.clone().tag(5).frame(), (0x800, Some(5), 17, (1, 2), 38)),
        ("two tags", udp.clone().tag(5).tag(6).frame(), (0x800, Some(5), 17, (1, 2), 42)),
        ("IPv6", udp.clone().v6().frame(), (0x86dd, None, 17, (1, 2), 54)),
        ("TCP", Build::tcp(1, 2, (3, 4), Tcp::default(), b"").frame(), (0x800, None, 6, (3, 4), 34)),
        ("echo", Build::icmp(1, 2, 8, 0, &[0, 7, 0, 1]).frame(), (0x800, None, 1, (0x800, 7), 34)),
        ("error", Build::icmp(1, 2, 3, 4, &[0, 7, 0, 1]).frame(), (0x800, None, 1, (0x304, 0), 34)),
        ("ICMPv6 echo", Build::icmp(1, 2, 129, 0, &[0, 7, 0, 1]).v6().frame(), (0x86dd, None, 58, (0x8100, 7), 54)),
        ("another protocol", Build::ip(1, 2, 50, vec![9; 3]).frame(), (0x800, None, 50, (0, 0), 34)),
        ("hop-by-hop options", extended(0, &[&hop_by_hop]), (0x86dd, None, 17, (1, 2), 62)),
        ("authentication", extended(51, &[&authentication]), (0x86dd, None, 17, (1, 2), 78)),
        ("a whole fragment", extended(0, &[&to_fragment, &[17, 0, 0, 0, 0, 0, 0, 9]]), (0x86dd, None, 17, (1, 2), 70)),
        ("ARP", arp(1, 1, true), (ethertype::ARP, None, 0, (0, 0), 14)),
    ];
    for (name, frame, expected) in cases {
        let packet = parse(&frame).expect(name);
        let key = packet.key;
        let ports = (key.source_port(), key.destination_port());
        assert_eq!((key.ethertype(), key.outer_vlan(), key.protocol(), ports, packet.transport), expected, "{name}");
        assert_eq!(packet.fragment, None, "{name}");
        assert_eq!(key.source_mac(), mac(1), "{name}");
    }
    let addresses = |frame: &[u8]| parse(frame).map(|packet| (packet.key.source(), packet.key.destination()));
    assert_eq!(addresses(&udp.frame()), Ok((0x0a00_0001, 0x0a00_0002)));
    let long = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).to_bits();
    assert_eq!(addresses(&udp.v6().frame()), Ok((long(1), long(2))));
}

#[test]
fn fragments_tell_their_datagram_and_whether_they_are_first() {
    let udp = Build::udp(1, 2, (1, 2), &[0; 16]);
    let fragment = |offset: u8, more: u8| extended(44, &[&[17, 0, 0, offset | more, 0, 0, 0, 9]]);
    let cases = [
        ("first", udp.clone().fragment(9, 0, true).frame(), true, (1, 2)),
        ("middle", udp.clone().fragment(9, 16, true).frame(), false, (0, 0)),
        ("last", udp.fragment(9, 16, false).frame(), false, (0, 0)),
        ("IPv6 first", fragment(0, 1), true, (1, 2)),
        ("IPv6 last", fragment(16, 0), false, (0, 0)),
    ];
    for (name, frame, is_first, ports) in cases {
        let packet = parse(&frame).expect(name);
        assert_eq!(packet.fragment.map(|part| (part.identification, part.is_first)), Some((9, is_first)), "{name}");
        assert_eq!((packet.key.source_port(), packet.key.destination_port()), ports, "{name}");
    }
}

#[test]
fn frames_that_contradict_themselves_are_refused() {
    use ParseError::{Inconsistent, TooManyHeaders, Truncated};
    let udp = || Build::udp(1, 2, (1, 2), b"data").frame();
    let tcp = || Build::tcp(1, 2, (1, 2), Tcp::default(), b"").frame();
    let with = |mut frame: Vec<u8>, at: usize, value: u8| {
        frame[at] = value;
        frame
    };
    let options = [0, 0, 1, 4, 0, 0, 0, 0];
    let cases = [
        ("Ethernet cut off", udp()[..13].to_vec(), Truncated),
        ("IPv4 cut off", udp()[..33].to_vec(), Truncated),
        ("UDP cut off", with(udp()[..41].to_vec(), 17, 27), Truncated),
        ("shorter than its length", udp()[..45].to_vec(), Truncated),
        ("tag cut off", Build::udp(1, 2, (1, 2), b"").tag(5).frame()[..17].to_vec(), Truncated),
        ("version 5", with(udp(), 14, 0x55), Inconsistent),
        ("header of four words", with(udp(), 14, 0x44), Inconsistent),
        ("total length below the header's", with(udp(), 17, 19), Inconsistent),
        ("UDP length 7", with(udp(), 39, 7), Inconsistent),
        ("UDP length beyond the packet", with(udp(), 39, 13), Truncated),
        ("TCP header of four words", with(tcp(), 46, 0x40), Inconsistent),
        ("TCP header beyond the packet", with(tcp(), 46, 0x60), Truncated),
        ("TCP in a packet too short", with(tcp(), 17, 39), Truncated),
        ("ICMP cut off", Build::icmp(1, 2, 8, 0, &[0; 3]).frame(), Truncated),
        ("a fragment over TCP's flags", Build::ip(1, 2, 6, vec![0; 32]).fragment(9, 8, false).frame(), Inconsistent),
        ("three tags", Build::udp(1, 2, (1, 2), b"").tag(1).tag(2).tag(3).frame(), TooManyHeaders),
        ("IPv6 of version 4", with(Build::udp(1, 2, (1, 2), b"").v6().frame(), 14, 0x45), Inconsistent),
        ("IPv6 shorter than its length", with(Build::udp(1, 2, (1, 2), b"").v6().frame(), 19, 9), Truncated),
        ("nine extension headers", extended(0, &[&options[..]; 9]), TooManyHeaders),
        ("options beyond the packet", extended(0, &[&[17, 200, 1, 4, 0, 0, 0, 0]]), Truncated),
    ];
    for (name, frame, error) in cases {
        assert_eq!(parse(&frame), Err(error), "{name}");
    }
}

#[test]
fn every_frame_that_is_cut_off_is_refused_or_read_alike() {
    let frames = [
        Build::tcp(1, 2, (1, 2), Tcp::default(), b"data").frame(),
        Build::udp(1, 2, (1, 2), b"data").v6().tag(7).frame(),
        Build::icmp(1, 2, 8, 0, &[0; 8]).frame(),
    ];
    for frame in frames {
        let whole = parse(&frame);
        for length in 0..frame.len() {
            // The head is shorter than what was sent, as if the rest had not been looked at.
            let of_head = Packet::parse(&frame[..length], frame.len());
            assert!(of_head == whole || of_head == Err(ParseError::Truncated), "{length}: {of_head:?}");
            assert!(parse(&frame[..length]).is_err(), "{length}");
        }
    }
}
