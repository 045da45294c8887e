//! The card without a kernel: VMMs that send it messages, guests whose memory is the host's.

mod operator;
mod physical;
mod sessions;
mod tables;

use std::cell::Cell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use dragonfly_card_devices::{Fabric, GuestAccess, Pools, SharedDisk};
use dragonfly_card_gate::Answer;
use dragonfly_rt::sync::Mutex;
use dragonfly_vhost_user::wire::{InflightArea, VringAddress};
use dragonfly_vhost_user::{
    F_PROTOCOL_FEATURES, FrontEnd, Inflight, MAX_MESSAGE, Platform, ProtocolFeatures, Region, Transport,
};
use dragonfly_virtqueue::host::{Buffer, Driver, HostMemory, config_at, driver};
use dragonfly_virtqueue::{GuestAddress, GuestMemory, GuestSlice, MemoryError, QueueConfig, RingFeatures};

use crate::card::{self, Card, Client};
use crate::machines::{self, Machine, Stores};
use crate::port::Resources;

const RAM: u64 = 0x2_0000;
const RING: u64 = 0x1_0000;
const SIZE: u16 = 8;
const VERSION_1: u64 = 1 << 32;

/// What a VMM lends the card: its guest's memory, and what tells of its end.
#[derive(Clone)]
struct Lent {
    ram: Rc<HostMemory>,
    is_gone: Rc<Cell<bool>>,
    calls: Rc<Cell<u32>>,
    config_changes: Rc<Cell<u32>>,
}

impl Lent {
    fn new() -> Self {
        Self {
            ram: Rc::new(HostMemory::new(&[(0, RAM as usize)])),
            is_gone: Rc::default(),
            calls: Rc::default(),
            config_changes: Rc::default(),
        }
    }
}

/// A guest that is reached through what its VMM has sent.
#[derive(Default)]
struct FakePlatform {
    lent: Option<Lent>,
    channel: Option<Lent>,
}

/// Guest memory as far as there is some.
struct FakeMemory<'a>(Option<&'a HostMemory>);

impl GuestMemory for FakeMemory<'_> {
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.0.ok_or(MemoryError::Unmapped(address))?.piece(address, limit)
    }
}

impl Platform for FakePlatform {
    type Resource = Lent;
    type Error = &'static str;

    fn map(&mut self, _region: &Region, lent: Lent) -> Result<(), &'static str> {
        self.lent = Some(lent);
        Ok(())
    }

    fn unmap(&mut self, _region: &Region) {
        self.lent = None;
    }

    fn set_kick(&mut self, _index: u16, _kick: Option<Lent>) {}

    fn set_call(&mut self, _index: u16, _call: Option<Lent>) {}

    fn set_err(&mut self, _index: u16, _err: Option<Lent>) {}

    fn set_back_end_channel(&mut self, channel: Lent) {
        self.channel = Some(channel);
        self.report_config_change();
    }

    fn make_inflight(&mut self, _area: &InflightArea) -> Result<Inflight<Lent>, &'static str> {
        Err("not here")
    }

    fn map_inflight(&mut self, _area: &InflightArea, _lent: Lent) -> Result<(), &'static str> {
        Ok(())
    }
}

impl GuestAccess for FakePlatform {
    type Memory<'a> = FakeMemory<'a>;

    fn memory(&self, _index: u16) -> FakeMemory<'_> {
        FakeMemory(self.lent.as_ref().map(|lent| &*lent.ram))
    }

    fn is_polled(&self, _index: u16) -> bool {
        false
    }

    fn call(&self, _index: u16) {
        if let Some(lent) = &self.lent {
            lent.calls.set(lent.calls.get() + 1);
        }
    }

    fn report_broken(&self, _index: u16) {}

    fn report_config_change(&self) {
        if let Some(channel) = &self.channel {
            channel.config_changes.set(channel.config_changes.get() + 1);
        }
    }
}

impl Client for FakePlatform {
    fn is_gone(&self) -> bool {
        self.lent.as_ref().is_some_and(|lent| lent.is_gone.get())
    }
}

type FakeCard = Card<FakePlatform>;

