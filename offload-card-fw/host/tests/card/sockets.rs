//! Programs of the host and a guest, connected by the guest's sockets.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Duration,
};

use dragonfly_card_devices::vsock::{Header, Operation, STREAM, Shutdown as Stopped};
use dragonfly_virtqueue::{GuestAddress, GuestMemory, RingFeatures, host::Buffer};
use zerocopy::{
    FromBytes, IntoBytes,
    little_endian::{U16, U32, U64},
};

use crate::{Setup, front_end::*};

const MACHINE: &str = "[[vsock]]\nname = 'v'\ncid = 7\nsocket = 'v.sock'\nhost_socket = 'host.sock'\n";
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const HEADER: usize = size_of::<Header>();
const BUFFERS: u64 = 16;
/// Block of memory that packets are sent from.
const SEND_PLACE: u64 = 40;
/// Room that the guest's driver gives.
const ROOM: u32 = 3000;

/// A guest's socket driver.
struct Sockets {
    guest: Guest,
    _front_end: FrontEnd,
    buffers: BTreeMap<u16, u64>,
}

impl Sockets {
    fn new(setup: &Setup, layout: RingFeatures) -> Self {
        let mut guest = Guest::new(layout);
        let _front_end = FrontEnd::serve(&setup.path("v.sock"), &mut guest);
        let mut sockets = Self { guest, _front_end, buffers: BTreeMap::new() };
        (0..BUFFERS).for_each(|place| sockets.offer(place));
        sockets.guest.publish(RECEIVE);
        sockets
    }

    fn offer(&mut self, place: u64) {
        let buffer = Buffer::writable(REQUESTS_AT + place * REQUEST_BYTES, REQUEST_BYTES as u32);
        let id = self.guest.rings[RECEIVE].driver.add(&self.guest.ram, &[buffer], 1, None).unwrap();
        self.buffers.insert(id, place);
    }

    /// The next packet that comes, and its data.
    fn receive(&mut self) -> (Operation, Header, Vec<u8>) {
        let (id, len) = self.guest.wait_used(RECEIVE);
        let place = self.buffers.remove(&id).unwrap();
        let mut bytes = vec![0; len as usize];
        self.guest.ram.read(GuestAddress(REQUESTS_AT + place * REQUEST_BYTES), &mut bytes).unwrap();
        self.offer(place);
        self.guest.publish(RECEIVE);
        let header = Header::read_from_bytes(&bytes[..HEADER]).unwrap();
        assert_eq!((header.destination_cid.get(), header.source_cid.get()), (7, 2));
        assert_eq!(header.len.get() as usize, bytes.len() - HEADER);
        (Operation::of(&header).unwrap(), header, bytes.split_off(HEADER))
    }

    /// The next packet but for those that tell of credit only.
    fn next(&mut self) -> (Operation, Header, Vec<u8>) {
        loop {
            let packet = self.receive();
            if !matches!(packet.0, Operation::CreditUpdate | Operation::CreditRequest) {
                return packet;
            }
        }
    }

    fn send(&mut self, ports: (u32, u32), operation: Operation, change: impl FnOnce(&mut Header), data: &[u8]) {
        let mut header = Header {
            source_cid: U64::new(7),
            destination_cid: U64::new(2),
            source_port: U32::new(ports.0),
            destination_port: U32::new(ports.1),
            len: U32::new(data.len() as u32),
            kind: U16::new(STREAM),
            operation: U16::new(operation as u16),
            room: U32::new(ROOM),
            ..Header::default()
        };
        change(&mut header);
        let at = REQUESTS_AT + SEND_PLACE * REQUEST_BYTES;
        self.guest.ram.write(GuestAddress(at), &[header.as_bytes(), data].concat()).unwrap();
        let buffer = Buffer::readable(at, (HEADER + data.len()) as u32);
        self.guest.rings[TRANSMIT].driver.add(&self.guest.ram, &[buffer], 1, None).unwrap();
        self.guest.publish(TRANSMIT);
        self.guest.wait_used(TRANSMIT);
    }

    /// Takes the connection that a program asks for at port 5000: the ports.
    fn taken(&mut self, program: &mut UnixStream) -> (u32, u32) {
        let (operation, header, _) = self.receive();
        assert_eq!((operation, header.destination_port.get()), (Operation::Request, 5000));
        let ports = (5000, header.source_port.get());
        self.send(ports, Operation::Response, |_| {}, &[]);
        assert_eq!(line(program), format!("OK {}\n", ports.1));
        ports
    }
}

