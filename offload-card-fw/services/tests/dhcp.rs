//! Clients of DHCP as they are, and what each of their messages gets.

mod common;

use std::{collections::BTreeMap, net::Ipv4Addr};

use common::*;
use dragonfly_card_services::{Config, Source, is_dhcp};

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// How a client's messages look.
struct Client {
    name: &'static str,
    is_broadcast: bool,
    options: Options<'static>,
    pad: usize,
}

/// Taken from what the programs send: busybox, ISC, systemd, iPXE, and BOOTP's heirs that ask for broadcasts.
const CLIENTS: [Client; 5] = [
    Client {
        name: "udhcpc",
        is_broadcast: false,
        options: &[
            (61, &[1, 0x52, 0x54, 0, 0xdf, 1, 0]),
            (57, &[2, 64]),
            (55, &[1, 3, 6, 12, 15, 28, 42]),
            (60, b"udhcp 1.35.0"),
        ],
        pad: 548,
    },
    Client {
        name: "dhclient",
        is_broadcast: false,
        options: &[(12, b"debian"), (55, &[1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42])],
        pad: 300,
    },
    Client {
        name: "systemd-networkd",
        is_broadcast: false,
        options: &[
            (61, &[255, 0xb6, 0x22, 0xf, 0xeb, 0, 2, 0, 0, 0xab, 0x11, 1, 2, 3, 4, 5, 6, 7, 8]),
            (80, &[]),
            (55, &[1, 3, 6, 12, 15, 26, 33, 42, 119, 120, 121]),
            (57, &[5, 192]),
        ],
        pad: 0,
    },
    Client {
        name: "iPXE",
        is_broadcast: false,
        options: &[
            (57, &[5, 192]),
            (93, &[0, 0]),
            (94, &[1, 2, 1]),
            (60, b"PXEClient:Arch:00000:UNDI:002001"),
            (77, b"iPXE"),
            (0, &[]),
            (175, &[177, 5, 1, 26, 244, 16, 0, 255]),
        ],
        pad: 0,
    },
    Client { name: "a client that takes broadcasts only", is_broadcast: true, options: &[], pad: 0 },
];

fn message(net: usize, kind: u8, claimed: Ipv4Addr, options: Options<'_>) -> Vec<u8> {
    DhcpMessage { kind, mac: mac(net), is_broadcast: false, claimed, options, pad: 300 }.frame()
}

/// A reply's kind, the address it gives, and its options.
fn read(datagram: &Datagram) -> (u8, Ipv4Addr, BTreeMap<u8, Vec<u8>>) {
    let message = &datagram.payload;
    assert_eq!(message[..8], [2, 1, 6, 0, 0xaa, 0xbb, 0xcc, 0xdd], "a reply to this client's transaction");
    assert_eq!((message[28..34].to_vec(), &message[236..240]), (datagram.to_mac.to_vec(), &[99, 130, 83, 99][..]));
    assert!(message.len() >= 300, "the shortest that old clients take");
    let (mut options, mut at) = (BTreeMap::new(), 240);
    while message[at] != 255 {
        let end = at + 2 + usize::from(message[at + 1]);
        assert_eq!(options.insert(message[at], message[at + 2..end].to_vec()), None, "each option once");
        at = end;
    }
    let yours: [u8; 4] = message[16..20].try_into().unwrap();
    (options[&53][0], yours.into(), options)
}

