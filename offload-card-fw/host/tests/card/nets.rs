//! Frames between guests.

use std::{collections::BTreeMap, path::Path};

use dragonfly_virtqueue::{GuestAddress, GuestMemory, RingFeatures, host::Buffer};

use crate::{Setup, front_end::*};

const MACS: [[u8; 6]; 2] = [[0x52, 0x54, 0, 0, 0, 1], [0x52, 0x54, 0, 0, 0, 2]];
const HEADER: usize = 12;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Block of memory that frames are sent from; those before it are for what is received.
const SEND_PLACE: u64 = 40;

/// A guest with a network device.
pub struct Station {
    guest: Guest,
    _front_end: FrontEnd,
    /// Blocks of memory of receive buffers, by their chains.
    buffers: BTreeMap<u16, u64>,
}

impl Station {
    fn new(setup: &Setup, number: usize, layout: RingFeatures) -> Self {
        Self::at(&setup.path(["one.sock", "two.sock"][number]), layout)
    }

    pub fn at(socket: &Path, layout: RingFeatures) -> Self {
        let mut guest = Guest::new(layout);
        let _front_end = FrontEnd::serve(socket, &mut guest);
        Self { guest, _front_end, buffers: BTreeMap::new() }
    }

    /// Offers all of so many buffers that are not with the card.
    pub fn offer_buffers(&mut self, count: u64) {
        let is_out = |place: &u64| self.buffers.values().any(|out| out == place);
        let back: Vec<_> = (0..count).filter(|place| !is_out(place)).collect();
        for place in back {
            self.offer(place);
        }
        self.guest.publish(RECEIVE);
    }

    fn offer(&mut self, place: u64) {
        let buffer = Buffer::writable(REQUESTS_AT + place * REQUEST_BYTES, 1600);
        let id = self.guest.rings[RECEIVE].driver.add(&self.guest.ram, &[buffer], 1, None).unwrap();
        self.buffers.insert(id, place);
    }

    pub fn send(&mut self, frame: &[u8]) {
        let at = REQUESTS_AT + SEND_PLACE * REQUEST_BYTES;
        self.guest.ram.write(GuestAddress(at), &[&[0; HEADER], frame].concat()).unwrap();
        let buffer = Buffer::readable(at, (HEADER + frame.len()) as u32);
        self.guest.rings[TRANSMIT].driver.add(&self.guest.ram, &[buffer], 1, None).unwrap();
        self.guest.publish(TRANSMIT);
        self.guest.wait_used(TRANSMIT);
    }

    /// The next frame that comes.
    pub fn receive(&mut self) -> Vec<u8> {
        let used = self.guest.wait_used(RECEIVE);
        self.frame(used)
    }

    /// The next frame that has come.
    pub fn try_receive(&mut self) -> Option<Vec<u8>> {
        let used = self.guest.rings[RECEIVE].driver.take_used(&self.guest.ram)?;
        Some(self.frame(used))
    }

    fn frame(&mut self, (id, len): (u16, u32)) -> Vec<u8> {
        let at = REQUESTS_AT + self.buffers.remove(&id).expect("a buffer of ours") * REQUEST_BYTES;
        let mut bytes = vec![0; len as usize];
        self.guest.ram.read(GuestAddress(at), &mut bytes).unwrap();
        assert_eq!(bytes[..HEADER], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "one buffer, nothing to be done");
        bytes.split_off(HEADER)
    }
}

pub fn net(name: &str, number: u8, more_keys: &str) -> String {
    format!("[[net]]\nname = '{name}'\nsocket = '{name}.sock'\nmac = '52:54:00:00:00:0{number}'\n{more_keys}\n")
}

fn two_stations() -> (Setup, Station, Station) {
    let setup = Setup::of(&[net("one", 1, ""), net("two", 2, "")].concat());
    let one = Station::new(&setup, 0, RingFeatures::empty());
    let two = Station::new(&setup, 1, RingFeatures::RING_PACKED);
    (setup, one, two)
}

/// A frame of an experiment (IEEE 802's 0x88b5) that carries `filling`.
fn frame(from: [u8; 6], to: [u8; 6], filling: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xb5], filling].concat()
}

