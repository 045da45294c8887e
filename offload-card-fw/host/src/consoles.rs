//! Programs of the host at the other ends of guests' console ports: each port has a Unix socket, where one program at a time is.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};

use anyhow::{Context, Result};
use dragonfly_card_devices::{Cables, HostPort, Round};
use log::{debug, info};
use rustix::event::epoll;

use crate::{socket, worker::Outside};

/// Bytes moved at once, and events taken from the kernel.
const BYTES: usize = 4096;
const EVENTS: usize = 64;
/// Marks the numbers of listeners among those of events.
const LISTENER: u64 = 1 << 63;

/// A port's socket, and the program there.
#[derive(Debug)]
struct Door {
    port: HostPort,
    path: PathBuf,
    listener: UnixListener,
    /// A program may be waiting.
    is_called: bool,
    program: Option<Program>,
}

#[derive(Debug)]
struct Program {
    stream: UnixStream,
    is_readable: bool,
    is_writable: bool,
    /// What the guest has sent, and the socket had no room for.
    unsent: Vec<u8>,
}

/// All such sockets.
#[derive(Debug)]
pub struct HostPorts {
    epoll: OwnedFd,
    doors: Vec<Door>,
    buffer: Box<[u8]>,
}

impl HostPorts {
    /// Listens at the sockets of these ports; nothing if there are none.
    ///
    /// # Errors
    /// A socket cannot be made, or two other ports have that name.
    pub fn listen(ports: &[(String, PathBuf)], cables: &mut Cables) -> Result<Option<Self>> {
        if ports.is_empty() {
            return Ok(None);
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot wait for sockets")?;
        let mut doors = Vec::new();
        for (name, path) in ports {
            let port = cables.add_host(name)?;
            let listener = socket::listen(path)?;
            socket::watch(&epoll, &listener, LISTENER | doors.len() as u64).context("cannot wait for sockets")?;
            info!("port {name}: listening at {}", path.display());
            doors.push(Door { port, path: path.clone(), listener, is_called: false, program: None });
        }
        Ok(Some(Self { epoll, doors, buffer: vec![0; BYTES].into() }))
    }

    /// Notes what has happened to sockets. Each event comes once.
    fn note_events(&mut self) {
        socket::tell_events::<EVENTS>(&self.epoll, |number, happened| {
            let Some(door) = self.doors.get_mut((number & !LISTENER) as usize) else { return };
            if number & LISTENER != 0 {
                door.is_called = true;
            } else if let Some(program) = &mut door.program {
                program.is_readable |= happened.is_readable;
                program.is_writable |= happened.is_writable;
            }
        });
    }
}

impl Door {
    /// Takes a program that calls, if none is there. Whether one came.
    fn accept(&mut self, epoll: &OwnedFd, number: u64, cables: &mut Cables) -> bool {
        if self.program.is_some() || !self.is_called {
            return false;
        }
        let Ok((stream, _)) = self.listener.accept() else {
            self.is_called = false;
            return false;
        };
        if let Err(error) = stream.set_nonblocking(true).and_then(|()| socket::watch(epoll, &stream, number)) {
            debug!("{}: {error}", self.path.display());
            return true;
        }
        cables.set_host_open(self.port, true);
        self.program = Some(Program { stream, is_readable: true, is_writable: true, unsent: Vec::new() });
        true
    }

    /// Moves bytes both ways. Whether there were any, or the program has gone.
    fn advance(&mut self, buffer: &mut [u8], cables: &mut Cables) -> bool {
        let Some(program) = &mut self.program else { return false };
        match program.advance(self.port, buffer, cables) {
            Ok(has_worked) => has_worked,
            Err(error) => {
                debug!("{}: the program has gone: {error}", self.path.display());
                cables.set_host_open(self.port, false);
                // Closing it ends the waiting, too.
                self.program = None;
                true
            }
        }
    }
}

impl Program {
    fn advance(&mut self, port: HostPort, buffer: &mut [u8], cables: &mut Cables) -> io::Result<bool> {
        let mut has_worked = false;
        let most = cables.host_room(port).min(buffer.len());
        if self.is_readable
            && let Some(room) = buffer.get_mut(..most).filter(|room| !room.is_empty())
        {
            match unless_blocked(self.stream.read(room))? {
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(count) => {
                    cables.host_send(port, room.get(..count).unwrap_or_default());
                    has_worked = true;
                }
                None => self.is_readable = false,
            }
        }
        if self.unsent.is_empty() {
            cables.host_take(port, BYTES, &mut self.unsent);
        }
        if self.is_writable && !self.unsent.is_empty() {
            match unless_blocked(self.stream.write(&self.unsent))? {
                Some(count) => {
                    self.unsent.drain(..count.min(self.unsent.len()));
                    has_worked = true;
                }
                None => self.is_writable = false,
            }
        }
        Ok(has_worked)
    }
}

/// How many bytes were moved; nothing if none can be now.
fn unless_blocked(moved: io::Result<usize>) -> io::Result<Option<usize>> {
    match moved {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

impl Outside<Cables> for HostPorts {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn serve(&mut self, cables: &mut Cables, _now_ns: u64) -> Option<Round> {
        self.note_events();
        let Self { epoll, doors, buffer } = self;
        let mut has_worked = false;
        for (door, number) in doors.iter_mut().zip(0..) {
            has_worked |= door.accept(epoll, number, cables);
            has_worked |= door.advance(buffer, cables);
        }
        Some(Round { has_worked, wait_until_ns: None })
    }
}

impl Drop for HostPorts {
    fn drop(&mut self) {
        for door in &self.doors {
            if let Err(error) = std::fs::remove_file(&door.path) {
                debug!("{}: {error}", door.path.display());
            }
        }
    }
}
