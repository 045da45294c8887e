//! How connections are followed: states, time-outs, related errors, full tables.

mod common;

use common::*;
use dragonfly_vswitch::{
    PortConfig, PortId, Switch,
    counters::DropReason,
    policy::{Action, Direction, FilterConfig, GroupId, Ports, Service, State},
};

const CLIENT: u16 = 40_000;
const SERVER: u16 = 80;

/// Guest 0 may open anything, and nobody may open anything to it; guest 1 is not filtered.
fn switch_with(filter: FilterConfig) -> Switch {
    let mut switch = switch_of(vec![PortConfig { filter, ..filtered() }, guest()]);
    switch.set_group(GroupId(0), &[rule(1, Direction::Egress, Action::Allow, None, Service::Any)]);
    introduce(&mut switch, 2, 0);
    switch
}

fn switch() -> Switch {
    switch_with(FilterConfig::default())
}

/// A segment from guest 0, the client, or from guest 1, the server.
fn segment(from: u16, tcp: Tcp, data: &[u8]) -> Vec<u8> {
    let (ports, to) = if from == 0 { ((CLIENT, SERVER), 1) } else { ((SERVER, CLIENT), 0) };
    Build::tcp(from as u8, to, ports, tcp, data).frame()
}

fn passes(switch: &mut Switch, from: u16, frame: &[u8], now_ns: u64) -> bool {
    ports_of(switch, from, frame, now_ns) == [1 - from]
}

fn state(switch: &Switch, now_ns: u64) -> Option<State> {
    switch.connection_states(PortId(0), now_ns).next()
}

fn tcp(flags: u8, sequence: u32, acknowledgement: u32) -> Tcp {
    Tcp { flags, sequence, acknowledgement, window: 1000 }
}

/// Client's numbers begin at 100, the server's at 500.
fn establish(switch: &mut Switch, now_ns: u64) {
    assert!(passes(switch, 0, &segment(0, tcp(SYN, 100, 0), b""), now_ns));
    assert!(passes(switch, 1, &segment(1, tcp(SYN | ACK, 500, 101), b""), now_ns));
    assert!(passes(switch, 0, &segment(0, tcp(ACK, 101, 501), b""), now_ns));
    assert_eq!(state(switch, now_ns), Some(State::Established));
}

/// Who sends, flags, sequence, acknowledgement, whether it passes, state behind it.
type TcpStep = (u16, u8, u32, u32, bool, Option<State>);