/// The card of these machine files, with these physical disks.
fn card(files: &[(&str, &str)], disks: Vec<(String, SharedDisk)>) -> FakeCard {
    let bundle = bundle(files);
    let mut card = Card::new(Fabric::new(1));
    let mut stores = Stores { ram_bytes: 1 << 20, disks, pools: Pools::default() };
    for machine in machines::read(&bundle) {
        machines::add(&machine, &mut card, &bundle, &mut stores);
    }
    card
}

/// The machines of these files.
fn read(files: &[(&str, &str)]) -> Vec<Machine> {
    machines::read(&bundle(files))
}

/// An archive of these files, in the "newc" format.
fn bundle(files: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in files.iter().chain([&("TRAILER!!!", "")]) {
        let fields = [0, 0, 0, 0, 0, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        bytes.extend(format!("070701{header}{name}\0").bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(data.bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Carries messages of the VMM with this badge to one of its devices.
struct Wire<'c> {
    card: &'c Mutex<FakeCard>,
    badge: u64,
    device: u32,
}

impl Transport for Wire<'_> {
    type Resource = Lent;
    type Error = Answer;

    fn exchange(
        &mut self,
        message: &[u8],
        resources: &[Lent],
        answer: &mut [u8; MAX_MESSAGE],
    ) -> Result<usize, Answer> {
        let resources: Resources<Lent> = resources.iter().cloned().collect();
        let reply = card::message(self.card, self.badge, self.device, message, resources, FakePlatform::default)?;
        let bytes = reply.as_ref().map_or(&[][..], |reply| reply.bytes());
        answer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

fn front_end(card: &Mutex<FakeCard>, badge: u64, device: u32) -> FrontEnd<Wire<'_>> {
    FrontEnd::new(Wire { card, badge, device })
}

/// Sets a device up with one ring that runs.
fn begin(front: &mut FrontEnd<Wire<'_>>, lent: &Lent, index: u16) -> Box<dyn Driver<HostMemory>> {
    front.set_owner().unwrap();
    let features = front.features().unwrap() & (VERSION_1 | F_PROTOCOL_FEATURES);
    front.set_features(features).unwrap();
    front.set_protocol_features(ProtocolFeatures::CONFIG).unwrap();
    let region = Region { guest_address: 0, size: RAM, user_address: 0, mmap_offset: 0 };
    front.set_memory(&[(region, lent.clone())]).unwrap();
    let config: QueueConfig = config_at(RING, SIZE, RingFeatures::VERSION_1);
    front.set_ring_size(index, SIZE).unwrap();
    front.set_ring_base(index, 0).unwrap();
    let addresses = VringAddress {
        index: index.into(),
        flags: 0,
        descriptor: config.addresses.descriptors.0,
        used: config.addresses.device.0,
        available: config.addresses.driver.0,
        log: 0,
    };
    front.set_ring_addresses(&addresses).unwrap();
    front.set_call(index, Some(lent.clone())).unwrap();
    front.set_kick(index, Some(lent.clone())).unwrap();
    front.enable_ring(index, true).unwrap();
    driver(&config, &*lent.ram)
}

/// Asks a disk for its first sector, and has the worker serve a round; gives the status byte that comes back, if it does.
fn read_sector(card: &Mutex<FakeCard>, lent: &Lent, driver: &mut dyn Driver<HostMemory>) -> Option<u8> {
    ask_sector(lent, driver);
    card.lock().serve(0);
    status(lent, driver)
}

/// Asks a disk for its first sector.
fn ask_sector(lent: &Lent, driver: &mut dyn Driver<HostMemory>) {
    lent.ram.write(GuestAddress(0), &[0; 16]).unwrap();
    lent.ram.write(GuestAddress(0x1000), &[0xff]).unwrap();
    let buffers = vec![Buffer::readable(0, 16), Buffer::writable(0x800, 512), Buffer::writable(0x1000, 1)];
    driver.add(&lent.ram, &buffers, 3, None).unwrap();
    driver.publish(&lent.ram);
}

/// The status byte of a request that came back, if one did.
fn status(lent: &Lent, driver: &mut dyn Driver<HostMemory>) -> Option<u8> {
    driver.take_used(&lent.ram)?;
    let mut status = [0xff];
    lent.ram.read(GuestAddress(0x1000), &mut status).unwrap();
    Some(status[0])
}
