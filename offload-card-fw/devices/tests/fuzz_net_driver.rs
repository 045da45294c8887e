//! A hostile driver of a network device writes anything into its rings, headers, frames and commands, for
//! `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! Its queues may stop, but the card never panics, and another guest on the same switch is served all the while.

mod common;

use std::time::Instant;

use common::ring_config;
use dragonfly_card_devices::{Control, Fabric, NetDevice, Serve, tables::Devices};
use dragonfly_random::{Random, fuzz_end};
use dragonfly_settings::Document;
use dragonfly_vhost_user::Device;
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, QueueConfig, RingFeatures,
    host::{Buffer, Driver, HostMemory, config_at, driver},
};
use dragonfly_vswitch::MacAddress;

const SIZE: u16 = 16;
const RING_BYTES: u64 = 0x400;
const DATA: u64 = 0x4000;
const DATA_BYTES: u64 = 0x8000;
/// 12 bytes of header and a frame that says nothing.
const FRAME_BYTES: u32 = 76;
const QUEUES: u16 = 5;

/// A guest: its device, and its driver's side of all rings.
struct Guest {
    device: NetDevice,
    memory: HostMemory,
    rings: Vec<(QueueConfig, Box<dyn Driver<HostMemory>>)>,
    mac: MacAddress,
}

impl Guest {
    fn new(devices: &Devices, fabric: &mut Fabric, features: u64) -> Self {
        let port = fabric.add_machine(devices).unwrap()[0];
        let device = NetDevice::new(&devices.nets[0], port, Control::Card);
        let memory = HostMemory::new(&[(0, (DATA + DATA_BYTES) as usize)]);
        let mut guest = Self { device, memory, rings: Vec::new(), mac: devices.nets[0].mac };
        guest.device.set_features(features);
        for index in 0..QUEUES {
            let at = RING_BYTES * u64::from(index);
            let config = config_at(at, SIZE, RingFeatures::from_bits_truncate(features));
            guest.rings.push((config, driver(&config, &guest.memory)));
            guest.start(index);
        }
        guest.device.rings_changed(fabric);
        guest
    }

    fn start(&mut self, index: u16) {
        let (config, _) = &self.rings[usize::from(index)];
        self.device.start_ring(index, ring_config(config)).unwrap();
    }

    /// Begins with a ring anew.
    fn renew(&mut self, index: u16) {
        self.device.stop_ring(index);
        let (config, ring) = &mut self.rings[usize::from(index)];
        *ring = driver(config, &self.memory);
        self.start(index);
    }

    fn add(&mut self, index: u16, buffers: &[Buffer]) {
        let (_, driver) = &mut self.rings[usize::from(index)];
        driver.add(&self.memory, buffers, buffers.len(), None);
        driver.publish(&self.memory);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write(GuestAddress(at), bytes).unwrap();
    }
}

/// A frame that might be one, behind a header that might be one.
fn bytes(random: &mut Random, from: MacAddress, to: MacAddress) -> Vec<u8> {
    let header = [
        random.choose(&[0, 1, 1, 2, 0xff]),
        random.choose(&[0, 1, 3, 4, 5, 0x81]),
        0,
        0,
        random.number() as u8,
        random.choose(&[0, 0, 5, 0xff]),
        random.choose(&[34, 54, 14, 0xff]),
        random.choose(&[0, 0, 0, 0xff]),
        random.choose(&[6, 16, 0, 0xff]),
        random.choose(&[0, 0, 0, 0xff]),
        0,
        0,
    ];
    let len = random.index(3000);
    let (ethertype, mut ip) = match random.below(3) {
        0 => ([8, 0], vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]),
        1 => ([0x86, 0xdd], [&[0x60, 0, 0, 0, 0, 0, 17, 64][..], &[0xfd; 32]].concat()),
        _ => ([0x81, 0], vec![0, 7, 8, 0]),
    };
    let total = (ip.len() + len) as u16;
    if ethertype == [8, 0] {
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[9] = random.choose(&[6, 17, 1]);
    } else if ethertype == [0x86, 0xdd] {
        ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        ip[6] = random.choose(&[6, 17, 58]);
    }
    let mut data: Vec<u8> = (0..len).map(|_| random.number() as u8).collect();
    if let Some(offset) = data.get_mut(12) {
        *offset = random.choose(&[0x50, 0x80, 0xf0, 0]);
    }
    let mut all = [&header[..], &to.0, &from.0, &ethertype, &ip, &data].concat();
    for _ in 0..random.below(3) {
        let place = random.index(all.len().min(100));
        all[place] = random.number() as u8;
    }
    all
}

