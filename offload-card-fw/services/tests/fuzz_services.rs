//! Throws damaged frames at the services for `DRAGONFLY_FUZZ_SECONDS` (2 if unset): they must not panic, send little for
//! each frame, only whole frames, and never to somebody else than who asked.

mod common;

use std::time::Instant;

use common::*;
use dragonfly_card_services::{QUERIES_PER_NET, Source, is_dhcp};
use dragonfly_random::{Random, fuzz_end};
use smoltcp::wire::{ArpOperation, Icmpv4Packet, IpProtocol, Ipv4Packet, UdpPacket};

fn seeds() -> Vec<(Source, Vec<u8>)> {
    let (own, card) = ((mac(0), address(0)), (CARD_MAC, CARD));
    let client = |kind, claimed, options: Options<'_>| {
        DhcpMessage { kind, mac: mac(0), is_broadcast: false, claimed, options, pad: 0 }.frame()
    };
    let mut guests = vec![
        arp(own, card, ArpOperation::Request),
        ipv4(own, card, IpProtocol::Icmp, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
        ipv4(own, card, IpProtocol::Tcp, &[1; 20]),
        udp((mac(0), address(0), 9), (CARD_MAC, CARD, 9), b"nobody"),
        client(1, [0; 4].into(), &[(61, &[1; 19]), (12, b"name"), (55, &[1, 3, 6])]),
        client(3, address(0), &[]),
    ];
    let names = [("web", 1), ("db.dragonfly", 255), ("15.2.0.10.in-addr.arpa", 12), ("a.b.c.example", 28)];
    guests.extend(names.map(|(name, kind)| query_frame(0, 1000, &query(5, name, kind))));
    let mut answer = query(5, "a.b.c.example", 28);
    answer[2] |= 0x80;
    let outside = [
        arp((RESOLVER_MAC, RESOLVER), card, ArpOperation::Reply),
        udp((RESOLVER_MAC, RESOLVER, 53), (CARD_MAC, CARD, 0xc000), &answer),
    ];
    let guests = guests.into_iter().map(|frame| (Source::Net(0), frame));
    guests.chain(outside.into_iter().map(|frame| (Source::Outside, frame))).collect()
}

/// Changes some bytes, most of the time in the message and not in the headers, whose checksums hold off the rest.
fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        let from = if random.once_in(4) { 0 } else { 42 };
        let at = from + random.index(frame.len().saturating_sub(from));
        match random.below(5) {
            0 => frame.truncate(at),
            1 if at < frame.len() => frame.insert(at, random.number() as u8),
            2 => frame.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.below(70) as u8),
            3 => frame.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            _ => frame.iter_mut().skip(at).take(2).for_each(|byte| *byte = random.number() as u8),
        }
    }
    frame.truncate(1514);
}

/// Makes lengths and checksums right again: a sender of nonsense can do so as well.
fn repair(frame: &mut [u8]) {
    let Some(packet) = frame.get_mut(14..).filter(|packet| packet.len() >= 28 && packet[0] == 0x45) else { return };
    let length = packet.len() as u16;
    let mut packet = Ipv4Packet::new_unchecked(packet);
    packet.set_total_len(length);
    packet.fill_checksum();
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    if packet.next_header() == IpProtocol::Udp {
        let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
        datagram.set_len(length - 20);
        datagram.fill_checksum(&from.into(), &to.into());
    } else {
        Icmpv4Packet::new_unchecked(packet.payload_mut()).fill_checksum();
    }
}

#[test]
fn damaged_frames_get_little_and_whole_answers() {
    let (end, mut random, seeds, mut bench) = (fuzz_end(), Random::new(0x5eed), seeds(), Bench::new());
    let (mut answers, mut queries) = (0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..100 {
            let (source, mut frame) = seeds[random.index(seeds.len())].clone();
            damage(&mut frame, &mut random);
            if !random.once_in(4) {
                repair(&mut frame);
            }
            let _known = is_dhcp(&frame);
            bench.now_ns += random.below(200_000_000);
            let sent = bench.receive(source, &frame);
            let most = if source == Source::Outside { QUERIES_PER_NET } else { 2 };
            assert!(sent.len() <= most, "{} frames for one", sent.len());
            for answer in sent {
                assert!(answer.len() <= frame.len().max(14 + 1500), "no longer than the network's packets");
                if answer[..6] == mac(0) {
                    answers += 1;
                } else if answer[12..14] == [8, 6] || answer[23] == 1 {
                    assert!(
                        answer[..6] == BROADCAST || source == Source::Outside,
                        "guests are answered where they are"
                    );
                } else {
                    assert_eq!(read_udp(&answer).to, (RESOLVER, 53), "nobody else is asked");
                    queries += 1;
                }
            }
        }
    }
    assert!(answers > 100 && queries > 0, "{answers} answers, {queries} queries: most must come through");
}
