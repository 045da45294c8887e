//! The names of the machines, and queries that are passed on.

mod common;

use std::net::Ipv4Addr;

use common::*;
use dragonfly_card_services::{Config, QUERIES_PER_NET, Source};
use smoltcp::wire::ArpOperation;

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const NS: u16 = 2;
const ANY: u16 = 255;

const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

const SECOND_NS: u64 = 1_000_000_000;

/// An answer: code, whether with authority, records' data, number of authority records.
fn read(question: &[u8], frame: &[u8]) -> (u8, bool, Vec<Vec<u8>>, u16) {
    let message = read_udp(frame).payload;
    let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    assert_eq!(message[..2], question[..2], "the id");
    assert_eq!((message[2] & 0xf9, message[3] & 0x70), (0x81, 0), "a whole answer to a query for recursion");
    assert_eq!((number(4), &message[12..question.len()]), (1, &question[12..]), "the question is repeated");
    let mut at = question.len();
    let mut records = Vec::new();
    for _ in 0..number(6) {
        assert_eq!(message[at..at + 2], [0xc0, 12], "the question's name");
        let end = at + 12 + usize::from(number(at + 10));
        records.push(message[at + 12..end].to_vec());
        at = end;
    }
    if number(8) == 0 {
        assert_eq!(at, message.len());
    }
    (message[3] & 15, message[2] & 4 != 0, records, number(8))
}

fn resolve(bench: &mut Bench, net: usize, message: &[u8]) -> Vec<Vec<u8>> {
    bench.receive(Source::Net(net), &query_frame(net, 40_000, message))
}

fn addresses(list: &[Ipv4Addr]) -> Vec<Vec<u8>> {
    list.iter().map(|address| address.octets().to_vec()).collect()
}

#[test]
fn machines_are_found_by_name_and_by_address() {
    let both = addresses(&[address(1), address(2)]);
    let name = |text: &[u8]| vec![text.to_vec()];
    let cases = [
        ("web", A, NO_ERROR, addresses(&[address(0)]), 0),
        ("web.dragonfly", A, NO_ERROR, addresses(&[address(0)]), 0),
        ("WEB.Dragonfly", A, NO_ERROR, addresses(&[address(0)]), 0),
        ("db", A, NO_ERROR, both.clone(), 0),
        ("db.dragonfly", ANY, NO_ERROR, both, 0),
        ("card", A, NO_ERROR, addresses(&[CARD]), 0),
        ("web", AAAA, NO_ERROR, vec![], 0),
        ("web.dragonfly", AAAA, NO_ERROR, vec![], 1),
        ("web.dragonfly", TXT, NO_ERROR, vec![], 1),
        ("dragonfly", A, NO_ERROR, vec![], 1),
        ("mail.dragonfly", A, NO_SUCH_NAME, vec![], 1),
        ("a.web.dragonfly", A, NO_SUCH_NAME, vec![], 1),
        ("mail", A, NO_SUCH_NAME, vec![], 0),
        ("mail", AAAA, NO_SUCH_NAME, vec![], 0),
        ("15.2.0.10.in-addr.arpa", PTR, NO_ERROR, name(b"\x03web\x09dragonfly\0"), 0),
        ("17.2.0.10.IN-ADDR.ARPA", PTR, NO_ERROR, name(b"\x02db\x09dragonfly\0"), 0),
        ("4.2.0.10.in-addr.arpa", PTR, NO_ERROR, name(b"\x04card\x09dragonfly\0"), 0),
        ("15.2.0.10.in-addr.arpa", A, NO_ERROR, vec![], 0),
        ("99.2.0.10.in-addr.arpa", PTR, NO_SUCH_NAME, vec![], 0),
    ];
    let mut bench = Bench::new();
    for (text, kind, code, records, authorities) in cases {
        let message = query(0x1234, text, kind);
        let sent = resolve(&mut bench, 1, &message);
        assert_eq!(sent.len(), 1, "{text}");
        assert_eq!(read(&message, &sent[0]), (code, true, records, authorities), "{text} type {kind}");
    }
}

