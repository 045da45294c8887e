//! Which packets pass a guest's security groups.

mod common;

use common::*;
use dragonfly_vswitch::{
    PortConfig, PortId, Switch,
    counters::DropReason,
    policy::{
        Action::{self, Allow, AllowStateless, Deny},
        Direction::{self, Egress, Ingress},
        GroupId, Ports, Rule, Service,
    },
};

/// Guest 0 is filtered by group 0, guest 1 is not.
fn switch(rules: &[Rule]) -> Switch {
    let mut switch = switch_of(vec![filtered(), guest()]);
    switch.set_group(GroupId(0), rules);
    introduce(&mut switch, 2, 0);
    switch
}

fn passes(switch: &mut Switch, direction: Direction, frame: &Build, now_ns: u64) -> bool {
    let port = u16::from(direction == Ingress);
    ports_of(switch, port, &frame.frame(), now_ns) == [1 - port]
}

fn udp(direction: Direction, port: u16) -> Build {
    let (from, to) = if direction == Egress { (0, 1) } else { (1, 0) };
    Build::udp(from, to, (40_000, port), b"data")
}

fn open(direction: Direction, port: u16) -> Build {
    let (from, to) = if direction == Egress { (0, 1) } else { (1, 0) };
    Build::tcp(from, to, (40_000, port), Tcp { flags: SYN, ..Tcp::default() }, b"")
}

#[test]
fn the_first_rule_that_matches_decides() {
    let web = Service::Tcp(Ports::one(80));
    let dns = Service::Udp(Ports { first: 50, last: 60 });
    let any = |direction, action| rule(9, direction, action, None, Service::Any);
    let from = |text, action| rule(5, Ingress, action, prefix(text), Service::Any);
    // Rules, a packet, whether it passes.
    let cases: Vec<(&str, Vec<Rule>, Direction, Build, bool)> = vec![
        ("nothing is allowed", vec![], Ingress, open(Ingress, 80), false),
        ("nothing is allowed out", vec![], Egress, open(Egress, 80), false),
        ("its port", vec![rule(1, Ingress, Allow, None, web)], Ingress, open(Ingress, 80), true),
        ("another port", vec![rule(1, Ingress, Allow, None, web)], Ingress, open(Ingress, 81), false),
        ("another protocol", vec![rule(1, Ingress, Allow, None, web)], Ingress, udp(Ingress, 80), false),
        ("another direction", vec![rule(1, Ingress, Allow, None, web)], Egress, open(Egress, 80), false),
        ("first of a range", vec![rule(1, Egress, Allow, None, dns)], Egress, udp(Egress, 50), true),
        ("last of a range", vec![rule(1, Egress, Allow, None, dns)], Egress, udp(Egress, 60), true),
        ("before a range", vec![rule(1, Egress, Allow, None, dns)], Egress, udp(Egress, 49), false),
        ("behind a range", vec![rule(1, Egress, Allow, None, dns)], Egress, udp(Egress, 61), false),
        ("anything", vec![any(Ingress, Allow)], Ingress, Build::ip(1, 0, 50, vec![0; 20]), true),
        (
            "a protocol by number",
            vec![rule(1, Ingress, Allow, None, Service::Protocol(50))],
            Ingress,
            Build::ip(1, 0, 50, vec![0; 20]),
            true,
        ),
        (
            "another by number",
            vec![rule(1, Ingress, Allow, None, Service::Protocol(50))],
            Ingress,
            Build::ip(1, 0, 51, vec![0; 20]),
            false,
        ),
        ("IPv6 by a rule for all", vec![any(Ingress, Allow)], Ingress, udp(Ingress, 1).v6(), true),
        ("its network", vec![from("10.0.0.0/30", Allow)], Ingress, udp(Ingress, 1), true),
        ("its address", vec![from("10.0.0.1/32", Allow)], Ingress, udp(Ingress, 1), true),
        ("another address", vec![from("10.0.0.2/32", Allow)], Ingress, udp(Ingress, 1), false),
        ("all of IPv4", vec![from("0.0.0.0/0", Allow)], Ingress, udp(Ingress, 1), true),
        ("IPv6 by a rule for IPv4", vec![from("0.0.0.0/0", Allow)], Ingress, udp(Ingress, 1).v6(), false),
        ("its IPv6 network", vec![from("fd00::/8", Allow)], Ingress, udp(Ingress, 1).v6(), true),
        ("IPv4 by a rule for IPv6", vec![from("::/0", Allow)], Ingress, udp(Ingress, 1), false),
        ("lower number first", vec![any(Ingress, Allow), from("10.0.0.1/32", Deny)], Ingress, udp(Ingress, 1), false),
        ("whatever the order", vec![from("10.0.0.1/32", Deny), any(Ingress, Allow)], Ingress, udp(Ingress, 1), false),
        ("allow before deny", vec![from("10.0.0.1/32", Allow), any(Ingress, Deny)], Ingress, udp(Ingress, 1), true),
        ("of equals, deny", vec![any(Ingress, Allow), any(Ingress, Deny)], Ingress, udp(Ingress, 1), false),
        (
            "of equals, deny stateless too",
            vec![any(Ingress, AllowStateless), any(Ingress, Deny)],
            Ingress,
            udp(Ingress, 1),
            false,
        ),
        (
            "any ICMP",
            vec![rule(1, Ingress, Allow, None, Service::Icmp(None))],
            Ingress,
            Build::icmp(1, 0, 8, 0, &[0; 8]),
            true,
        ),
        (
            "ICMP of a type",
            vec![rule(1, Ingress, Allow, None, Service::Icmp(Some(8)))],
            Ingress,
            Build::icmp(1, 0, 8, 0, &[0; 8]),
            true,
        ),
        (
            "ICMP of another type",
            vec![rule(1, Ingress, Allow, None, Service::Icmp(Some(13)))],
            Ingress,
            Build::icmp(1, 0, 8, 0, &[0; 8]),
            false,
        ),
        (
            "ICMPv6 of a type",
            vec![rule(1, Ingress, Allow, None, Service::Icmp(Some(128)))],
            Ingress,
            Build::icmp(1, 0, 128, 0, &[0; 8]).v6(),
            true,
        ),
    ];
    for (name, rules, direction, frame, expected) in cases {
        let mut switch = switch(&rules);
        assert_eq!(passes(&mut switch, direction, &frame, 1), expected, "{name}");
        assert_eq!(passes(&mut switch, direction, &frame, 2), expected, "{name}, once more");
    }
}

