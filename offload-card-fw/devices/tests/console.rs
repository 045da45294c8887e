//! Console devices under drivers that follow the specification, and one that does not.

mod common;

use std::time::Instant;

use common::ring_config;
use dragonfly_card_devices::{Cables, ConsoleDevice, PortTaken, Serve, tables::Console};
use dragonfly_random::{Random, fuzz_end};
use dragonfly_vhost_user::{Device, RingConfig};
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, QueueConfig, RingFeatures,
    host::{Buffer, Driver, HostMemory, config_at, driver},
};

const SIZE: u16 = 16;
const RING_BYTES: u64 = 0x400;
const DATA: u64 = 0x4000;
const DATA_BYTES: u64 = 0x1_0000;
const MULTIPORT: u64 = 2;
/// What waits for a port at most.
const ROOM: usize = 32 << 10;

// Queues of the first port, of control, and of the second port.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const TOLD: u16 = 2;
const TELL: u16 = 3;
const SECOND: u16 = 4;

// Messages (virtio 1.2 5.3.6.2).
const READY: u16 = 0;
const ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE: u16 = 4;
const RESIZE: u16 = 5;
const OPEN: u16 = 6;
const NAME: u16 = 7;

fn table(ports: &[&str], terminal: Option<&str>) -> Console {
    let ports = ports.iter().map(|port| (*port).into()).collect();
    Console { name: "c".into(), ports, terminal: terminal.map(Into::into), columns: 80, rows: 25 }
}

/// A guest: its device, and its driver's side of all rings.
struct Guest {
    device: ConsoleDevice,
    memory: HostMemory,
    rings: Vec<(QueueConfig, Box<dyn Driver<HostMemory>>)>,
    /// Queues for what comes that have a buffer.
    offered: Vec<u16>,
}

impl Guest {
    fn new(cables: &mut Cables, table: &Console, layout: RingFeatures, features: u64) -> Self {
        let device = ConsoleDevice::new(table, cables).unwrap();
        let memory = HostMemory::new(&[(0, (DATA + DATA_BYTES) as usize)]);
        let mut guest = Self { device, memory, rings: Vec::new(), offered: Vec::new() };
        let layout = layout | RingFeatures::VERSION_1;
        assert_eq!((layout.bits() | features) & !guest.device.features(), 0);
        guest.device.set_features(layout.bits() | features);
        for index in 0..guest.device.queues() {
            let config = config_at(RING_BYTES * u64::from(index), SIZE, layout);
            guest.rings.push((config, driver(&config, &guest.memory)));
            guest.start(index, cables);
        }
        guest
    }

    fn start(&mut self, index: u16, cables: &mut Cables) {
        let (config, _) = &self.rings[usize::from(index)];
        self.device.start_ring(index, ring_config(config)).unwrap();
        self.device.rings_changed(cables);
    }

    /// Begins with a ring anew.
    fn renew(&mut self, index: u16, cables: &mut Cables) {
        self.device.stop_ring(index);
        self.device.rings_changed(cables);
        let (config, ring) = &mut self.rings[usize::from(index)];
        *ring = driver(config, &self.memory);
        self.start(index, cables);
    }

    fn add(&mut self, index: u16, buffer: Buffer) -> bool {
        let (_, ring) = &mut self.rings[usize::from(index)];
        let is_added = ring.add(&self.memory, &[buffer], 1, None).is_some();
        ring.publish(&self.memory);
        is_added
    }

    fn serve(&mut self, cables: &mut Cables) {
        for index in 0..self.device.queues() {
            // Of a ring that has stopped.
            let _ = self.device.serve(cables, index, &self.memory, 0);
        }
    }

    /// Sends bytes by a ring, of which so many fit, and says whether they were taken.
    fn send(&mut self, cables: &mut Cables, index: u16, bytes: &[u8]) -> bool {
        self.memory.write(GuestAddress(DATA), bytes).unwrap();
        assert!(self.add(index, Buffer::readable(DATA, bytes.len() as u32)));
        self.serve(cables);
        self.used(index).is_some()
    }

    fn used(&mut self, index: u16) -> Option<u32> {
        self.rings[usize::from(index)].1.take_used(&self.memory).map(|(_, written)| written)
    }

    fn say(&mut self, cables: &mut Cables, port: u32, event: u16, value: u16) {
        let message = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        assert!(self.send(cables, TELL, &message));
    }

    /// What comes by a ring into a buffer of so many bytes.
    fn receive(&mut self, cables: &mut Cables, index: u16, room: u32) -> Option<Vec<u8>> {
        const AT: u64 = DATA + 0x8000;
        // Each ring has a place of its own.
        let at = AT + 0x1000 * u64::from(index);
        if !self.offered.contains(&index) {
            assert!(self.add(index, Buffer::writable(at, room)));
            self.offered.push(index);
        }
        self.serve(cables);
        let mut bytes = vec![0; self.used(index)? as usize];
        self.offered.retain(|offered| *offered != index);
        self.memory.read(GuestAddress(at), &mut bytes).unwrap();
        Some(bytes)
    }