#[test]
fn the_record_of_the_zone_says_how_long_a_name_is_known_to_be_absent() {
    let message = query(1, "mail.dragonfly", A);
    let sent = resolve(&mut Bench::new(), 0, &message);
    let domain = b"\x09dragonfly\0";
    let numbers = [1_u32, 3600, 600, 86_400, 60].map(u32::to_be_bytes).concat();
    let data = [&domain[..], domain, &numbers].concat();
    let record = [&domain[..], &[0, 6, 0, 1, 0, 0, 0, 60, 0, data.len() as u8], &data].concat();
    assert_eq!(read_udp(&sent[0]).payload[message.len()..], record);
}

#[test]
fn a_name_with_an_option_for_longer_answers_is_answered_without() {
    // What glibc and systemd-resolved append: EDNS with 1200 bytes (RFC 6891).
    let plain = query(9, "web", A);
    let mut extended = plain.clone();
    extended[11] = 1;
    extended.extend([0, 0, 41, 4, 176, 0, 0, 0, 0, 0, 0]);
    let mut bench = Bench::new();
    assert_eq!(resolve(&mut bench, 1, &extended), resolve(&mut bench, 1, &plain));
}

#[test]
fn what_is_no_right_query_is_told_so_or_ignored() {
    let right = query(7, "web", A);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = right.clone();
        change(&mut message);
        message
    };
    let cases = [
        ("an answer", with(&|message| message[2] |= 0x80), None),
        ("half a header", with(&|message| message.truncate(11)), None),
        ("an update", with(&|message| message[2] |= 5 << 3), Some(NOT_IMPLEMENTED)),
        ("no question", with(&|message| message[5] = 0), Some(FORMAT_ERROR)),
        ("two questions", with(&|message| message[5] = 2), Some(FORMAT_ERROR)),
        ("a cut question", with(&|message| message.truncate(18)), Some(FORMAT_ERROR)),
        ("another class", with(&|message| message[20] = 3), Some(FORMAT_ERROR)),
        (
            "a name that points to itself",
            with(&|message| message[12..14].copy_from_slice(&[0xc0, 12])),
            Some(FORMAT_ERROR),
        ),
        ("a label of an unknown kind", with(&|message| message[12] = 0x43), Some(FORMAT_ERROR)),
        ("a name that is too long", query(7, &["abcdefg"; 32].join("."), A), Some(FORMAT_ERROR)),
    ];
    let mut bench = Bench::with(Config { resolver: None, ..config() });
    for (case, message, expected) in cases {
        let sent = resolve(&mut bench, 0, &message);
        let codes: Vec<_> = sent.iter().map(|frame| read_udp(frame).payload[3] & 15).collect();
        assert_eq!(codes, Vec::from_iter(expected), "{case}");
    }
}

#[test]
fn without_a_resolver_other_names_are_refused() {
    let mut bench = Bench::with(Config { resolver: None, ..config() });
    let message = query(1, "debian.org", A);
    let sent = resolve(&mut bench, 0, &message);
    assert_eq!(read(&message, &sent[0]), (REFUSED, false, vec![], 0));
}

#[test]
fn nobody_outside_is_answered() {
    let frame = udp((ROUTER_MAC, ROUTER, 4000), (CARD_MAC, CARD, 53), &query(1, "web", A));
    assert!(Bench::new().receive(Source::Outside, &frame).is_empty());
}

/// A bench that knows where the resolver is.
fn acquainted() -> Bench {
    let mut bench = Bench::new();
    let sent = resolve(&mut bench, 2, &query(1, "first.example", A));
    assert_eq!(sent, [arp((CARD_MAC, CARD), (BROADCAST, RESOLVER), ArpOperation::Request)].map(unasked));
    assert_eq!(bench.receive(Source::Outside, &is_at(RESOLVER_MAC, RESOLVER)).len(), 1, "what waited is sent");
    bench
}

/// In a request the address that is asked for is all zeros.
fn unasked(mut request: Vec<u8>) -> Vec<u8> {
    request[32..38].fill(0);
    request
}