#[test]
fn answers_pass_without_a_rule_unless_the_rule_is_stateless() {
    for (action, answered) in [(Allow, true), (AllowStateless, false)] {
        let mut switch = switch(&[rule(1, Egress, action, None, Service::Any)]);
        assert!(passes(&mut switch, Egress, &Build::udp(0, 1, (1000, 53), b"?"), 1));
        assert_eq!(passes(&mut switch, Ingress, &Build::udp(1, 0, (53, 1000), b"!"), 2), answered, "{action:?}");
        assert!(!passes(&mut switch, Ingress, &Build::udp(1, 0, (53, 1001), b"!"), 3), "not to another port");
    }
}

#[test]
fn both_guests_must_agree() {
    let mut switch = switch_of(vec![filtered(), PortConfig { groups: Some(vec![GroupId(1)]), ..guest() }]);
    introduce(&mut switch, 2, 0);
    switch.set_group(GroupId(0), &[rule(1, Egress, Allow, None, Service::Any)]);
    assert!(!passes(&mut switch, Egress, &udp(Egress, 7), 1), "the receiver has no rule");
    assert_eq!(drops(&switch, 1, DropReason::Denied), 1, "and it is counted there");
    switch.set_group(GroupId(1), &[rule(1, Ingress, Allow, None, Service::Udp(Ports::one(7)))]);
    assert!(passes(&mut switch, Egress, &udp(Egress, 7), 2));
    assert!(!passes(&mut switch, Egress, &udp(Egress, 8), 3));
}

