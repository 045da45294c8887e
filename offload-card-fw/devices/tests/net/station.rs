//! A guest with a network device, and a driver that follows the specification.

use std::collections::BTreeMap;

use dragonfly_card_devices::{
    Control, Fabric, NetDevice, Serve, Service,
    tables::{Devices, Net},
};
use dragonfly_settings::Document;
use dragonfly_vhost_user::{Device, RingConfig};
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, QueueConfig, RingFeatures, WithInFlight,
    host::{Buffer, Driver, HostMemory, config_at, driver},
};
use dragonfly_vswitch::{MacAddress, PortId};

use crate::common::ring_config;

pub const HEADER: usize = 12;
/// Nothing is to be done about the frame, which is in one buffer.
pub const PLAIN: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// virtio 1.2 5.1.3.
pub const CSUM: u64 = 1 << 0;
pub const GUEST_CSUM: u64 = 1 << 1;
pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
pub const GUEST_TSO4: u64 = 1 << 7;
pub const GUEST_TSO6: u64 = 1 << 8;
pub const HOST_TSO4: u64 = 1 << 11;
pub const HOST_TSO6: u64 = 1 << 12;
pub const MRG_RXBUF: u64 = 1 << 15;
pub const CTRL_VQ: u64 = 1 << 17;
pub const CTRL_RX: u64 = 1 << 18;
pub const CTRL_VLAN: u64 = 1 << 19;
pub const CTRL_RX_EXTRA: u64 = 1 << 20;
pub const GUEST_ANNOUNCE: u64 = 1 << 21;
pub const MQ: u64 = 1 << 22;
pub const CTRL_MAC_ADDR: u64 = 1 << 23;
pub const GUEST_USO4: u64 = 1 << 54;
pub const GUEST_USO6: u64 = 1 << 55;
pub const HOST_USO: u64 = 1 << 56;
pub const RSS: u64 = 1 << 60;

pub const SENDS_ALL: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_USO;
pub const TAKES_ALL: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6;

const QUEUE_SIZE: u16 = 256;
const RING_BYTES: u64 = 0x4000;
/// Where frames and commands are sent from, in pieces.
const SENDING: u64 = 0x10_0000;
/// Where buffers for frames that come begin.
const RECEIVING: u64 = 0x20_0000;
/// Bytes from one of those to the next, and how many there are.
const RECEIVING_STEP: u64 = 0x2000;
const RECEIVING_COUNT: u64 = 1024;
/// Bytes of memory for what is in flight.
const KEPT: usize = 128 << 10;
const MEMORY: usize = (RECEIVING + RECEIVING_COUNT * RECEIVING_STEP) as usize;

pub const MACS: [MacAddress; 2] = [MacAddress([0x52, 0x54, 0, 0, 0, 1]), MacAddress([0x52, 0x54, 0, 0, 0, 2])];

/// The devices of a machine file, with addresses from [`MACS`].
pub fn devices(text: &str) -> Devices {
    let document = Document::parse("test", text).unwrap();
    Devices::read(&document.top(), &[], |number| MACS.get(number).copied()).unwrap()
}

/// A switch with a port for each of two devices.
pub fn two_nets() -> (Fabric, Vec<(Net, PortId)>) {
    nets("[[net]]\nname = 'one'\n[[net]]\nname = 'two'\n")
}

/// A switch with a port for each device.
pub fn nets(text: &str) -> (Fabric, Vec<(Net, PortId)>) {
    let devices = devices(text);
    let mut fabric = Fabric::new(1);
    let ports = fabric.add_machine(&devices).unwrap();
    (fabric, devices.nets.into_iter().zip(ports).collect())
}

/// A guest.
pub struct Station {
    pub device: NetDevice,
    pub memory: HostMemory,
    /// Memory for what is in flight, which outlives the card.
    pub kept: HostMemory,
    features: u64,
    rings: Vec<(QueueConfig, Box<dyn Driver<HostMemory>>)>,
    /// Receive buffers by queue and chain: where they are, and how long.
    buffers: BTreeMap<(usize, u16), (u64, u32)>,
    /// Places for receive buffers that are free.
    free: Vec<u64>,
}

impl Station {
    /// A guest whose driver has negotiated these features, with all queues running.
    pub fn new(fabric: &mut Fabric, (net, port): &(Net, PortId), control: Control, features: u64) -> Self {
        let mut device = NetDevice::new(net, *port, control);
        let features = features | RingFeatures::VERSION_1.bits();
        assert_eq!(features & !device.features(), 0, "the device does not offer that");
        device.set_features(features);
        let memory = HostMemory::new(&[(0, MEMORY)]);
        let mut rings = Vec::new();
        for index in 0..device.queues() {
            let layout = RingFeatures::from_bits_truncate(features);
            let config = config_at(RING_BYTES * u64::from(index), QUEUE_SIZE, layout);
            rings.push((config, driver(&config, &memory)));
            device.start_ring(index, ring_config(&config)).unwrap();
        }
        device.rings_changed(fabric);
        let free = (0..RECEIVING_COUNT).map(|place| RECEIVING + place * RECEIVING_STEP).collect();
        let kept = HostMemory::new(&[(0, KEPT)]);
        Self { device, memory, kept, features, rings, buffers: BTreeMap::new(), free }
    }

    /// The card dies, and another one serves the device from where its rings stand, which it does once.
    pub fn change_card(&mut self, fabric: &mut Fabric, (net, port): &(Net, PortId)) {
        let mut device = NetDevice::new(net, *port, Control::Card);
        device.set_features(self.features);
        for (index, (config, _)) in (0..).zip(&self.rings) {
            let base = self.device.stop_ring(index);
            device.start_ring(index, RingConfig { base, ..ring_config(config) }).unwrap();
        }
        device.rings_changed(fabric);
        self.device = device;
        for index in 0..self.rings.len() {
            self.serve(fabric, index);
        }
    }