#[test]
fn tcp_goes_through_its_states() {
    use State::*;
    let cases: &[(&str, &[TcpStep])] = &[
        (
            "opened and closed by the client",
            &[
                (0, SYN, 100, 0, true, Some(SynSent)),
                (1, SYN | ACK, 500, 101, true, Some(SynReceived)),
                (0, ACK, 101, 501, true, Some(Established)),
                (0, FIN | ACK, 101, 501, true, Some(FinWait)),
                (1, ACK, 501, 102, true, Some(FinWait)),
                (1, FIN | ACK, 501, 102, true, Some(LastAck)),
                (0, ACK, 102, 502, true, Some(TimeWait)),
            ],
        ),
        (
            "both close at the same time",
            &[
                (0, SYN, 100, 0, true, Some(SynSent)),
                (1, SYN | ACK, 500, 101, true, Some(SynReceived)),
                (0, ACK, 101, 501, true, Some(Established)),
                (0, FIN | ACK, 101, 501, true, Some(FinWait)),
                (1, FIN | ACK, 501, 101, true, Some(LastAck)),
                (0, ACK, 102, 502, true, Some(TimeWait)),
            ],
        ),
        (
            "opened by both at the same time",
            &[
                (0, SYN, 100, 0, true, Some(SynSent)),
                (1, SYN, 500, 0, true, Some(SynReceived)),
                (0, SYN | ACK, 100, 501, true, Some(SynReceived)),
            ],
        ),
        ("refused", &[(0, SYN, 100, 0, true, Some(SynSent)), (1, RST | ACK, 0, 101, true, Some(Reset))]),
        (
            "a refusal that nobody asked for",
            &[(0, SYN, 100, 0, true, Some(SynSent)), (1, RST | ACK, 0, 77, false, Some(SynSent))],
        ),
        (
            "an answer to another opening",
            &[(0, SYN, 100, 0, true, Some(SynSent)), (1, SYN | ACK, 500, 77, false, Some(SynSent))],
        ),
        (
            "a lost opening is repeated",
            &[
                (0, SYN, 100, 0, true, Some(SynSent)),
                (0, SYN, 100, 0, true, Some(SynSent)),
                (1, SYN | ACK, 500, 101, true, Some(SynReceived)),
                (1, SYN | ACK, 500, 101, true, Some(SynReceived)),
            ],
        ),
        (
            "data before the opening is answered",
            &[(0, SYN, 100, 0, true, Some(SynSent)), (0, ACK, 101, 501, false, Some(SynSent))],
        ),
        ("no opening", &[(0, ACK, 100, 500, false, None)]),
        ("an answer alone", &[(0, SYN | ACK, 100, 500, false, None)]),
        ("a reset alone", &[(0, RST, 100, 0, false, None)]),
        (
            "an opening in the middle",
            &[
                (0, SYN, 100, 0, true, Some(SynSent)),
                (1, SYN | ACK, 500, 101, true, Some(SynReceived)),
                (0, ACK, 101, 501, true, Some(Established)),
                (1, SYN, 900, 0, false, Some(Established)),
                (0, SYN, 900, 0, false, Some(Established)),
            ],
        ),
        (
            "opened anew after its end",
            &[
                (0, SYN, 100, 0, true, Some(SynSent)),
                (1, RST | ACK, 0, 101, true, Some(Reset)),
                (0, SYN, 300, 0, true, Some(SynSent)),
            ],
        ),
        (
            "opened anew by the one who may not",
            &[
                (0, SYN, 100, 0, true, Some(SynSent)),
                (1, RST | ACK, 0, 101, true, Some(Reset)),
                (1, SYN, 300, 0, false, None),
            ],
        ),
    ];
    for (name, steps) in cases {
        let mut switch = switch();
        for (number, &(from, flags, sequence, acknowledgement, expected, behind)) in steps.iter().enumerate() {
            let frame = segment(from, tcp(flags, sequence, acknowledgement), b"");
            let now = 1 + number as u64;
            assert_eq!(passes(&mut switch, from, &frame, now), expected, "{name}, step {number}");
            assert_eq!(state(&switch, now), behind, "{name}, behind step {number}");
        }
    }
}

#[test]
fn a_reset_counts_only_within_the_window() {
    // Sequence number of the server's reset; the client expects 501 and takes 1,000 bytes.
    for (sequence, counts) in
        [(501, true), (1501, true), (1502, false), (500, false), (501_u32.wrapping_sub(1 << 30), false)]
    {
        let mut switch = switch();
        establish(&mut switch, 1);
        let reset = segment(1, tcp(RST, sequence, 0), b"");
        assert_eq!(passes(&mut switch, 1, &reset, 2), counts, "{sequence}");
        assert_eq!(state(&switch, 2) == Some(State::Reset), counts, "{sequence}");
    }
}

#[test]
fn the_window_moves_with_data_and_is_scaled_as_agreed() {
    let mut switch = switch();
    let with_scale = |flags, numbers: (u32, u32), scale| {
        let from = u16::from(flags & ACK != 0);
        let mut frame = segment(from, tcp(flags, numbers.0, numbers.1), &[1, 3, 3, scale]);
        // Six words of header: what was data are options.
        frame[46] = 0x60;
        frame
    };
    assert!(passes(&mut switch, 0, &with_scale(SYN, (100, 0), 4), 1));
    assert!(passes(&mut switch, 1, &with_scale(SYN | ACK, (500, 101), 0), 1));
    assert!(passes(&mut switch, 0, &segment(0, tcp(ACK, 101, 501), b""), 1));
    assert!(passes(&mut switch, 1, &segment(1, tcp(ACK, 501, 101), &[0; 600]), 2));
    // A part of it once more does not take back what is known.
    assert!(passes(&mut switch, 1, &segment(1, tcp(ACK, 501, 101), &[0; 100]), 2));
    assert!(passes(&mut switch, 0, &segment(0, tcp(ACK, 101, 1101), b""), 2));
    assert!(!passes(&mut switch, 1, &segment(1, tcp(RST, 501, 0), b""), 3), "now before the window");
    assert!(!passes(&mut switch, 1, &segment(1, tcp(RST, 1101 + 16_001, 0), b""), 3), "behind 1,000 times 16");
    assert!(passes(&mut switch, 1, &segment(1, tcp(RST, 1101 + 16_000, 0), b""), 3));
}

