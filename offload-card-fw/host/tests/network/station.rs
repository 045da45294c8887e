//! A guest's network device, as the packages of a network stack use one.

use std::collections::BTreeMap;

use dragonfly_virtqueue::{GuestAddress, GuestMemory, RingFeatures, host::Buffer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

use crate::{front_end::*, setup::Setup};

const HEADER: usize = 12;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Blocks of memory for each direction: of either ring, half.
const BLOCKS: u64 = 32;
const ETHERNET: usize = 14;

/// A device, and who has its blocks of memory, by the numbers of their chains.
pub struct Station {
    guest: Guest,
    _front_end: FrontEnd,
    mtu: usize,
    receiving: BTreeMap<u16, u64>,
    sending: BTreeMap<u16, u64>,
    free: Vec<u64>,
}

impl Station {
    /// The one at this socket, for packets of this length.
    pub fn new(setup: &Setup, socket: &str, layout: RingFeatures, mtu: usize) -> Self {
        let mut guest = Guest::new(layout);
        let _front_end = FrontEnd::serve(&setup.path(socket), &mut guest);
        let free = (BLOCKS..2 * BLOCKS).collect();
        let mut station = Self { guest, _front_end, mtu, receiving: BTreeMap::new(), sending: BTreeMap::new(), free };
        (0..BLOCKS).for_each(|block| station.offer(block));
        station.guest.publish(RECEIVE);
        station
    }

    fn offer(&mut self, block: u64) {
        let buffer = Buffer::writable(REQUESTS_AT + block * REQUEST_BYTES, REQUEST_BYTES as u32);
        let id = self.guest.rings[RECEIVE].driver.add(&self.guest.ram, &[buffer], 1, None).unwrap();
        self.receiving.insert(id, block);
    }

    /// The next frame that has come.
    pub fn receive_frame(&mut self) -> Option<Vec<u8>> {
        let (id, len) = self.guest.rings[RECEIVE].driver.take_used(&self.guest.ram)?;
        let block = self.receiving.remove(&id).unwrap();
        let mut bytes = vec![0; len as usize];
        self.guest.ram.read(GuestAddress(REQUESTS_AT + block * REQUEST_BYTES), &mut bytes).unwrap();
        self.offer(block);
        self.guest.publish(RECEIVE);
        bytes.drain(..HEADER);
        Some(bytes)
    }

    /// Takes back what was sent. Whether there is room.
    fn has_room(&mut self) -> bool {
        while let Some((id, _)) = self.guest.rings[TRANSMIT].driver.take_used(&self.guest.ram) {
            self.free.extend(self.sending.remove(&id));
        }
        !self.free.is_empty()
    }

    /// Sends a frame; there must be room.
    fn send_frame(&mut self, frame: &[u8]) {
        let block = self.free.pop().unwrap();
        let at = REQUESTS_AT + block * REQUEST_BYTES;
        self.guest.ram.write(GuestAddress(at), &[&[0; HEADER], frame].concat()).unwrap();
        let buffer = Buffer::readable(at, (HEADER + frame.len()) as u32);
        let id = self.guest.rings[TRANSMIT].driver.add(&self.guest.ram, &[buffer], 1, None).unwrap();
        self.sending.insert(id, block);
        self.guest.publish(TRANSMIT);
    }

    /// Waits until the card calls, a few milliseconds at most.
    pub fn wait(&self) {
        let [receive, transmit] = [RECEIVE, TRANSMIT].map(|ring| &self.guest.rings[ring].call);
        let mut calls = [PollFd::new(receive, PollFlags::IN), PollFd::new(transmit, PollFlags::IN)];
        let _ = poll(&mut calls, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
        for call in [receive, transmit] {
            let _ = rustix::io::read(call, &mut [0; 8]);
        }
    }
}

pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub struct Sending<'a>(&'a mut Station);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send_frame(&frame);
        result
    }
}

impl Device for Station {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        // What comes may be answered.
        let frame = if self.has_room() { self.receive_frame()? } else { return None };
        Some((Received(frame), Sending(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.has_room().then_some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET;
        capabilities
    }
}