fn is_at(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    arp((mac, address), (CARD_MAC, CARD), ArpOperation::Reply)
}

/// The resolver's answer to a query that went out: the query with the bit of answers and one record.
fn answer_to(sent: &[u8]) -> Vec<u8> {
    let mut message = read_udp(sent).payload;
    message[2] |= 0x80;
    message[7] = 1;
    message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
    message
}

fn from_resolver(sent: &[u8], message: &[u8]) -> Vec<u8> {
    udp((RESOLVER_MAC, RESOLVER, 53), (CARD_MAC, CARD, read_udp(sent).from.1), message)
}

#[test]
fn other_names_are_asked_of_the_resolver_under_an_id_of_the_cards() {
    let mut bench = acquainted();
    let message = query(0xbeef, "debian.org", AAAA);
    let sent = resolve(&mut bench, 1, &message);
    let out = read_udp(&sent[0]);
    assert_eq!((sent.len(), out.to_mac, out.to), (1, RESOLVER_MAC, (RESOLVER, 53)));
    assert_eq!((out.from.0, out.payload[2..].to_vec()), (CARD, message[2..].to_vec()));
    assert!(out.payload[..2] != message[..2] && out.from.1 >= 0xc000);
    let back = bench.receive(Source::Outside, &from_resolver(&sent[0], &answer_to(&sent[0])));
    let back = read_udp(&back[0]);
    assert_eq!((back.to_mac, back.from, back.to), (mac(1), (CARD, 53), (address(1), 40_000)));
    assert_eq!((&back.payload[..2], &back.payload[2..]), (&message[..2], &answer_to(&sent[0])[2..]));
}

#[test]
fn names_of_the_worlds_top_are_asked_of_the_resolver() {
    for (text, kind) in
        [("", NS), ("org", NS), ("1.0.0.127.in-addr.arpa", PTR), ("dragonfly.org", A), ("x.example", ANY)]
    {
        let sent = resolve(&mut acquainted(), 0, &query(1, text, kind));
        assert_eq!(read_udp(&sent[0]).to, (RESOLVER, 53), "{text}");
    }
}

#[test]
fn only_the_resolvers_answer_to_this_query_is_passed_on_and_only_once() {
    let mut bench = acquainted();
    let sent = resolve(&mut bench, 1, &query(1, "debian.org", A));
    let (port, answer) = (read_udp(&sent[0]).from.1, answer_to(&sent[0]));
    let outside = |address, from_port, to_port, message: &[u8]| {
        udp((RESOLVER_MAC, address, from_port), (CARD_MAC, CARD, to_port), message)
    };
    let with = |at: usize, bit: u8| {
        let mut message = answer.clone();
        message[at] ^= bit;
        outside(RESOLVER, 53, port, &message)
    };
    let right = outside(RESOLVER, 53, port, &answer);
    let of_a_guest = [&CARD_MAC[..], &mac(0), &right[12..]].concat();
    let cases = [
        ("of another address", Source::Outside, outside(ROUTER, 53, port, &answer)),
        ("of another port", Source::Outside, outside(RESOLVER, 54, port, &answer)),
        ("to another port", Source::Outside, outside(RESOLVER, 53, port ^ 1, &answer)),
        ("with another id", Source::Outside, with(1, 1)),
        ("that is a query", Source::Outside, with(2, 0x80)),
        ("to another question", Source::Outside, with(13, 1)),
        ("of another type", Source::Outside, with(24, 1)),
        ("to two questions", Source::Outside, with(5, 3)),
        ("cut in the header", Source::Outside, outside(RESOLVER, 53, port, &answer[..11])),
    ];
    for (case, source, frame) in cases {
        assert!(bench.receive(source, &frame).is_empty(), "an answer {case}");
    }
    let refusal = bench.receive(Source::Net(0), &of_a_guest);
    assert!(refusal.iter().all(|frame| frame[..6] == mac(0)), "a guest cannot answer another's query");
    assert_eq!(bench.receive(Source::Outside, &right).len(), 1);
    assert!(bench.receive(Source::Outside, &right).is_empty(), "an answer a second time");
}

