//! A program of the host, connected with a guest: a driver of virtio's sockets (virtio 1.2 5.10.6) on one side, a Unix
//! socket on the other.
//!
//! What the guest sends waits here while the program does not take it, and the guest has credit for no more. What the program
//! sends is left in its socket while the guest has no room.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net,
    os::unix::net::UnixStream,
};

use dragonfly_card_devices::vsock::{HOST_CID, Header, Operation, STREAM, Shutdown};
use zerocopy::little_endian::{U16, U32, U64};

use crate::socket::Happened;

/// Bytes that wait for the program, at most.
const ROOM: u32 = 32 << 10;
/// How much of that must be free again to tell the guest.
const WORTH_TELLING: u32 = ROOM / 4;
/// Bytes read at once.
const CHUNK: usize = 8 << 10;
/// The longest first line: `CONNECT`, a space, ten digits.
const MAX_LINE: usize = 18;

/// By what the host knows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub own_port: u32,
    pub peer_cid: u64,
    pub peer_port: u32,
}

impl Key {
    /// Of a packet for the host.
    pub(super) fn of(header: &Header) -> Self {
        Self {
            own_port: header.destination_port.get(),
            peer_cid: header.source_cid.get(),
            peer_port: header.source_port.get(),
        }
    }

    /// A packet for the guest.
    pub(super) fn header(self, operation: Operation) -> Header {
        Header {
            source_cid: U64::new(HOST_CID.into()),
            destination_cid: U64::new(self.peer_cid),
            source_port: U32::new(self.own_port),
            destination_port: U32::new(self.peer_port),
            kind: U16::new(STREAM),
            operation: U16::new(operation as u16),
            room: U32::new(ROOM),
            ..Header::default()
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The program is to say which port it wants; so much it has said.
    Greeted(Vec<u8>),
    /// The guest is to answer.
    Asked,
    /// Data goes both ways.
    Open,
    /// The program has closed its socket, and the guest was told so.
    Closing,
    Done,
}

/// A program's connection.
#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    key: Key,
    state: State,
    /// The socket may have something to read, and room to write; the program has closed it.
    can_read: bool,
    can_write: bool,
    is_closed: bool,
    /// The program sends no more, which the guest was told.
    has_ended: bool,
    /// The program was told that the guest sends no more.
    was_told: bool,
    /// For the program.
    waiting: VecDeque<u8>,
    /// Bytes that the program has taken, and how many of them the guest was told of; 2^32 is 0 again.
    forwarded: u32,
    told: u32,
    /// Bytes sent to the guest; what it has said of its room.
    sent: u32,
    peer_room: u32,
    peer_forwarded: u32,
    /// What the guest does no more.
    peer_stopped: Shutdown,
}

impl Stream {
    /// A program that has called, and says next which port it wants.
    pub(super) const fn greeted(socket: UnixStream, key: Key) -> Self {
        Self {
            socket,
            key,
            state: State::Greeted(Vec::new()),
            can_read: true,
            can_write: true,
            is_closed: false,
            has_ended: false,
            was_told: false,
            waiting: VecDeque::new(),
            forwarded: 0,
            told: 0,
            sent: 0,
            peer_room: 0,
            peer_forwarded: 0,
            peer_stopped: Shutdown::empty(),
        }
    }

    /// A program that a guest has called by this packet.
    pub(super) fn called(socket: UnixStream, key: Key, header: &Header) -> Self {
        let mut stream = Self { state: State::Open, ..Self::greeted(socket, key) };
        stream.note_credit(header);
        stream
    }

