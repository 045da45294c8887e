//! Guests' drivers at a hub: some follow the specification, one does what it likes.

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use dragonfly_random::Random;
use proptest::prelude::*;
use zerocopy::little_endian::{U16, U32, U64};

use super::{
    connection::ROOM,
    hub::{HOST_CID, SocketError, SocketGuest, SocketHub},
    packet::{Header, Operation, STREAM, Shutdown},
};
use crate::tables::Vsock;

const ONE: u64 = 3;
const TWO: u64 = 4;
const THREE: u64 = 5;
/// Room that drivers here give.
const OWN_ROOM: u32 = 1000;

fn vsock(peers: &[u64], connections: u32) -> Vsock {
    Vsock {
        name: "v".into(),
        cid: None,
        peers: peers.iter().map(|cid| *cid as u32).collect(),
        connections,
        host_socket: None,
    }
}

/// A guest's driver.
struct Guest {
    guest: SocketGuest,
    cid: u64,
}

struct Bench {
    hub: SocketHub,
    guests: Vec<Guest>,
}

impl Bench {
    /// Guests of which each may be connected with these.
    fn new(peers: [&[u64]; 3], connections: u32) -> Self {
        let mut hub = SocketHub::default();
        let guests = [ONE, TWO, THREE].into_iter().zip(peers).map(|(cid, peers)| {
            let guest = hub.add(&vsock(peers, connections), cid as u32).unwrap();
            hub.set_running(guest, true);
            Guest { guest, cid }
        });
        let guests = guests.collect();
        Self { hub, guests }
    }

    fn usual() -> Self {
        Self::new([&[TWO], &[ONE, THREE], &[TWO]], 4)
    }

    /// Sends a packet from a guest's port 1000 to port 7 of another, or the other way round.
    fn send(&mut self, from: usize, to: u64, operation: Operation, change: impl FnOnce(&mut Header), data: &[u8]) {
        let (own_port, peer_port) = if from == 1 { (7, 1000) } else { (1000, 7) };
        let mut header = Header {
            source_cid: U64::new(self.guests[from].cid),
            destination_cid: U64::new(to),
            source_port: U32::new(own_port),
            destination_port: U32::new(peer_port),
            len: U32::new(data.len() as u32),
            kind: U16::new(STREAM),
            operation: U16::new(operation as u16),
            room: U32::new(OWN_ROOM),
            ..Header::default()
        };
        change(&mut header);
        self.hub.receive(self.guests[from].guest, &header, data);
    }

    /// The next packet that a guest gets.
    fn take(&mut self, guest: usize) -> Option<(Operation, Header, Vec<u8>)> {
        let mut data = VecDeque::new();
        let header = self.hub.take(self.guests[guest].guest, 4096, &mut data)?;
        assert_eq!(header.len.get() as usize, data.len());
        Some((Operation::of(&header).unwrap(), header, data.into()))
    }

    fn operations(&mut self, guest: usize) -> Vec<Operation> {
        std::iter::from_fn(|| self.take(guest)).map(|(operation, ..)| operation).collect()
    }

    /// The first guest is connected with the second.
    fn connected() -> Self {
        let mut bench = Self::usual();
        bench.send(0, TWO, Operation::Request, |_| {}, &[]);
        assert_eq!(bench.operations(1), [Operation::Request]);
        bench.send(1, ONE, Operation::Response, |_| {}, &[]);
        assert_eq!(bench.operations(0), [Operation::Response]);
        bench
    }
}

#[test]
fn a_number_belongs_to_one_guest() {
    let mut hub = SocketHub::default();
    hub.add(&vsock(&[], 1), 9).unwrap();
    assert_eq!(hub.add(&vsock(&[], 1), 9), Err(SocketError::CidTaken(9)));
}

#[test]
fn guests_are_connected_only_if_each_names_the_other_and_listens() {
    for (peers, is_connected) in [
        ([&[TWO][..], &[ONE], &[]], true),
        ([&[TWO], &[THREE], &[]], false),
        ([&[THREE], &[ONE], &[]], false),
        ([&[ONE, TWO], &[], &[]], false),
    ] {
        let mut bench = Bench::new(peers, 4);
        bench.send(0, TWO, Operation::Request, |_| {}, &[]);
        let (called, caller) = (bench.operations(1), bench.operations(0));
        if is_connected {
            assert_eq!((called, caller), (vec![Operation::Request], vec![]));
        } else {
            assert_eq!((called, caller), (vec![], vec![Operation::Reset]), "{peers:?}");
        }
    }
    for to in [ONE, 2, 99] {
        let mut bench = Bench::new([&[ONE, 2, 99], &[], &[]], 4);
        bench.send(0, to, Operation::Request, |_| {}, &[]);
        assert_eq!(bench.operations(0), [Operation::Reset], "{to}");
    }
    let mut bench = Bench::usual();
    bench.hub.set_running(bench.guests[1].guest, false);
    bench.send(0, TWO, Operation::Request, |_| {}, &[]);
    assert_eq!(bench.operations(0), [Operation::Reset]);
}