    /// Starts a ring that was stopped, where it stood.
    pub fn restart(&mut self, queue: usize, base: u32) {
        let config = ring_config(&self.rings[queue].0);
        self.device.start_ring(queue as u16, RingConfig { base, ..config }).unwrap();
    }

    /// Makes receive buffers of so many bytes available, as far as there are descriptors.
    pub fn offer(&mut self, queue: usize, count: usize, len: u32) {
        let (_, driver) = &mut self.rings[queue];
        for _ in 0..count {
            let Some(at) = self.free.pop() else { break };
            match driver.add(&self.memory, &[Buffer::writable(at, len)], 1, None) {
                Some(id) => drop(self.buffers.insert((queue, id), (at, len))),
                None => {
                    self.free.push(at);
                    break;
                }
            }
        }
        driver.publish(&self.memory);
    }

    /// Makes a chain available whose readable bytes are cut up by `cut`.
    pub fn submit(&mut self, queue: usize, bytes: &[u8], cut: usize, answer: u32) {
        self.submit_from(SENDING, queue, bytes, cut, answer);
    }

    /// Makes frames available, the bytes of each cut up by its number, and serves the queue until it has taken all of them.
    pub fn send_cut(&mut self, fabric: &mut Fabric, frames: &[(usize, Vec<u8>)]) {
        for (number, (cut, frame)) in (0..).zip(frames) {
            self.submit_from(SENDING + 0x1000 * number, 1, &[&[0; HEADER], frame.as_slice()].concat(), *cut, 0);
        }
        while self.serve(fabric, 1).has_worked {}
        for _ in frames {
            self.rings[1].1.take_used(&self.memory).expect("the frame given back");
        }
    }

    fn submit_from(&mut self, from: u64, queue: usize, bytes: &[u8], cut: usize, answer: u32) {
        self.memory.write(GuestAddress(from), bytes).unwrap();
        let mut buffers: Vec<_> = (from..)
            .step_by(cut)
            .zip(bytes.chunks(cut))
            .map(|(at, piece)| Buffer::readable(at, piece.len() as u32))
            .collect();
        if answer > 0 {
            buffers.push(Buffer::writable(RECEIVING - 16, answer));
        }
        let (_, driver) = &mut self.rings[queue];
        driver.add(&self.memory, &buffers, buffers.len(), None).expect("descriptors");
        driver.publish(&self.memory);
    }

    /// Serves a queue once.
    pub fn serve(&mut self, fabric: &mut Fabric, queue: usize) -> Service {
        let region = self.kept.slice(GuestAddress(0), KEPT).unwrap();
        let memory = WithInFlight { memory: &self.memory, region };
        self.device.serve(fabric, queue as u16, &memory, 0).expect("a ring in order")
    }

    /// Sends a frame through the first pair of queues.
    pub fn send(&mut self, fabric: &mut Fabric, header: [u8; HEADER], frame: &[u8]) {
        self.submit(1, &[&header[..], frame].concat(), 5000, 0);
        assert!(self.serve(fabric, 1).has_worked);
        self.rings[1].1.take_used(&self.memory).expect("the frame given back");
    }

    /// Does a command: what it is answered with.
    pub fn command(&mut self, fabric: &mut Fabric, queue: usize, bytes: &[u8]) -> u8 {
        self.memory.write(GuestAddress(RECEIVING - 16), &[0xff]).unwrap();
        self.submit(queue, bytes, bytes.len() / 100 + 2, 1);
        self.serve(fabric, queue);
        let (_, written) = self.rings[queue].1.take_used(&self.memory).expect("the command given back");
        assert_eq!(written, 1);
        let mut answer = [0];
        self.memory.read(GuestAddress(RECEIVING - 16), &mut answer).unwrap();
        answer[0]
    }

    /// What the device has given back of a receive queue, buffer by buffer.
    pub fn take(&mut self, queue: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((id, written)) = self.rings[queue].1.take_used(&self.memory) {
            let (at, len) = self.buffers.remove(&(queue, id)).expect("a buffer of ours");
            assert!(written <= len, "{written} bytes in a buffer of {len}");
            self.free.push(at);
            let mut bytes = vec![0; written as usize];
            self.memory.read(GuestAddress(at), &mut bytes).unwrap();
            all.push(bytes);
        }
        all
    }

    /// All frames that come to a receive queue into buffers of `len` bytes, with their headers.
    pub fn receive_by(&mut self, fabric: &mut Fabric, queue: usize, len: u32) -> Vec<([u8; HEADER], Vec<u8>)> {
        let mut frames = Vec::new();
        loop {
            self.offer(queue, QUEUE_SIZE.into(), len);
            let has_worked = self.serve(fabric, queue).has_worked;
            let mut buffers = self.take(queue).into_iter();
            while let Some(mut frame) = buffers.next() {
                let header: [u8; HEADER] = frame[..HEADER].try_into().unwrap();
                frame.drain(..HEADER);
                for _ in 1..u16::from_le_bytes([header[10], header[11]]) {
                    frame.extend(buffers.next().expect("as many buffers as the header says"));
                }
                frames.push((header, frame));
            }
            if !has_worked {
                return frames;
            }
        }
    }

    /// All frames that come, which must have nothing to be done about them.
    pub fn receive(&mut self, fabric: &mut Fabric) -> Vec<Vec<u8>> {
        let plain = |(header, frame)| {
            assert_eq!(header, PLAIN);
            frame
        };
        self.receive_by(fabric, 0, 1600).into_iter().map(plain).collect()
    }
}
