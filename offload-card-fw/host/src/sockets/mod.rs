//! Sockets between programs of the host and guests.
//!
//! A program connects to a guest's Unix socket and writes `CONNECT` and a port; the answer `OK` with its own port comes when
//! the guest has taken the connection, and then the stream. What a guest connects to at port N of the host is the socket
//! whose path has `_N` at its end. Firecracker's and rust-vmm's devices do the same, so their tools can be used here.
//!
//! - `stream`: a program's connection with a guest. Here: which there are, and who waits for what.

mod stream;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use dragonfly_card_devices::{
    Round, SocketGuest, SocketHub,
    vsock::{Header, Operation},
};
use log::{debug, info};
use rustix::{
    event::epoll,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use self::stream::{Key, Stream};
use crate::{socket, worker::Outside};

/// Packets taken from the hub, and events taken from the kernel, in one turn.
const BATCH: usize = 64;
/// Programs that are connected at a time, at most; others wait to be heard.
const MAX_STREAMS: usize = 4096;
/// The first port that programs of the host have: those below are for programs that guests call.
const FIRST_PORT: u32 = 1 << 30;
/// Marks the numbers of doors among those of events.
const DOOR: u64 = 1 << 63;

/// A guest's socket of the host.
#[derive(Debug)]
struct Door {
    cid: u64,
    path: PathBuf,
    listener: UnixListener,
    /// Programs may be waiting there.
    is_ready: bool,
}

/// The host's end of all connections with guests.
#[derive(Debug)]
pub struct HostSockets {
    epoll: OwnedFd,
    host: SocketGuest,
    doors: Vec<Door>,
    /// By numbers that are never used twice.
    streams: BTreeMap<u64, Stream>,
    numbers: BTreeMap<Key, u64>,
    next_number: u64,
    next_port: u32,
}

impl HostSockets {
    /// Listens at these guests' sockets; nothing if there are none.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub fn listen(guests: &[(SocketGuest, PathBuf)], hub: &mut SocketHub) -> Result<Option<Self>> {
        if guests.is_empty() {
            return Ok(None);
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot wait for sockets")?;
        let mut doors = Vec::new();
        for (guest, path) in guests {
            let listener = socket::listen(path)?;
            socket::watch(&epoll, &listener, DOOR | doors.len() as u64).context("cannot wait for sockets")?;
            let cid = hub.cid(*guest);
            info!("sockets of CID {cid}: listening at {}", path.display());
            doors.push(Door { cid, path: path.clone(), listener, is_ready: false });
        }
        let own: Vec<_> = guests.iter().map(|(guest, _)| *guest).collect();
        Ok(Some(Self {
            epoll,
            host: hub.add_host(&own),
            doors,
            streams: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next_number: 0,
            next_port: FIRST_PORT,
        }))
    }

    /// Notes what has happened to sockets. Each event comes once.
    fn note_events(&mut self) {
        socket::tell_events::<BATCH>(&self.epoll, |number, happened| {
            if number & DOOR == 0 {
                if let Some(stream) = self.streams.get_mut(&number) {
                    stream.note(happened);
                }
            } else if let Some(door) = self.doors.get_mut((number & !DOOR) as usize) {
                door.is_ready = true;
            }
        });
    }

    /// Takes programs that call. Whether there were any.
    fn accept(&mut self) -> bool {
        let mut has_worked = false;
        for place in 0..self.doors.len() {
            while self.streams.len() < MAX_STREAMS {
                let Some(door) = self.doors.get_mut(place).filter(|door| door.is_ready) else { break };
                let Ok((socket, _)) = door.listener.accept() else {
                    door.is_ready = false;
                    break;
                };
                let key = Key { own_port: self.next_port, peer_cid: door.cid, peer_port: 0 };
                self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
                has_worked = true;
                self.add(Stream::greeted(socket, key));
            }
        }
        has_worked
    }

    fn add(&mut self, stream: Stream) -> bool {
        let number = self.next_number;
        let is_waited_for =
            stream.socket().set_nonblocking(true).and_then(|()| socket::watch(&self.epoll, stream.socket(), number));
        if let Err(error) = is_waited_for {
            debug!("sockets of the host: {error}");
            return false;
        }
        self.next_number += 1;
        self.numbers.insert(stream.key(), number);
        self.streams.insert(number, stream);
        true
    }

    /// Takes packets of guests. Whether there were any.
    fn receive(&mut self, hub: &mut SocketHub) -> bool {
        let mut data = VecDeque::new();
        for count in 0..BATCH {
            data.clear();
            let Some(header) = hub.take(self.host, usize::MAX, &mut data) else { return count > 0 };
            let key = Key::of(&header);
            let number = self.numbers.get(&key).copied();
            let answer = match (Operation::of(&header), number) {
                (Some(Operation::Request), None) if self.call(key, &header) => Operation::Response,
                (Some(Operation::Request) | None, _) => Operation::Reset,
                (Some(Operation::Reset), None) => continue,
                (Some(_), None) => Operation::Reset,
                (Some(operation), Some(number)) => {
                    if let Some(stream) = self.streams.get_mut(&number) {
                        stream.receive(operation, &header, &mut data);
                    }
                    continue;
                }
            };
            hub.receive(self.host, &key.header(answer), &[]);
        }
        true
    }

    /// Connects a guest with the program that it calls.
    fn call(&mut self, key: Key, header: &Header) -> bool {
        let Some(door) = self.doors.iter().find(|door| door.cid == key.peer_cid) else { return false };
        let mut path = door.path.clone().into_os_string();
        path.push(format!("_{}", key.own_port));
        if self.streams.len() >= MAX_STREAMS {
            return false;
        }
        match connected(Path::new(&path)) {
            Ok(socket) => self.add(Stream::called(socket, key, header)),
            Err(error) => {
                debug!("CID {}: nobody at {}: {error}", key.peer_cid, path.display());
                false
            }
        }
    }

    /// Moves data of programs, and forgets those that are done. Whether there was any.
    fn advance(&mut self, hub: &mut SocketHub) -> bool {
        let Self { streams, numbers, host, .. } = self;
        let mut has_worked = false;
        streams.retain(|number, stream| {
            let key = stream.key();
            has_worked |= stream.advance(&mut |header, data| hub.receive(*host, header, data));
            if stream.key() != key {
                // Now it is known which port it calls.
                numbers.remove(&key);
                numbers.insert(stream.key(), *number);
            }
            if stream.is_done() {
                // Closing it ends the waiting, too.
                numbers.remove(&stream.key());
            }
            !stream.is_done()
        });
        has_worked
    }
}

/// A connection to a program that listens, without waiting for it.
fn connected(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

impl Outside<SocketHub> for HostSockets {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn serve(&mut self, hub: &mut SocketHub, _now_ns: u64) -> Option<Round> {
        self.note_events();
        let mut has_worked = self.accept();
        has_worked |= self.receive(hub);
        has_worked |= self.advance(hub);
        Some(Round { has_worked, wait_until_ns: None })
    }
}

impl Drop for HostSockets {
    fn drop(&mut self) {
        for door in &self.doors {
            if let Err(error) = std::fs::remove_file(&door.path) {
                debug!("{}: {error}", door.path.display());
            }
        }
    }
}