#[test]
fn the_host_is_connected_with_its_guests_only() {
    for (is_its_own, answer) in [(true, vec![]), (false, vec![Operation::Reset])] {
        let mut bench = Bench::usual();
        let own = if is_its_own { bench.guests[0].guest } else { bench.guests[1].guest };
        let host = bench.hub.add_host(&[own]);
        bench.send(0, HOST_CID.into(), Operation::Request, |_| {}, &[]);
        let asked = bench.hub.take(host, 0, &mut VecDeque::new());
        assert_eq!((asked.is_some(), bench.operations(0)), (is_its_own, answer));
    }
}

#[test]
fn a_refusal_ends_the_connection_for_the_caller() {
    let mut bench = Bench::usual();
    bench.send(0, TWO, Operation::Request, |_| {}, &[]);
    bench.operations(1);
    bench.send(1, ONE, Operation::Reset, |_| {}, &[]);
    assert_eq!((bench.operations(0), bench.operations(1)), (vec![Operation::Reset], vec![]));
}

#[test]
fn data_arrives_as_far_as_the_receiver_has_room() {
    let mut bench = Bench::connected();
    bench.send(0, TWO, Operation::Data, |_| {}, &[1; 600]);
    bench.send(0, TWO, Operation::Data, |_| {}, &[2; 600]);
    let (operation, header, data) = bench.take(1).unwrap();
    assert_eq!((operation, data.len(), header.room.get()), (Operation::Data, 1000, ROOM));
    assert_eq!((&data[..600], &data[600..]), (&[1; 600][..], &[2; 400][..]));
    assert_eq!(bench.operations(1), [Operation::CreditRequest], "it is asked once");
    bench.send(1, ONE, Operation::CreditUpdate, |header| header.forwarded = U32::new(700), &[]);
    assert_eq!(bench.take(1).unwrap().2, [2; 200]);
    assert_eq!(bench.operations(1), []);
}

#[test]
fn a_sender_is_told_of_room_and_may_not_use_more() {
    let mut bench = Bench::connected();
    bench.send(0, TWO, Operation::Data, |_| {}, &vec![1; ROOM as usize]);
    assert_eq!(bench.operations(0), []);
    bench.send(0, TWO, Operation::CreditRequest, |_| {}, &[]);
    let (operation, header, _) = bench.take(0).unwrap();
    assert_eq!((operation, header.forwarded.get()), (Operation::CreditUpdate, 0));
    for taken in 1..=ROOM / OWN_ROOM {
        bench.take(1).unwrap();
        bench.send(1, ONE, Operation::CreditUpdate, |header| header.forwarded = U32::new(taken * OWN_ROOM), &[]);
    }
    let told: Vec<_> = std::iter::from_fn(|| bench.take(0)).map(|(_, header, _)| header.forwarded.get()).collect();
    assert!(told.last().is_some_and(|last| *last >= ROOM / 2), "{told:?}");
    bench.send(0, TWO, Operation::Data, |_| {}, &vec![1; ROOM as usize]);
    assert_eq!((bench.operations(0), bench.operations(1)), (vec![Operation::Reset], vec![Operation::Reset]));
}

#[test]
fn who_closes_is_told_so_and_the_other_gets_all_that_was_sent() {
    let mut bench = Bench::connected();
    bench.send(0, TWO, Operation::Data, |_| {}, b"last words");
    bench.send(0, TWO, Operation::Shutdown, |header| header.flags = U32::new(Shutdown::all().bits()), &[]);
    assert_eq!(bench.operations(0), [Operation::Reset]);
    assert_eq!(bench.take(1).unwrap().2, b"last words");
    let (operation, header, _) = bench.take(1).unwrap();
    assert_eq!((operation, header.flags.get()), (Operation::Shutdown, Shutdown::all().bits()));
    bench.send(1, ONE, Operation::Reset, |_| {}, &[]);
    assert_eq!((bench.operations(0), bench.operations(1)), (vec![], vec![]));
    // The ports are free again.
    bench.send(0, TWO, Operation::Request, |_| {}, &[]);
    assert_eq!(bench.operations(1), [Operation::Request]);
}