    /// What it is told: port, event, value, and what follows.
    fn told(&mut self, cables: &mut Cables) -> Vec<(u32, u16, u16, Vec<u8>)> {
        let parse = |mut bytes: Vec<u8>| {
            let rest = bytes.split_off(8);
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            (u32::from(half(0)), half(4), half(6), rest)
        };
        std::iter::from_fn(|| self.receive(cables, TOLD, 64)).map(parse).collect()
    }

    /// Does what drivers do at first, and opens all ports.
    fn begin(&mut self, cables: &mut Cables) {
        self.say(cables, 0, READY, 1);
        for port in 0..u32::from(self.device.queues() / 2 - 1) {
            self.say(cables, port, PORT_READY, 1);
            self.say(cables, port, OPEN, 1);
        }
        self.told(cables);
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn drivers_are_told_of_their_ports() {
    let mut cables = Cables::default();
    let mut guest =
        Guest::new(&mut cables, &table(&["shell", "talk"], Some("shell")), RingFeatures::empty(), MULTIPORT);
    assert_eq!(guest.told(&mut cables), []);
    guest.say(&mut cables, 0, READY, 1);
    assert_eq!(guest.told(&mut cables), [(0, ADD, 1, vec![]), (1, ADD, 1, vec![])]);
    guest.say(&mut cables, 0, PORT_READY, 1);
    let size = [25, 0, 80, 0].to_vec();
    let expected = [(0, CONSOLE, 1, vec![]), (0, NAME, 1, b"shell".to_vec()), (0, RESIZE, 0, size)];
    assert_eq!(guest.told(&mut cables), expected);
    // However often it asks, it is told once when it has a buffer: there was one, and then another.
    for _ in 0..100 {
        guest.say(&mut cables, 1, PORT_READY, 1);
    }
    assert_eq!(guest.told(&mut cables), vec![(1, NAME, 1, b"talk".to_vec()); 2]);
    // What makes no sense changes nothing.
    for (port, event, value) in [(2, PORT_READY, 1), (u32::MAX, OPEN, 1), (1, NAME, 1), (1, 99, 1), (0, READY, 0)] {
        guest.say(&mut cables, port, event, value);
        assert_eq!(guest.told(&mut cables), [], "{port} {event} {value}");
    }
    let mut config = [0xff; 10];
    guest.device.read_config(0, &mut config);
    assert_eq!(config, [80, 0, 25, 0, 2, 0, 0, 0, 0, 0]);
}

#[test]
fn a_port_is_told_when_somebody_is_at_its_other_end() {
    let mut cables = Cables::default();
    let mut one = Guest::new(&mut cables, &table(&["a", "talk"], None), RingFeatures::empty(), MULTIPORT);
    let mut two = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    one.begin(&mut cables);
    assert_eq!(one.told(&mut cables), []);
    two.begin(&mut cables);
    assert_eq!(one.told(&mut cables), [(1, OPEN, 1, vec![])]);
    assert!(two.send(&mut cables, TRANSMIT, b"last words"));
    two.say(&mut cables, 0, OPEN, 0);
    assert_eq!(one.told(&mut cables), [], "not before it has all that was sent");
    assert_eq!(one.receive(&mut cables, SECOND, 64).unwrap(), b"last words");
    assert_eq!(one.told(&mut cables), [(1, OPEN, 0, vec![])]);
    two.say(&mut cables, 0, OPEN, 1);
    assert_eq!(one.told(&mut cables), [(1, OPEN, 1, vec![])]);
    // As when the guest is reset.
    two.renew(RECEIVE, &mut cables);
    assert_eq!(one.told(&mut cables), [(1, OPEN, 0, vec![])]);
}

#[test]
fn what_a_port_sends_comes_out_of_the_other_whole_as_far_as_there_is_room() {
    for layout in [RingFeatures::empty(), RingFeatures::RING_PACKED] {
        let mut cables = Cables::default();
        let mut one = Guest::new(&mut cables, &table(&["talk"], None), layout, MULTIPORT);
        let mut two = Guest::new(&mut cables, &table(&["talk"], None), layout, MULTIPORT);
        one.begin(&mut cables);
        two.begin(&mut cables);
        let all = content(ROOM + 7000);
        assert!(one.send(&mut cables, TRANSMIT, &all[..20_000]));
        assert!(!one.send(&mut cables, TRANSMIT, &all[20_000..]), "there is no room for all");
        assert!(!one.device.enable_kicks(TRANSMIT, &one.memory), "it waits for room, not for kicks");
        let mut got = vec![];
        while let Some(bytes) = two.receive(&mut cables, RECEIVE, 999) {
            got.extend(bytes);
            one.serve(&mut cables);
        }
        assert!(got == all, "{} bytes of {} came, or others", got.len(), all.len());
        assert_eq!(one.used(TRANSMIT), Some(0));
        assert!(two.send(&mut cables, TRANSMIT, b"answer"));
        assert_eq!(one.receive(&mut cables, RECEIVE, 999).unwrap(), b"answer");
    }
}

#[test]
fn a_console_never_waits_and_its_last_words_are_kept() {
    let mut cables = Cables::default();
    let shell = table(&["shell"], Some("shell"));
    let mut console = Guest::new(&mut cables, &shell, RingFeatures::empty(), 0);
    let all = content(3 * ROOM);
    for part in all.chunks(0x2000) {
        assert!(console.send(&mut cables, TRANSMIT, part));
    }
    let mut reader = Guest::new(&mut cables, &table(&["shell"], None), RingFeatures::empty(), MULTIPORT);
    reader.begin(&mut cables);
    let mut got = vec![];
    while let Some(bytes) = reader.receive(&mut cables, RECEIVE, 4000) {
        got.extend(bytes);
    }
    assert!(got == all[2 * ROOM..]);
    // A driver that knows of no ports has its console open.
    assert!(reader.send(&mut cables, TRANSMIT, b"ls\n"));
    assert_eq!(console.receive(&mut cables, RECEIVE, 64).unwrap(), b"ls\n");
}

#[test]
fn two_ports_have_the_same_name_at_most() {
    let mut cables = Cables::default();
    let table = table(&["talk"], None);
    assert!(ConsoleDevice::new(&table, &mut cables).is_ok());
    assert!(ConsoleDevice::new(&table, &mut cables).is_ok());
    assert_eq!(ConsoleDevice::new(&table, &mut cables).unwrap_err(), PortTaken("talk".into()));
}

#[test]
fn a_port_that_another_card_served_is_taken_as_open() {
    let mut cables = Cables::default();
    let mut one = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    one.begin(&mut cables);
    let mut after = Cables::default();
    let mut device = ConsoleDevice::new(&table(&["talk"], None), &mut after).unwrap();
    device.set_features(RingFeatures::VERSION_1.bits() | MULTIPORT);
    for (index, (config, _)) in (0..).zip(&one.rings) {
        let base = one.device.stop_ring(index);
        device.start_ring(index, RingConfig { base, ..ring_config(config) }).unwrap();
        device.rings_changed(&mut after);
    }
    let mut two = Guest::new(&mut after, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    two.begin(&mut after);
    assert!(two.send(&mut after, TRANSMIT, b"again"));
    one.device = device;
    assert_eq!(one.receive(&mut after, RECEIVE, 64).unwrap(), b"again");
}

/// A driver writes anything into its rings, for `DRAGONFLY_FUZZ_SECONDS` (2 if unset), while two others talk.
#[test]
fn a_hostile_driver_harms_nobody_elses_ports() {
    let (mut random, end) = (Random::new(1), fuzz_end());
    let mut cables = Cables::default();
    let mut one = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    let mut two = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    let hostile = table(&["x", "y"], Some("y"));
    let mut hostile = Guest::new(&mut cables, &hostile, RingFeatures::empty(), MULTIPORT);
    one.begin(&mut cables);
    two.begin(&mut cables);
    let mut round = 0_u64;
    while Instant::now() < end {
        let index = random.below(6) as u16;
        match random.below(8) {
            0 => hostile.renew(index, &mut cables),
            1 => {
                let at = random.below(6 * RING_BYTES);
                hostile.memory.write(GuestAddress(at), &[random.number() as u8]).unwrap();
            }
            2 => {
                let message = [random.below(4) as u8, 0, 0, 0, random.below(9) as u8, 0, random.below(2) as u8, 0];
                hostile.memory.write(GuestAddress(DATA), &message).unwrap();
                hostile.add(TELL, Buffer::readable(DATA, 8));
            }
            _ => {
                let (at, len) = (random.below(DATA + 2 * DATA_BYTES), random.below(0x2_0000) as u32);
                let buffer = if random.once_in(2) { Buffer::readable(at, len) } else { Buffer::writable(at, len) };
                hostile.add(index, buffer);
            }
        }
        hostile.serve(&mut cables);
        round += 1;
        let text = round.to_le_bytes();
        assert!(one.send(&mut cables, TRANSMIT, &text));
        assert_eq!(two.receive(&mut cables, RECEIVE, 64).unwrap(), text);
    }
}