#[test]
fn a_changed_rule_holds_for_the_very_next_packet() {
    let allow = |action: Action| [rule(1, Egress, action, None, Service::Any)];
    let mut switch = switch(&allow(Allow));
    for round in 0..4 {
        assert!(passes(&mut switch, Egress, &udp(Egress, 7), round * 10), "allowed");
        assert!(passes(&mut switch, Ingress, &Build::udp(1, 0, (7, 40_000), b"!"), round * 10 + 1), "its answer");
        switch.set_group(GroupId(0), &allow(Deny));
        assert!(
            !passes(&mut switch, Ingress, &Build::udp(1, 0, (7, 40_000), b"!"), round * 10 + 2),
            "an old connection's"
        );
        assert!(!passes(&mut switch, Egress, &udp(Egress, 7), round * 10 + 3), "denied");
        switch.set_group(GroupId(0), &allow(Allow));
    }
}

#[test]
fn a_change_that_does_not_concern_a_connection_leaves_it_alone() {
    let web = rule(1, Egress, Allow, None, Service::Tcp(Ports::one(80)));
    let mut switch = switch(&[web]);
    assert!(passes(&mut switch, Egress, &open(Egress, 80), 1));
    switch.set_group(GroupId(0), &[web, rule(0, Ingress, Deny, None, Service::Any)]);
    let answer = Tcp { flags: SYN | ACK, acknowledgement: 1, ..Tcp::default() };
    assert!(passes(&mut switch, Ingress, &Build::tcp(1, 0, (80, 40_000), answer, b""), 2));
}

#[test]
fn ports_without_groups_are_open_and_those_with_none_are_shut() {
    let mut switch = switch(&[]);
    switch.set_port_groups(PortId(0), None).expect("it exists");
    assert!(passes(&mut switch, Ingress, &open(Ingress, 80), 1));
    switch.set_port_groups(PortId(0), Some(&[])).expect("it exists");
    assert!(!passes(&mut switch, Ingress, &open(Ingress, 80), 2));
}

#[test]
fn address_resolution_always_passes_and_other_protocols_never() {
    let mut switch = switch(&[rule(1, Ingress, Allow, None, Service::Any)]);
    assert_eq!(ports_of(&mut switch, 1, &arp(1, 1, false), 1), [0]);
    let solicitation = Build::icmp(1, 0, 135, 0, &[0; 20]).v6();
    switch.set_group(GroupId(0), &[]);
    assert!(passes(&mut switch, Ingress, &solicitation, 1));
    let mut lldp = udp(Ingress, 1).frame();
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert_eq!(ports_of(&mut switch, 1, &lldp, 1), [0_u16; 0]);
    assert_eq!(drops(&switch, 0, DropReason::NotIp), 1);
}

#[test]
fn each_rule_counts_what_it_decided() {
    let rules = [
        rule(1, Ingress, Allow, None, Service::Udp(Ports::one(7))),
        rule(2, Ingress, Deny, None, Service::Udp(Ports::one(8))),
    ];
    let mut switch = switch(&rules);
    let length = udp(Ingress, 7).frame().len() as u64;
    for now in 0..5 {
        passes(&mut switch, Ingress, &udp(Ingress, 7), now);
        passes(&mut switch, Ingress, &udp(Ingress, 8), now);
        passes(&mut switch, Egress, &Build::udp(0, 1, (7, 40_000), b"data"), now);
    }
    let counts: Vec<_> = switch.rule_counts(GroupId(0)).iter().map(|count| (count.frames, count.bytes)).collect();
    assert_eq!(counts, [(10, 10 * length), (5, 5 * length)], "answers count for the rule that let the question pass");
}

#[test]
fn fragments_follow_their_first_one() {
    let mut switch = switch(&[rule(1, Ingress, Allow, None, Service::Udp(Ports::one(7)))]);
    let first = |id| udp(Ingress, 7).fragment(id, 0, true);
    let later = |id| Build::ip(1, 0, 17, vec![0; 16]).fragment(id, 8, false);
    assert!(!passes(&mut switch, Ingress, &later(1), 1), "its first was not seen");
    assert!(passes(&mut switch, Ingress, &first(1), 2));
    assert!(passes(&mut switch, Ingress, &later(1), 3));
    assert!(!passes(&mut switch, Ingress, &later(2), 4), "another datagram's");
    assert!(!passes(&mut switch, Ingress, &udp(Ingress, 8).fragment(3, 0, true), 5), "denied");
    assert!(!passes(&mut switch, Ingress, &later(3), 6), "so is the rest");
    assert!(!passes(&mut switch, Ingress, &later(1), 60 * SECOND), "too late");
}