#[test]
fn each_client_gets_its_address_and_keeps_it() {
    for client in &CLIENTS {
        let mut bench = Bench::new();
        let mut exchange = |kind, claimed, options: Options<'_>| {
            let options: Vec<_> = client.options.iter().chain(options).copied().collect();
            let Client { is_broadcast, pad, .. } = *client;
            let message = DhcpMessage { kind, mac: mac(1), is_broadcast, claimed, options: &options, pad };
            let reply = read_udp(&bench.ask(1, &message.frame()));
            assert_eq!((reply.to_mac, reply.from, reply.to.1), (mac(1), (CARD, 67), 68), "{}", client.name);
            (reply.to.0, read(&reply))
        };
        let expected = if client.is_broadcast { Ipv4Addr::BROADCAST } else { address(1) };
        let (to, (kind, given, options)) = exchange(DISCOVER, NONE, &[]);
        assert_eq!((to, kind, given), (expected, OFFER, address(1)), "{}", client.name);
        let identifier = client.options.iter().find(|(number, _)| *number == 61);
        assert_eq!(options.get(&61).map(Vec::as_slice), identifier.map(|(_, data)| *data), "{}", client.name);
        let choice = [(54, &options[&54][..]), (50, &given.octets())];
        let (to, (kind, given, settings)) = exchange(REQUEST, NONE, &choice);
        assert_eq!((to, kind, given), (expected, ACK, address(1)), "{}", client.name);
        let (to, (kind, given, renewed)) = exchange(REQUEST, address(1), &[]);
        assert_eq!((to, kind, given), (address(1), ACK, address(1)), "{}", client.name);
        assert_eq!(settings, renewed, "{}", client.name);
    }
}

#[test]
fn a_lease_holds_the_whole_set_up_of_the_network() {
    let reply = Bench::new().ask(1, &message(1, DISCOVER, NONE, &[]));
    let (_, _, options) = read(&read_udp(&reply));
    let expected: [(u8, &[u8]); 13] = [
        (1, &[255, 255, 255, 0]),
        (3, &[10, 0, 2, 2]),
        (6, &[10, 0, 2, 4]),
        (12, b"db"),
        (15, b"dragonfly"),
        (26, &1500_u16.to_be_bytes()),
        (28, &[10, 0, 2, 255]),
        (51, &3600_u32.to_be_bytes()),
        (53, &[OFFER]),
        (54, &[10, 0, 2, 4]),
        (58, &1800_u32.to_be_bytes()),
        (59, &3150_u32.to_be_bytes()),
        (0, &[]),
    ];
    let expected: BTreeMap<u8, Vec<u8>> =
        expected.into_iter().filter(|(number, _)| *number > 0).map(|(number, data)| (number, data.to_vec())).collect();
    assert_eq!(options, expected);
}

#[test]
fn a_network_without_a_way_out_names_no_router() {
    let mut bench = Bench::with(Config { router: None, resolver: None, ..config() });
    let (_, _, options) = read(&read_udp(&bench.ask(0, &message(0, DISCOVER, NONE, &[]))));
    assert!(!options.contains_key(&3) && options.contains_key(&6));
}

