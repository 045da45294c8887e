//! A front end as small as one can be: it shares a file in memory, and plays the guest's driver in it.

use std::{
    io::{IoSlice, IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use dragonfly_vhost_user::{
    F_PROTOCOL_FEATURES, HEADER_LEN, Header, ProtocolFeatures, Region, Request,
    wire::{InflightArea, VringAddress, VringState},
};
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, QueueConfig, RingFeatures,
    host::{Buffer, Driver, config_at, driver},
};
use offload_card::shared_memory::GuestRam;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{MemfdFlags, ftruncate, memfd_create},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub const RAM_BYTES: u64 = 1 << 20;
/// Where the front end says that it has the memory mapped.
pub const USER_BASE: u64 = 0x7f00_0000_0000;
pub const QUEUE_SIZE: u16 = 64;
/// Two rings, a page for each request's header and status, and a sector of data.
const RING_AT: [u64; 2] = [0x1000, 0x8000];
pub const REQUESTS_AT: u64 = 0x1_0000;
pub const REQUEST_BYTES: u64 = 0x1000;

pub const READ: u32 = 0;
pub const WRITE: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;

const BLK_F_FLUSH: u64 = 1 << 9;

/// What a guest has, and what outlives its connections.
pub struct Guest {
    pub file: OwnedFd,
    pub ram: GuestRam,
    pub in_flight: Option<(OwnedFd, InflightArea)>,
    pub features: RingFeatures,
    pub rings: Vec<GuestRing>,
}

/// A ring with its driver.
pub struct GuestRing {
    pub config: QueueConfig,
    pub driver: Box<dyn Driver<GuestRam>>,
    pub kick: OwnedFd,
    pub call: OwnedFd,
    pub err: OwnedFd,
}

impl Guest {
    pub fn new(layout: RingFeatures) -> Self {
        let features = layout | RingFeatures::VERSION_1 | RingFeatures::EVENT_IDX;
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, RAM_BYTES).unwrap();
        let mut ram = GuestRam::default();
        ram.add(&region(), &file).unwrap();
        let rings = RING_AT.map(|base| {
            let config = config_at(base, QUEUE_SIZE, features);
            let event = || eventfd(0, EventfdFlags::NONBLOCK).unwrap();
            GuestRing { config, driver: driver(&config, &ram), kick: event(), call: event(), err: event() }
        });
        Self { file, ram, in_flight: None, features, rings: rings.into() }
    }

    /// Makes a request of block `place` of memory available on ring `queue`: its number.
    pub fn add(&mut self, queue: usize, place: u64, kind: u32, sector: u64, data_len: u32) -> Option<u16> {
        let at = REQUESTS_AT + place * REQUEST_BYTES;
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.ram.write(GuestAddress(at), &header).unwrap();
        self.ram.write(GuestAddress(at + 16), &[0xff]).unwrap();
        let data = Buffer { address: at + 512, len: data_len, is_writable: kind != WRITE };
        let buffers = [Buffer::readable(at, 16), data, Buffer::writable(at + 16, 1)];
        let buffers: Vec<_> = buffers.into_iter().filter(|buffer| buffer.len > 0).collect();
        let direct = buffers.len();
        self.rings[queue].driver.add(&self.ram, &buffers, direct, None)
    }

    pub fn publish(&mut self, queue: usize) {
        let ring = &mut self.rings[queue];
        ring.driver.enable_notifications(&self.ram);
        if ring.driver.publish(&self.ram) {
            rustix::io::write(&ring.kick, &1u64.to_ne_bytes()).unwrap();
        }
    }

    /// Waits for the next chain that the card gives back.
    pub fn wait_used(&mut self, queue: usize) -> (u16, u32) {
        let ring = &mut self.rings[queue];
        loop {
            if let Some(used) = ring.driver.take_used(&self.ram) {
                return used;
            }
            if !ring.driver.enable_notifications(&self.ram) {
                wait(&ring.call, "a call");
                let mut count = [0; 8];
                let _ = rustix::io::read(&ring.call, &mut count);
            }
        }
    }

    pub fn status(&self, place: u64) -> u8 {
        let mut status = [0];
        self.ram.read(GuestAddress(REQUESTS_AT + place * REQUEST_BYTES + 16), &mut status).unwrap();
        status[0]
    }

    pub fn fill(&self, place: u64, bytes: &[u8]) {
        self.ram.write(GuestAddress(REQUESTS_AT + place * REQUEST_BYTES + 512), bytes).unwrap();
    }

    pub fn data(&self, place: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.read(GuestAddress(REQUESTS_AT + place * REQUEST_BYTES + 512), &mut bytes).unwrap();
        bytes
    }

    /// One request from beginning to end: its status.
    pub fn request(&mut self, queue: usize, kind: u32, sector: u64, data_len: u32) -> u8 {
        self.add(queue, 0, kind, sector, data_len).unwrap();
        self.publish(queue);
        self.wait_used(queue);
        self.status(0)
    }
}

/// All of the guest's memory.
pub fn region() -> Region {
    Region { guest_address: 0, size: RAM_BYTES, user_address: USER_BASE, mmap_offset: 0 }
}

/// Waits until something can be read, ten seconds at most.
pub fn wait(descriptor: impl AsFd, what: &str) {
    let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&timeout)), Ok(1), "no {what} came");
}