#[test]
fn silent_connections_are_forgotten_in_time() {
    let filter = FilterConfig::default();
    let udp = Build::udp(0, 1, (CLIENT, 53), b"?").frame();
    let answer = Build::udp(1, 0, (53, CLIENT), b"!").frame();
    let cases = [
        ("unanswered", vec![(0, &udp)], filter.timeouts.new),
        ("answered", vec![(0, &udp), (1, &answer)], filter.timeouts.answered),
    ];
    for (name, frames, timeout) in cases {
        for (silence, passed) in [(timeout - 1, true), (timeout, false)] {
            let mut switch = switch();
            for (from, frame) in &frames {
                assert!(passes(&mut switch, *from, frame, 0), "{name}");
            }
            assert_eq!(passes(&mut switch, 1, &answer, silence), passed, "{name}, {silence} ns");
        }
    }
    let mut switch = switch();
    establish(&mut switch, 0);
    let data = segment(1, tcp(ACK, 501, 101), b"data");
    assert!(passes(&mut switch, 1, &data, filter.timeouts.established - 1));
    assert!(passes(&mut switch, 1, &data, 2 * filter.timeouts.established - 2), "each packet puts it off");
    assert!(!passes(&mut switch, 1, &data, 3 * filter.timeouts.established - 2));
}

#[test]
fn time_goes_by_for_stations_that_do_not_send() {
    let mut switch = switch();
    let udp = Build::udp(0, 1, (CLIENT, 53), b"?").frame();
    passes(&mut switch, 0, &udp, 0);
    switch.expire(FilterConfig::default().timeouts.new, u32::MAX);
    assert_eq!(switch.connection_states(PortId(0), 0).count(), 0, "even seen from the past");
}

#[test]
fn echoes_are_answered_to_who_asked_with_the_same_identifier() {
    let mut switch = switch();
    let echo = |from, kind, identifier: u8| Build::icmp(from, 1 - from, kind, 0, &[0, identifier, 0, 1]).frame();
    assert!(passes(&mut switch, 0, &echo(0, 8, 5), 1));
    assert!(passes(&mut switch, 1, &echo(1, 0, 5), 2));
    assert!(!passes(&mut switch, 1, &echo(1, 0, 6), 3), "another identifier");
    assert!(!passes(&mut switch, 1, &echo(1, 8, 5), 4), "a question of its own");
}

#[test]
fn errors_about_a_connection_pass_and_others_do_not() {
    for is_v6 in [false, true] {
        let mut switch = switch();
        let family = |build: Build| if is_v6 { build.v6() } else { build };
        let sent = family(Build::udp(0, 1, (CLIENT, 53), b"?"));
        assert!(passes(&mut switch, 0, &sent.frame(), 1));
        let (kind, code) = if is_v6 { (1, 4) } else { (3, 3) };
        // From a router on the way, so not from who the guest talks with.
        let error = |about: &Build| {
            let mut build = family(Build::icmp(1, 0, kind, code, &[&[0; 4][..], &about.packet()].concat()));
            build.addresses.0 = [10, 0, 0, 77];
            build.frame()
        };
        assert!(passes(&mut switch, 1, &error(&sent), 2));
        let other = family(Build::udp(0, 1, (CLIENT, 54), b"?"));
        assert!(!passes(&mut switch, 1, &error(&other), 3), "nothing was sent there");
        let swapped = family(Build::udp(1, 0, (53, CLIENT), b"?"));
        assert!(!passes(&mut switch, 1, &error(&swapped), 4), "the guest did not send that");
        assert!(!passes(&mut switch, 1, &error(&sent)[..60], 5), "cut off");
    }
}