    pub(super) const fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub(super) const fn key(&self) -> Key {
        self.key
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Something has happened to the socket.
    pub(super) fn note(&mut self, happened: Happened) {
        self.can_read |= happened.is_readable;
        self.can_write |= happened.is_writable;
        self.is_closed |= happened.is_over;
    }

    fn note_credit(&mut self, header: &Header) {
        (self.peer_room, self.peer_forwarded) = (header.room.get(), header.forwarded.get());
    }

    /// Takes a packet of the guest's, with its data.
    pub(super) fn receive(&mut self, operation: Operation, header: &Header, data: &mut VecDeque<u8>) {
        self.note_credit(header);
        match operation {
            Operation::Response if self.state == State::Asked => {
                self.state = State::Open;
                self.waiting.extend(format!("OK {}\n", self.key.own_port).bytes());
                // The line is none of the guest's bytes.
                self.forwarded = self.forwarded.wrapping_sub(self.waiting.len() as u32);
            }
            // The program finds its socket closed: that is its answer. What was sent before it gets.
            Operation::Reset => {
                self.peer_stopped = Shutdown::all();
                if self.state != State::Open {
                    self.state = State::Done;
                }
            }
            Operation::Shutdown => self.peer_stopped |= Shutdown::from_bits_truncate(header.flags.get()),
            Operation::Data if self.state == State::Open => self.waiting.append(data),
            // The card is told by the next packet anyway that there is room.
            Operation::Data => self.forwarded = self.forwarded.wrapping_add(data.len() as u32),
            Operation::Request | Operation::Response | Operation::CreditUpdate | Operation::CreditRequest => {}
        }
    }

    /// Does what can be done now, and sends packets by `send`. Whether something was done.
    pub(super) fn advance(&mut self, send: &mut impl FnMut(&Header, &[u8])) -> bool {
        match self.state {
            State::Greeted(_) => self.listen(send),
            State::Open => {
                let has_written = self.write(send);
                let has_read = self.state == State::Open && self.read(send);
                has_written || has_read
            }
            // Whoever asked may have gone meanwhile.
            State::Asked if self.is_closed => {
                self.end(send);
                true
            }
            State::Asked | State::Closing | State::Done => false,
        }
    }

    fn end(&mut self, send: &mut impl FnMut(&Header, &[u8])) {
        send(&self.key.header(Operation::Reset), &[]);
        self.state = State::Done;
    }

    /// Reads the first line; byte by byte, as what follows is the guest's.
    fn listen(&mut self, send: &mut impl FnMut(&Header, &[u8])) -> bool {
        let State::Greeted(line) = &mut self.state else { return false };
        let mut has_worked = false;
        while self.can_read {
            let mut byte = [0];
            has_worked = true;
            match self.socket.read(&mut byte) {
                Err(error) if is_later(&error) => self.can_read = false,
                Ok(1) if byte == *b"\n" => {
                    self.state = match port(line) {
                        Some(port) => {
                            self.key.peer_port = port;
                            send(&self.key.header(Operation::Request), &[]);
                            State::Asked
                        }
                        None => State::Done,
                    };
                    return true;
                }
                Ok(1) if line.len() < MAX_LINE => line.extend(byte),
                _ => {
                    self.state = State::Done;
                    return true;
                }
            }
        }
        has_worked
    }

    /// Gives the program what the guest has sent.
    fn write(&mut self, send: &mut impl FnMut(&Header, &[u8])) -> bool {
        let mut has_worked = false;
        while self.can_write && !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match self.socket.write(first) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.forwarded = self.forwarded.wrapping_add(count as u32);
                }
                Err(error) if is_later(&error) => self.can_write = false,
                // Nobody takes it: as a guest's socket that is closed with data under way.
                Err(_) => {
                    self.end(send);
                    return true;
                }
            }
            has_worked = true;
        }
        if self.waiting.is_empty() && self.peer_stopped.contains(Shutdown::SEND) {
            if self.peer_stopped == Shutdown::all() {
                self.end(send);
            } else if !self.was_told {
                self.was_told = true;
                // A program that is gone need not be told.
                let _ = self.socket.shutdown(net::Shutdown::Write);
            }
        } else if self.forwarded.wrapping_sub(self.told) as i32 >= WORTH_TELLING as i32 {
            send(&self.packet(Operation::CreditUpdate), &[]);
        }
        has_worked
    }

    /// Gives the guest what the program has sent, as far as there is room.
    fn read(&mut self, send: &mut impl FnMut(&Header, &[u8])) -> bool {
        let mut has_worked = false;
        while self.can_read && !self.has_ended && !self.peer_stopped.contains(Shutdown::RECEIVE) {
            let credit = self.peer_room.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded)) as usize;
            let mut buffer = [0; CHUNK];
            let room = buffer.get_mut(..credit.min(CHUNK)).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            has_worked = true;
            match self.socket.read(room) {
                Err(error) if is_later(&error) => self.can_read = false,
                Ok(count) if count > 0 => {
                    let data = room.get(..count).unwrap_or_default();
                    self.sent = self.sent.wrapping_add(data.len() as u32);
                    send(&Header { len: U32::new(data.len() as u32), ..self.packet(Operation::Data) }, data);
                }
                // An error is an end like any other.
                _ => {
                    self.has_ended = true;
                    let what = if self.is_closed { Shutdown::all() } else { Shutdown::SEND };
                    send(&Header { flags: U32::new(what.bits()), ..self.packet(Operation::Shutdown) }, &[]);
                }
            }
        }
        if self.has_ended && self.is_closed {
            // Whatever it was told before.
            let flags = U32::new(Shutdown::all().bits());
            send(&Header { flags, ..self.packet(Operation::Shutdown) }, &[]);
            self.state = State::Closing;
            has_worked = true;
        }
        has_worked
    }

    fn packet(&mut self, operation: Operation) -> Header {
        self.told = self.forwarded;
        Header { forwarded: U32::new(self.forwarded), ..self.key.header(operation) }
    }
}

/// Whether a socket has nothing now, but may have later.
fn is_later(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// The port of a program's first line.
fn port(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?;
    std::str::from_utf8(digits).ok()?.trim_end_matches('\r').parse().ok()
}