/// A connection to the card.
pub struct FrontEnd {
    pub stream: UnixStream,
    /// Extensions that both sides use.
    extensions: ProtocolFeatures,
}

impl FrontEnd {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream, extensions: ProtocolFeatures::empty() }
    }

    /// Connects and does all that lets the card serve the guest's rings.
    pub fn serve(socket: &Path, guest: &mut Guest) -> Self {
        let mut front_end = Self::connect(socket);
        front_end.negotiate(guest.features);
        front_end.set_memory(&[region()], &[guest.file.as_fd()]);
        front_end.share_in_flight(guest);
        for index in 0..guest.rings.len() {
            front_end.start_ring(index as u32, guest);
        }
        front_end.sync();
        front_end
    }

    pub fn negotiate(&mut self, features: RingFeatures) {
        let offered = self.ask_number(Request::GetFeatures);
        assert_eq!(features.bits() & !offered, 0, "the card does not offer {features:?}");
        self.extensions = ProtocolFeatures::from_bits_truncate(self.ask_number(Request::GetProtocolFeatures));
        self.tell(Request::SetProtocolFeatures, &self.extensions.bits(), &[]);
        self.tell(Request::SetOwner, &(), &[]);
        // With a disk's cache.
        self.tell(Request::SetFeatures, &(features.bits() | F_PROTOCOL_FEATURES | offered & BLK_F_FLUSH), &[]);
    }

    pub fn set_memory(&mut self, regions: &[Region], files: &[BorrowedFd<'_>]) {
        let payload = [(regions.len() as u64).as_bytes(), regions.as_bytes()].concat();
        self.tell(Request::SetMemTable, payload.as_slice(), files);
    }

    fn share_in_flight(&mut self, guest: &mut Guest) {
        if !self.extensions.contains(ProtocolFeatures::INFLIGHT_SHMFD) {
            return;
        }
        if guest.in_flight.is_none() {
            let queues = guest.rings.len() as u16;
            let wanted = InflightArea { mmap_size: 0, mmap_offset: 0, queues, queue_size: QUEUE_SIZE, padding: 0 };
            let (answer, file) = self.ask(Request::GetInflightFd, wanted.as_bytes());
            guest.in_flight = Some((file.unwrap(), InflightArea::read_from_bytes(&answer).unwrap()));
        }
        let (file, area) = guest.in_flight.as_ref().unwrap();
        self.tell(Request::SetInflightFd, area, &[file.as_fd()]);
    }

    /// Starts a ring at its beginning; one that was in use goes on where the memory for what is in flight says.
    pub fn start_ring(&mut self, index: u32, guest: &Guest) {
        let ring = &guest.rings[index as usize];
        let user = |address: GuestAddress| USER_BASE + address.0;
        let QueueConfig { addresses, state, size, .. } = ring.config;
        let base = state.to_vring_base(ring.config.is_packed());
        let place = VringAddress {
            index,
            flags: 0,
            descriptor: user(addresses.descriptors),
            used: user(addresses.device),
            available: user(addresses.driver),
            log: 0,
        };
        self.tell(Request::SetVringNum, &VringState { index, num: size.into() }, &[]);
        self.tell(Request::SetVringBase, &VringState { index, num: base }, &[]);
        self.tell(Request::SetVringAddr, &place, &[]);
        self.tell(Request::SetVringCall, &u64::from(index), &[ring.call.as_fd()]);
        self.tell(Request::SetVringErr, &u64::from(index), &[ring.err.as_fd()]);
        self.tell(Request::SetVringKick, &u64::from(index), &[ring.kick.as_fd()]);
        self.tell(Request::SetVringEnable, &VringState { index, num: 1 }, &[]);
    }

    /// Waits until the card has handled all that was said.
    pub fn sync(&mut self) {
        self.ask(Request::GetQueueNum, &[]);
    }

    pub fn send(&mut self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(files));
        }
        // The card may have closed the connection already; whoever waits for an answer will see.
        let _ = sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
    }

    pub fn tell<T: IntoBytes + Immutable + ?Sized>(&mut self, request: Request, payload: &T, files: &[BorrowedFd<'_>]) {
        let header = Header { request, needs_reply: false, payload_len: payload.as_bytes().len() };
        self.send(&[&header.to_bytes(), payload.as_bytes()].concat(), files);
    }

    fn ask_number(&mut self, request: Request) -> u64 {
        u64::read_from_bytes(&self.ask(request, &[]).0).unwrap()
    }

    /// The answer's payload, and the file that came along.
    pub fn ask(&mut self, request: Request, payload: &[u8]) -> (Vec<u8>, Option<OwnedFd>) {
        self.tell(request, payload, &[]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut header = [0; HEADER_LEN];
        let received =
            recvmsg(&self.stream, &mut [IoSliceMut::new(&mut header)], &mut control, RecvFlags::CMSG_CLOEXEC);
        assert_eq!(received.unwrap().bytes, HEADER_LEN, "no answer to {request:?}");
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let len = u32::read_from_bytes(&header[8..]).unwrap();
        let mut answer = vec![0; len as usize];
        self.stream.read_exact(&mut answer).unwrap();
        (answer, file)
    }

    /// Waits until the card has closed the connection.
    pub fn expect_closed(mut self, why: &str) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(0) => {}
            // It had more of what was sent to it unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("{why}: {other:?} in place of an end"),
        }
    }
}