#[test]
fn floods_of_openings_do_not_end_established_connections() {
    let mut switch = switch_with(FilterConfig { connections: 64, ..FilterConfig::default() });
    establish(&mut switch, 1);
    for port in 0..10_000 {
        let frame = Build::tcp(0, 1, (port, 99), Tcp { flags: SYN, ..Tcp::default() }, b"").frame();
        assert!(passes(&mut switch, 0, &frame, 2), "the newest openings have their chance");
    }
    assert!(passes(&mut switch, 1, &segment(1, tcp(ACK, 501, 101), b"data"), 3));
}

#[test]
fn a_table_full_of_established_connections_takes_no_more() {
    let mut switch = switch_with(FilterConfig { connections: 8, ..FilterConfig::default() });
    let frame = |from, port| {
        let ports = if from == 0 { (port, 53) } else { (53, port) };
        Build::udp(from, 1 - from, ports, b"").frame()
    };
    for port in 0..8 {
        assert!(passes(&mut switch, 0, &frame(0, port), 1));
        assert!(passes(&mut switch, 1, &frame(1, port), 1));
    }
    assert!(!passes(&mut switch, 0, &frame(0, 9), 2));
    assert_eq!(drops(&switch, 0, DropReason::ConnectionsFull), 1);
    let later = 2 + FilterConfig::default().timeouts.answered;
    introduce(&mut switch, 2, later);
    assert!(passes(&mut switch, 0, &frame(0, 9), later), "until one is forgotten");
}

#[test]
fn one_guests_connections_take_no_room_from_anothers() {
    let small = PortConfig { filter: FilterConfig { connections: 4, ..FilterConfig::default() }, ..filtered() };
    let mut switch = switch_of(vec![small.clone(), guest(), small]);
    switch.set_group(GroupId(0), &[rule(1, Direction::Egress, Action::Allow, None, Service::Any)]);
    introduce(&mut switch, 3, 0);
    let neighbours = Build::udp(2, 1, (1, 1), b"").frame();
    assert_eq!(ports_of(&mut switch, 2, &neighbours, 1), [1]);
    for port in 0..1000 {
        ports_of(&mut switch, 0, &Build::udp(0, 1, (port, 1), b"").frame(), 2);
    }
    assert_eq!(ports_of(&mut switch, 1, &Build::udp(1, 2, (1, 1), b"").frame(), 3), [2], "its answer still passes");
}

const PICK_UP_NS: u64 = 120_000_000_000;

#[test]
fn after_a_take_over_connections_are_picked_up_for_two_minutes() {
    for (begin_ns, now_ns, passed) in
        [(None, 1, false), (Some(1), 2, true), (Some(1), PICK_UP_NS, true), (Some(1), PICK_UP_NS + 1, false)]
    {
        let mut switch = switch();
        begin_ns.into_iter().for_each(|begin_ns| switch.pick_up_connections(begin_ns));
        assert_eq!(passes(&mut switch, 0, &segment(0, tcp(ACK, 101, 501), b"data"), now_ns), passed);
        assert_eq!(state(&switch, now_ns), passed.then_some(State::PickedUp));
        // What is known goes on afterwards.
        assert_eq!(passes(&mut switch, 1, &segment(1, tcp(ACK, 501, 105), b"more"), now_ns + 2), passed);
        assert_eq!(state(&switch, now_ns), passed.then_some(State::Established));
        assert_eq!(drops(&switch, 0, DropReason::NotOpening), u64::from(!passed));
    }
}

fn taken_over(filter: FilterConfig) -> Switch {
    let mut switch = switch_with(filter);
    switch.pick_up_connections(0);
    switch
}