#[test]
fn frames_reach_the_guest_that_they_are_for_unchanged() {
    let (_setup, mut one, mut two) = two_stations();
    for len in [46, 1000, 1500] {
        one.offer_buffers(1);
        two.offer_buffers(1);
        let there = frame(MACS[0], MACS[1], &vec![len as u8; len]);
        one.send(&there);
        assert_eq!(two.receive(), there);
        let back = frame(MACS[1], MACS[0], &vec![!(len as u8); len]);
        two.send(&back);
        assert_eq!(one.receive(), back);
    }
}

#[test]
fn a_frame_from_anothers_address_is_dropped() {
    let (_setup, mut one, mut two) = two_stations();
    two.offer_buffers(2);
    one.send(&frame([0x52, 0x54, 0, 0, 0, 3], MACS[1], &[1; 46]));
    let honest = frame(MACS[0], MACS[1], &[2; 46]);
    one.send(&honest);
    assert_eq!(two.receive(), honest);
}

#[test]
fn frames_wait_for_buffers_in_their_order() {
    let (_setup, mut one, mut two) = two_stations();
    for number in 0..20 {
        one.send(&frame(MACS[0], MACS[1], &[number; 46]));
    }
    two.offer_buffers(20);
    for number in 0..20 {
        assert_eq!(two.receive(), frame(MACS[0], MACS[1], &[number; 46]));
    }
}

#[test]
fn frames_for_a_guest_that_is_not_there_are_dropped_and_harm_nothing() {
    let setup = Setup::of(&[net("one", 1, ""), net("two", 2, "")].concat());
    let mut one = Station::new(&setup, 0, RingFeatures::empty());
    for number in 0..200 {
        one.send(&frame(MACS[0], MACS[1], &[number; 46]));
    }
    let mut two = Station::new(&setup, 1, RingFeatures::empty());
    two.offer_buffers(1);
    let late = frame(MACS[0], MACS[1], &[7; 46]);
    one.send(&late);
    assert_eq!(two.receive(), late);
}

#[test]
fn frames_that_are_too_long_or_too_short_are_dropped() {
    let (_setup, mut one, mut two) = two_stations();
    two.offer_buffers(3);
    one.send(&[]);
    one.send(&frame(MACS[0], MACS[1], &[1; 3000]));
    let good = frame(MACS[0], MACS[1], &[2; 46]);
    one.send(&good);
    assert_eq!(two.receive(), good);
}

#[test]
fn guests_in_different_vlans_do_not_hear_each_other() {
    let setup = Setup::of(&[net("one", 1, "vlan = 1"), net("two", 2, "vlan = 2")].concat());
    let mut one = Station::new(&setup, 0, RingFeatures::empty());
    let mut two = Station::new(&setup, 1, RingFeatures::empty());
    two.offer_buffers(1);
    one.send(&frame(MACS[0], [0xff; 6], &[1; 46]));
    one.send(&frame(MACS[0], MACS[1], &[1; 46]));
    // The second round comes after what the first one delivered.
    one.send(&frame(MACS[0], MACS[0], &[1; 46]));
    assert_eq!(two.guest.rings[RECEIVE].driver.take_used(&two.guest.ram), None);
}

#[test]
fn a_rule_of_the_machine_file_decides_what_passes() {
    let rules = "[[rule]]\ngroup = 'g'\ndirection = 'out'\naction = 'allow'\n\
                 [[rule]]\ngroup = 'g'\ndirection = 'in'\naction = 'allow'\nprotocol = 'udp'\nports = '53'\n";
    let setup = Setup::of(&[rules, &net("one", 1, "groups = ['g']"), &net("two", 2, "groups = ['g']")].concat());
    let mut one = Station::new(&setup, 0, RingFeatures::empty());
    let mut two = Station::new(&setup, 1, RingFeatures::empty());
    two.offer_buffers(2);
    one.send(&datagram(54));
    one.send(&datagram(53));
    assert_eq!(two.receive(), datagram(53));
}

/// A UDP datagram of 18 bytes from 10.0.0.1 to a port of 10.0.0.2.
pub fn datagram(port: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let sum: u32 = ip.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = [1234u16, port, 26, 0].map(u16::to_be_bytes).concat();
    [&MACS[1][..], &MACS[0], &[8, 0], &ip, &udp, &[0; 18]].concat()
}