#[test]
fn an_answer_that_comes_too_late_is_dropped() {
    let mut bench = acquainted();
    let sent = resolve(&mut bench, 1, &query(1, "debian.org", A));
    bench.now_ns += 5 * SECOND_NS;
    assert!(bench.receive(Source::Outside, &from_resolver(&sent[0], &answer_to(&sent[0]))).is_empty());
}

#[test]
fn a_guest_that_asks_too_much_takes_no_place_from_others_and_gets_its_own_back() {
    let mut bench = acquainted();
    for number in 0..QUERIES_PER_NET {
        assert_eq!(resolve(&mut bench, 0, &query(number as u16, "a.example", A)).len(), 1);
    }
    let message = query(1, "b.example", A);
    let refused = resolve(&mut bench, 0, &message);
    assert_eq!(read(&message, &refused[0]), (SERVER_FAILURE, false, vec![], 0));
    assert_eq!(read_udp(&resolve(&mut bench, 1, &message)[0]).to, (RESOLVER, 53), "another guest");
    bench.now_ns += 5 * SECOND_NS;
    assert_eq!(read_udp(&resolve(&mut bench, 0, &message)[0]).to, (RESOLVER, 53), "after the time-out");
}

#[test]
fn a_query_that_no_server_takes_is_not_passed_on() {
    let mut message = query(1, "debian.org", A);
    let question = message.clone();
    message.resize(513, 0);
    let sent = resolve(&mut acquainted(), 0, &message);
    assert_eq!(read(&question, &sent[0]).0, SERVER_FAILURE);
}

#[test]
fn only_the_outside_says_where_the_resolver_is_and_only_when_asked() {
    let mut bench = Bench::new();
    let unasked = bench.receive(Source::Outside, &is_at([2; 6], RESOLVER));
    assert!(unasked.is_empty());
    assert_eq!(resolve(&mut bench, 0, &query(1, "a.example", A)).len(), 1, "asks where the resolver is");
    assert!(resolve(&mut bench, 0, &query(2, "b.example", A)).is_empty(), "not for each query");
    assert!(bench.receive(Source::Net(1), &is_at(mac(1), RESOLVER)).is_empty(), "a guest");
    assert!(bench.receive(Source::Outside, &is_at(ROUTER_MAC, ROUTER)).is_empty(), "another station");
    let sent = bench.receive(Source::Outside, &is_at(RESOLVER_MAC, RESOLVER));
    assert_eq!(sent.iter().map(|frame| read_udp(frame).to_mac).collect::<Vec<_>>(), [RESOLVER_MAC; 2]);
}

#[test]
fn the_resolvers_place_is_asked_again_while_queries_go_to_the_old_one() {
    let mut bench = acquainted();
    bench.now_ns += 61 * SECOND_NS;
    let sent = resolve(&mut bench, 0, &query(1, "a.example", A));
    assert_eq!((sent.len(), read_udp(&sent[1]).to_mac), (2, RESOLVER_MAC), "the question where it is, and the query");
    bench.receive(Source::Outside, &is_at([2; 6], RESOLVER));
    assert_eq!(read_udp(&resolve(&mut bench, 0, &query(2, "b.example", A))[0]).to_mac, [2; 6]);
}

#[test]
fn a_resolver_of_another_network_is_reached_through_the_router() {
    let resolver = Ipv4Addr::new(9, 9, 9, 9);
    let mut bench = Bench::with(Config { resolver: Some(resolver), ..config() });
    let sent = resolve(&mut bench, 0, &query(1, "a.example", A));
    assert_eq!(sent, [arp((CARD_MAC, CARD), (BROADCAST, ROUTER), ArpOperation::Request)].map(unasked));
    let sent = bench.receive(Source::Outside, &is_at(ROUTER_MAC, ROUTER));
    assert_eq!((read_udp(&sent[0]).to_mac, read_udp(&sent[0]).to), (ROUTER_MAC, (resolver, 53)));
}