/// What the hostile driver does next.
fn attack(guest: &mut Guest, victim: MacAddress, random: &mut Random) {
    let at = DATA + random.below(DATA_BYTES - 0x2000);
    let queue = random.below(u64::from(QUEUES)) as u16;
    match random.below(8) {
        // A ring of anything.
        0 => {
            let ring = RING_BYTES * random.below(u64::from(QUEUES)) + random.below(RING_BYTES - 8);
            guest.write(ring, &random.awkward().to_le_bytes());
        }
        1 | 2 => {
            let bytes = bytes(random, guest.mac, victim);
            guest.write(at, &bytes);
            let cut = 1 + random.below(bytes.len() as u64 - 1) as u32;
            let buffers = [Buffer::readable(at, cut), Buffer::readable(at + u64::from(cut), bytes.len() as u32 - cut)];
            guest.add(random.choose(&[1, 3]), &buffers);
        }
        3 => {
            let command: Vec<u8> = (0..random.below(20)).map(|_| random.below(8) as u8).collect();
            guest.write(at, &command);
            let buffers = [Buffer::readable(at, command.len() as u32), Buffer::writable(at + 100, 1)];
            guest.add(4, &buffers[usize::from(command.is_empty())..]);
        }
        4 => guest.add(queue, &[Buffer::writable(at, random.below(200) as u32)]),
        5 => guest.add(queue, &[Buffer::writable(random.awkward() & 0xffff_ffff, 1 + random.below(3000) as u32)]),
        // Chains of several buffers, some of which are not there.
        6 => {
            let buffers = [0, 1, 2].map(|_| Buffer {
                address: if random.once_in(4) { u64::MAX / 2 } else { at },
                len: 1 + random.below(500) as u32,
                is_writable: queue.is_multiple_of(2),
            });
            guest.add(queue, &buffers);
        }
        // It never looks at what was given back, so its rings fill up.
        _ => guest.renew(queue),
    }
}

/// The next frame that comes to an honest guest, with its header.
fn next(guest: &mut Guest, fabric: &mut Fabric) -> Option<Vec<u8>> {
    guest.add(0, &[Buffer::writable(DATA, 0x2000)]);
    guest.device.serve(fabric, 0, &guest.memory, 0).unwrap();
    let (_, written) = guest.rings[0].1.take_used(&guest.memory)?;
    let mut bytes = vec![0; written as usize];
    guest.memory.read(GuestAddress(DATA), &mut bytes).unwrap();
    Some(bytes)
}

/// An honest guest sends a frame, which it gives back.
fn send(sender: &mut Guest, to: MacAddress, fabric: &mut Fabric, number: u8) -> Vec<u8> {
    let mut frame = [&[0; 12][..], &to.0, &sender.mac.0, &[0x88, 0xb5]].concat();
    frame.resize(FRAME_BYTES as usize, number);
    sender.write(DATA, &frame);
    sender.add(1, &[Buffer::readable(DATA, FRAME_BYTES)]);
    sender.device.serve(fabric, 1, &sender.memory, 0).unwrap();
    sender.rings[1].1.take_used(&sender.memory).expect("the frame given back");
    frame
}

#[test]
fn whatever_a_driver_writes_others_are_served() {
    let end = fuzz_end();
    let mut random = Random::new(1);
    let (mut stopped, mut worked, mut passed) = (0, 0, 0);
    while Instant::now() < end {
        let mut fabric = Fabric::new(random.number());
        let machine = |number: u8| {
            let text = format!("[[net]]\nname = 'n'\nqueues = 2\nmac = '52:54:00:00:00:0{number}'");
            Devices::read(&Document::parse("", &text).unwrap().top(), &[], |_| None).unwrap()
        };
        let layout = if random.below(2) == 0 { RingFeatures::RING_PACKED } else { RingFeatures::empty() };
        let probe = NetDevice::new(&machine(1).nets[0], dragonfly_vswitch::PortId(0), Control::Card);
        let all = probe.features() & !RingFeatures::RING_PACKED.bits() | layout.bits();
        let plain = RingFeatures::VERSION_1.bits();
        let mut sender = Guest::new(&machine(1), &mut fabric, plain);
        let mut receiver = Guest::new(&machine(2), &mut fabric, plain);
        let mut hostile = Guest::new(&machine(3), &mut fabric, all);
        for step in 0..200_u8 {
            for _ in 0..random.below(4) {
                attack(&mut hostile, receiver.mac, &mut random);
            }
            for index in 0..QUEUES {
                match hostile.device.serve(&mut fabric, index, &hostile.memory, 0) {
                    Ok(service) => worked += u32::from(service.has_worked),
                    // Its front end starts the ring anew.
                    Err(_) => {
                        stopped += 1;
                        hostile.renew(index);
                        hostile.device.rings_changed(&mut fabric);
                    }
                }
                hostile.device.enable_kicks(index, &hostile.memory);
            }
            // It may take it or not.
            send(&mut sender, hostile.mac, &mut fabric, step);
            // What the hostile guest has sent.
            while next(&mut receiver, &mut fabric).is_some() {
                passed += 1;
            }
            let sent = send(&mut sender, receiver.mac, &mut fabric, step);
            let came = next(&mut receiver, &mut fabric).expect("an honest guest's frame");
            assert_eq!(came[12..], sent[12..]);
        }
    }
    assert!(stopped > 10 && worked > 100 && passed > 10, "{stopped} {worked} {passed}");
}