#[test]
fn each_request_is_granted_refused_or_anothers() {
    let (card, own) = (CARD.octets(), address(1).octets());
    let (other, elsewhere) = (address(0).octets(), [192, 168, 1, 7]);
    let cases: [(&str, Ipv4Addr, Options<'_>, Option<u8>); 12] = [
        ("chooses what was offered", NONE, &[(54, &card), (50, &own)], Some(ACK)),
        ("chooses another address", NONE, &[(54, &card), (50, &other)], Some(NAK)),
        ("chooses another server", NONE, &[(54, &ROUTER.octets()), (50, &own)], None),
        ("starts again with its address", NONE, &[(50, &own)], Some(ACK)),
        ("starts again with another's", NONE, &[(50, &other)], Some(NAK)),
        ("starts again with one of another network", NONE, &[(50, &elsewhere)], Some(NAK)),
        ("renews", address(1), &[], Some(ACK)),
        ("renews another's", address(0), &[], Some(NAK)),
        ("renews one of another network", elsewhere.into(), &[], Some(NAK)),
        ("says nothing", NONE, &[], Some(NAK)),
        ("names a server in three bytes", NONE, &[(54, &[10, 0, 2]), (50, &own)], Some(ACK)),
        ("has an option that is longer than the message", NONE, &[(50, &own), (12, &[0; 255])], Some(ACK)),
    ];
    for (case, claimed, options, expected) in cases {
        let sent = Bench::new().receive(Source::Net(1), &message(1, REQUEST, claimed, options));
        let kinds: Vec<_> = sent.iter().map(|frame| read(&read_udp(frame))).collect();
        assert_eq!(kinds.first().map(|(kind, ..)| *kind), expected, "{case}");
        if let [(NAK, given, settings)] = kinds.as_slice() {
            assert_eq!((*given, settings.contains_key(&51), settings.contains_key(&1)), (NONE, false, false), "{case}");
            assert_eq!(read_udp(&sent[0]).to.0, Ipv4Addr::BROADCAST, "{case}: its address is wrong");
        }
    }
}

#[test]
fn a_client_with_an_address_is_told_the_rest() {
    let reply = read_udp(&Bench::new().ask(1, &message(1, INFORM, address(1), &[])));
    let (kind, given, options) = read(&reply);
    assert_eq!((kind, given, reply.to.0), (ACK, NONE, address(1)));
    assert!(options.contains_key(&6) && !options.contains_key(&51), "settings, but no lease");
}

#[test]
fn nobody_but_the_devices_of_the_table_is_answered() {
    let discover = |mac| DhcpMessage { kind: DISCOVER, mac, is_broadcast: true, claimed: NONE, options: &[], pad: 0 };
    let whole = discover(mac(0)).frame();
    let inner = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = discover(mac(0)).bytes();
        change(&mut message);
        udp((mac(0), NONE, 68), (BROADCAST, Ipv4Addr::BROADCAST, 67), &message)
    };
    let cases = [
        ("of the world outside", Source::Outside, whole.clone()),
        ("of another port", Source::Net(1), whole.clone()),
        ("of a port that is not there", Source::Net(9), whole.clone()),
        ("of an unknown device", Source::Net(0), discover([2, 0, 0, 0, 0, 9]).frame()),
        ("for another's device", Source::Net(0), inner(&|message| message[32] ^= 1)),
        ("of another kind of network", Source::Net(0), inner(&|message| message[1] = 6)),
        ("with a longer address", Source::Net(0), inner(&|message| message[2] = 16)),
        ("of a server", Source::Net(0), inner(&|message| message[0] = 2)),
        ("through a relay", Source::Net(0), inner(&|message| message[27] = 1)),
        ("without the magic number", Source::Net(0), inner(&|message| message[236] = 0)),
        ("of BOOTP", Source::Net(0), inner(&|message| message[240] = 255)),
        ("cut in the fixed part", Source::Net(0), inner(&|message| message.truncate(239))),
        ("cut in an option", Source::Net(0), inner(&|message| message.truncate(242))),
        ("that declines", Source::Net(0), message(0, DECLINE, NONE, &[(50, &address(0).octets())])),
        ("that releases", Source::Net(0), message(0, RELEASE, address(0), &[(54, &CARD.octets())])),
        ("of no known kind", Source::Net(0), message(0, 77, NONE, &[])),
    ];
    let mut bench = Bench::new();
    for (case, source, frame) in cases {
        assert_eq!(bench.receive(source, &frame), Vec::<Vec<u8>>::new(), "a message {case}");
    }
    assert_eq!(bench.receive(Source::Net(0), &whole).len(), 1, "the one that was changed is right");
}

#[test]
fn messages_of_dhcp_are_known_from_other_frames() {
    let between = |from, to| udp((mac(0), address(0), from), (CARD_MAC, CARD, to), b"text");
    for (ports, expected) in [
        ((68, 67), true),
        ((67, 68), true),
        ((67, 67), true),
        ((68, 68), false),
        ((5000, 67), false),
        ((53, 68), false),
    ] {
        assert_eq!(is_dhcp(&between(ports.0, ports.1)), expected, "{ports:?}");
    }
    let mut later_piece = between(68, 67);
    later_piece[21] = 1;
    assert!(!is_dhcp(&later_piece) && !is_dhcp(&between(68, 67)[..36]) && !is_dhcp(&[]));
}