fn program(setup: &Setup, first: &str) -> UnixStream {
    let mut stream = UnixStream::connect(setup.path("host.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(first.as_bytes()).unwrap();
    stream
}

fn line(stream: &mut UnixStream) -> String {
    let mut line = vec![];
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn a_program_reaches_a_guests_port_and_each_gets_what_the_other_sends() {
    for layout in [RingFeatures::empty(), RingFeatures::RING_PACKED] {
        let setup = Setup::of(MACHINE);
        let mut guest = Sockets::new(&setup, layout);
        let mut program = program(&setup, "CONNECT 5000\nfirst ");
        let ports = guest.taken(&mut program);
        let all = content(100_000);
        let sent = all.clone();
        let sender = thread::spawn(move || {
            program.write_all(&sent).unwrap();
            program.shutdown(Shutdown::Write).unwrap();
            let mut answer = vec![];
            program.read_to_end(&mut answer).unwrap();
            answer
        });
        let mut got = vec![];
        loop {
            let (operation, header, data) = guest.next();
            if operation == Operation::Shutdown {
                assert_eq!(header.flags.get(), Stopped::SEND.bits());
                break;
            }
            got.extend(data);
            let taken = got.len() as u32;
            guest.send(ports, Operation::CreditUpdate, |header| header.forwarded = U32::new(taken), &[]);
        }
        assert!(got == [b"first ", &all[..]].concat(), "{} bytes came, or others", got.len());
        let taken = U32::new(got.len() as u32);
        guest.send(ports, Operation::Data, |header| header.forwarded = taken, &all[..2000]);
        let both = U32::new(Stopped::all().bits());
        guest.send(ports, Operation::Shutdown, |header| (header.forwarded, header.flags) = (taken, both), &[]);
        assert_eq!(guest.next().0, Operation::Reset);
        assert!(sender.join().unwrap() == all[..2000]);
    }
}

#[test]
fn a_program_that_does_not_read_holds_up_its_own_connection_only() {
    let setup = Setup::of(MACHINE);
    let mut guest = Sockets::new(&setup, RingFeatures::empty());
    let mut lazy = program(&setup, "CONNECT 5000\n");
    let ports = guest.taken(&mut lazy);
    let all = content(2 << 20);
    // Until the sockets between are full, and there is no credit for more.
    let (mut sent, mut credit) = (0_u32, 32 << 10);
    while credit > 0 {
        let len = credit.min(3000);
        guest.send(ports, Operation::Data, |_| {}, &all[sent as usize..][..len as usize]);
        sent += len;
        guest.send(ports, Operation::CreditRequest, |_| {}, &[]);
        let (operation, header, _) = guest.receive();
        assert_eq!(operation, Operation::CreditUpdate);
        credit = (header.room.get() + header.forwarded.get()).wrapping_sub(sent);
        assert!((sent as usize) < all.len(), "there is always credit");
    }
    let mut other = program(&setup, "CONNECT 5000\n");
    guest.taken(&mut other);
    let mut got = vec![0; sent as usize];
    lazy.read_exact(&mut got).unwrap();
    assert!(got == all[..sent as usize]);
}

#[test]
fn a_guest_reaches_programs_that_listen_and_no_others() {
    let setup = Setup::of(MACHINE);
    let listener = UnixListener::bind(setup.path("host.sock_80")).unwrap();
    let mut guest = Sockets::new(&setup, RingFeatures::empty());
    guest.send((1000, 81), Operation::Request, |_| {}, &[]);
    assert_eq!(guest.next().0, Operation::Reset);
    guest.send((1000, 80), Operation::Request, |_| {}, &[]);
    assert_eq!(guest.next().0, Operation::Response);
    let (mut program, _) = listener.accept().unwrap();
    guest.send((1000, 80), Operation::Data, |_| {}, b"hello");
    let mut got = [0; 5];
    program.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    program.write_all(b"and goodbye").unwrap();
    drop(program);
    assert_eq!(guest.next().2, b"and goodbye");
    let (operation, header, _) = guest.next();
    assert_eq!((operation, header.flags.get()), (Operation::Shutdown, Stopped::all().bits()));
}

#[test]
fn what_is_no_greeting_or_is_refused_finds_its_socket_closed() {
    let setup = Setup::of(MACHINE);
    let mut guest = Sockets::new(&setup, RingFeatures::empty());
    for first in
        ["\n", "CONNECT\n", "CONNECT 4294967296\n", "CONNECT -1\n", "connect 1\n", "CONNECT 00000000000000000001\n"]
    {
        let mut program = program(&setup, first);
        assert!(matches!(program.read(&mut [0]), Ok(0) | Err(_)), "{first}");
    }
    let mut program = program(&setup, "CONNECT 5000\n");
    let (_, header, _) = guest.receive();
    guest.send((5000, header.source_port.get()), Operation::Reset, |_| {}, &[]);
    assert_eq!(program.read(&mut [0]).unwrap(), 0);
    // The socket goes with the card.
    let path = setup.path("host.sock");
    setup.end();
    assert!(!path.exists());
}