#[test]
fn one_direction_may_end_before_the_other() {
    let mut bench = Bench::connected();
    bench.send(0, TWO, Operation::Shutdown, |header| header.flags = U32::new(Shutdown::SEND.bits()), &[]);
    assert_eq!(bench.take(1).unwrap().1.flags.get(), Shutdown::SEND.bits());
    bench.send(1, ONE, Operation::Data, |_| {}, b"answer");
    assert_eq!(bench.take(0).unwrap().2, b"answer");
    bench.send(0, TWO, Operation::Data, |_| {}, b"what it has renounced");
    assert_eq!((bench.operations(0), bench.operations(1)), (vec![Operation::Reset], vec![Operation::Reset]));
}

#[test]
fn connections_of_a_guest_that_ends_end() {
    let mut bench = Bench::connected();
    bench.send(0, TWO, Operation::Data, |_| {}, b"half");
    bench.hub.set_running(bench.guests[0].guest, false);
    assert_eq!(bench.operations(1), [Operation::Reset]);
    assert!(!bench.hub.has_packets(bench.guests[0].guest));
}

#[test]
fn a_guest_has_so_many_connections_and_no_more() {
    let mut bench = Bench::new([&[TWO], &[ONE], &[]], 2);
    for port in 0..3 {
        bench.send(0, TWO, Operation::Request, |header| header.source_port = U32::new(port), &[]);
    }
    assert_eq!((bench.operations(1).len(), bench.operations(0)), (2, vec![Operation::Reset]));
}

#[test]
fn packets_of_no_connection_are_refused_and_forged_ones_dropped() {
    let mut bench = Bench::usual();
    bench.send(0, TWO, Operation::Data, |_| {}, b"x");
    bench.send(0, TWO, Operation::Reset, |_| {}, &[]);
    bench.send(0, TWO, Operation::Request, |header| header.kind = U16::new(2), &[]);
    bench.send(0, TWO, Operation::Request, |header| header.operation = U16::new(99), &[]);
    bench.send(2, TWO, Operation::Request, |header| header.source_cid = U64::new(ONE), &[]);
    assert_eq!((bench.operations(0).len(), bench.operations(1), bench.operations(2)), (3, vec![], vec![]));
}

/// Bytes of a stream, by their places.
fn content(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// A guest sends a stream to another while a third does what it likes to both.
    #[test]
    fn a_stream_arrives_whole_whatever_a_third_guest_does(seed in any::<u64>()) {
        let mut random = Random::new(seed);
        let mut bench = Bench::new([&[TWO, THREE], &[ONE, THREE], &[ONE, TWO]], 4);
        bench.send(0, TWO, Operation::Request, |_| {}, &[]);
        bench.operations(1);
        bench.send(1, ONE, Operation::Response, |_| {}, &[]);
        bench.operations(0);
        let total = 100_000;
        let (mut sent, mut acknowledged, mut got) = (0_usize, 0_usize, 0_usize);
        let mut steps = 0;
        while got < total {
            steps += 1;
            prop_assert!(steps < 200_000, "stands still at {got}");
            for _ in 0..random.below(4) {
                let operation = random.choose(&[1_u16, 2, 3, 4, 5, 5, 6, 7, 8]);
                let to = random.choose(&[ONE, TWO, THREE, 2]);
                let numbers = [(); 4].map(|()| random.awkward() as u32);
                let port = random.choose(&[7, 8, 1000]);
                let data = vec![0xee; random.index(2000)];
                bench.send(2, to, Operation::Data, |header| {
                    header.operation = U16::new(operation);
                    header.flags = U32::new(numbers[0]);
                    header.room = U32::new(numbers[1]);
                    header.forwarded = U32::new(numbers[2]);
                    header.source_port = U32::new(port);
                    if numbers[3] % 4 == 0 {
                        header.source_cid = U64::new(ONE);
                    }
                }, &data);
            }
            if random.once_in(2) {
                bench.take(2);
            }
            if sent < total && sent - acknowledged < ROOM as usize {
                let len = (1 + random.index(3000)).min(total - sent).min(ROOM as usize - (sent - acknowledged));
                let data: Vec<u8> = (sent..sent + len).map(content).collect();
                bench.send(0, TWO, Operation::Data, |_| {}, &data);
                sent += len;
            }
            if let Some((operation, header, _)) = bench.take(0)
                && header.source_cid.get() == TWO && header.source_port.get() == 7
            {
                prop_assert_ne!(operation, Operation::Reset);
                acknowledged = header.forwarded.get() as usize;
            }
            if let Some((operation, header, data)) = bench.take(1)
                && header.source_cid.get() == ONE
            {
                prop_assert_ne!(operation, Operation::Reset);
                for byte in data {
                    prop_assert_eq!(byte, content(got));
                    got += 1;
                }
                bench.send(1, ONE, Operation::CreditUpdate, |header| header.forwarded = U32::new(got as u32), &[]);
            }
        }
    }
}
