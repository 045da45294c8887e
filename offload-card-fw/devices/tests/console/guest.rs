//! A guest with a console device, and a driver that follows the specification.

use dragonfly_card_devices::{Cables, ConsoleDevice, Serve, tables::Console};
use dragonfly_vhost_user::Device;
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, QueueConfig, RingFeatures,
    host::{Buffer, Driver, HostMemory, config_at, driver},
};

use crate::common::ring_config;

pub const SIZE: u16 = 16;
pub const RING_BYTES: u64 = 0x400;
pub const DATA: u64 = 0x4000;
pub const DATA_BYTES: u64 = 0x1_0000;
pub const MULTIPORT: u64 = 2;

// Queues of the first port, of control, and of the second port.
pub const RECEIVE: u16 = 0;
pub const TRANSMIT: u16 = 1;
pub const TOLD: u16 = 2;
pub const TELL: u16 = 3;
pub const SECOND: u16 = 4;

// Messages (virtio 1.2 5.3.6.2).
pub const READY: u16 = 0;
pub const ADD: u16 = 1;
pub const PORT_READY: u16 = 3;
pub const CONSOLE: u16 = 4;
pub const RESIZE: u16 = 5;
pub const OPEN: u16 = 6;
pub const NAME: u16 = 7;

pub fn table(ports: &[&str], terminal: Option<&str>) -> Console {
    let ports = ports.iter().map(|port| (*port).into()).collect();
    Console { name: "c".into(), ports, terminal: terminal.map(Into::into), columns: 80, rows: 25, host_socket: None }
}

/// A guest: its device, and its driver's side of all rings.
pub struct Guest {
    pub device: ConsoleDevice,
    pub memory: HostMemory,
    pub rings: Vec<(QueueConfig, Box<dyn Driver<HostMemory>>)>,
    /// Queues for what comes that have a buffer.
    offered: Vec<u16>,
}

impl Guest {
    pub fn new(cables: &mut Cables, table: &Console, layout: RingFeatures, features: u64) -> Self {
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
    pub fn renew(&mut self, index: u16, cables: &mut Cables) {
        self.device.stop_ring(index);
        self.device.rings_changed(cables);
        let (config, ring) = &mut self.rings[usize::from(index)];
        *ring = driver(config, &self.memory);
        self.start(index, cables);
    }

    pub fn add(&mut self, index: u16, buffer: Buffer) -> bool {
        let (_, ring) = &mut self.rings[usize::from(index)];
        let is_added = ring.add(&self.memory, &[buffer], 1, None).is_some();
        ring.publish(&self.memory);
        is_added
    }

    pub fn serve(&mut self, cables: &mut Cables) {
        for index in 0..self.device.queues() {
            // Of a ring that has stopped.
            let _ = self.device.serve(cables, index, &self.memory, 0);
        }
    }

    /// Sends bytes by a ring, of which so many fit, and says whether they were taken.
    pub fn send(&mut self, cables: &mut Cables, index: u16, bytes: &[u8]) -> bool {
        self.memory.write(GuestAddress(DATA), bytes).unwrap();
        assert!(self.add(index, Buffer::readable(DATA, bytes.len() as u32)));
        self.serve(cables);
        self.used(index).is_some()
    }

    pub fn used(&mut self, index: u16) -> Option<u32> {
        self.rings[usize::from(index)].1.take_used(&self.memory).map(|(_, written)| written)
    }

    pub fn say(&mut self, cables: &mut Cables, port: u32, event: u16, value: u16) {
        let message = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        assert!(self.send(cables, TELL, &message));
    }

    /// What comes by a ring into a buffer of so many bytes.
    pub fn receive(&mut self, cables: &mut Cables, index: u16, room: u32) -> Option<Vec<u8>> {
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
    pub fn told(&mut self, cables: &mut Cables) -> Vec<(u32, u16, u16, Vec<u8>)> {
        let parse = |mut bytes: Vec<u8>| {
            let rest = bytes.split_off(8);
            let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            (u32::from(half(0)), half(4), half(6), rest)
        };
        std::iter::from_fn(|| self.receive(cables, TOLD, 64)).map(parse).collect()
    }

    /// Does what drivers do at first, and opens all ports.
    pub fn begin(&mut self, cables: &mut Cables) {
        self.say(cables, 0, READY, 1);
        for port in 0..u32::from(self.device.queues() / 2 - 1) {
            self.say(cables, port, PORT_READY, 1);
            self.say(cables, port, OPEN, 1);
        }
        self.told(cables);
    }
}