#[test]
fn an_answer_in_a_connection_that_is_not_known_passes_and_is_known_once_the_guest_goes_on() {
    let mut switch = taken_over(FilterConfig::default());
    assert!(passes(&mut switch, 1, &segment(1, tcp(ACK, 501, 105), b"data"), 1));
    assert_eq!(state(&switch, 1), None);
    // There was no such connection, says the guest.
    assert!(!passes(&mut switch, 0, &segment(0, tcp(RST, 105, 0), b""), 2));
    assert!(passes(&mut switch, 0, &segment(0, tcp(ACK, 105, 505), b""), 3));
    assert_eq!(state(&switch, 3), Some(State::PickedUp));
    assert!(passes(&mut switch, 1, &segment(1, tcp(ACK, 505, 105), b"more"), 4));
    assert_eq!(state(&switch, 4), Some(State::Established));
    // To another port of the server's no rule would have let the guest connect.
    switch.set_group(
        GroupId(0),
        &[rule(1, Direction::Egress, Action::Allow, None, Service::Tcp(Ports::one(SERVER + 1)))],
    );
    assert!(!passes(&mut switch, 1, &segment(1, tcp(ACK, 509, 105), b"more"), 5));
}

#[test]
fn nobody_opens_a_connection_by_being_picked_up() {
    let mut switch = taken_over(FilterConfig::default());
    for flags in [SYN, SYN | ACK, RST, RST | ACK, 0, FIN] {
        assert!(!passes(&mut switch, 1, &segment(1, tcp(flags, 501, 105), b""), 1), "{flags:#x}");
    }
    assert!(passes(&mut switch, 0, &segment(0, tcp(ACK, 101, 501), b""), 2));
    assert!(!passes(&mut switch, 1, &segment(1, tcp(SYN, 900, 0), b""), 3), "nor in one that was");
    // A rule that gives no answers does not either.
    switch.set_group(GroupId(0), &[rule(1, Direction::Egress, Action::AllowStateless, None, Service::Any)]);
    assert!(!passes(&mut switch, 1, &segment(1, tcp(ACK, 501, 105), b""), 4));
}

#[test]
fn a_flood_of_what_is_picked_up_takes_nobodys_room() {
    let mut switch = taken_over(FilterConfig { connections: 64, ..FilterConfig::default() });
    let flood = |switch: &mut Switch, begin: u16| {
        for port in begin..begin + 1000 {
            assert_eq!(ports_of(switch, 0, &Build::tcp(0, 1, (port, 1), tcp(ACK, 7, 7), b"").frame(), 2), [1]);
        }
    };
    flood(&mut switch, 1000);
    establish(&mut switch, 3);
    flood(&mut switch, 2000);
    assert!(switch.connection_states(PortId(0), 4).any(|state| state == State::Established));
    let minute_ns = 60_000_000_000;
    assert_eq!(switch.connection_states(PortId(0), 3 + minute_ns).count(), 1, "the others are forgotten");
}

#[test]
fn a_connection_that_is_picked_up_closes_as_others_do() {
    use State::*;
    // From which port, flags, sequence number and acknowledgement; the state after it.
    type Step = (u16, u8, u32, u32, State);
    let cases: &[&[Step]] = &[
        &[(0, FIN | ACK, 101, 501, PickedUp), (1, FIN | ACK, 501, 102, LastAck), (0, ACK, 102, 502, TimeWait)],
        &[(0, ACK, 101, 501, PickedUp), (1, FIN | ACK, 501, 101, FinWait), (0, FIN | ACK, 101, 502, LastAck)],
        &[(0, FIN | ACK, 101, 501, PickedUp), (0, FIN | ACK, 101, 501, PickedUp), (1, ACK, 501, 102, FinWait)],
        &[(0, ACK, 101, 501, PickedUp), (1, RST, 501, 0, Reset)],
    ];
    for steps in cases {
        let mut switch = taken_over(FilterConfig::default());
        for (from, flags, sequence, acknowledgement, then) in *steps {
            assert!(passes(&mut switch, *from, &segment(*from, tcp(*flags, *sequence, *acknowledgement), b""), 1));
            assert_eq!(state(&switch, 1), Some(*then), "{steps:?}");
        }
    }
}
