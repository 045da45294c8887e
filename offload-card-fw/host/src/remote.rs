//! The connection to an NBD server: bytes between its socket and the [`Client`], and another connection when it is lost.
//!
//! The thread of the disk moves them, and nothing here waits: connecting is begun, and looked after in later turns.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use dragonfly_card_devices::{RemoteDisk, RemoteToken, Round, tables::Disk};
use dragonfly_storage::nbd::{Address, Client, Place, TransmissionFlags};
use log::{debug, error, info, warn};
use rustix::{
    event::epoll,
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt},
};

use crate::{disk::read_key, socket, worker::Outside};

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Reads, and writes, in a turn.
const BATCH: usize = 16;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long to wait until the first attempt to connect anew, and at most between two.
const RETRY_NS: u64 = 50_000_000;
const MAX_RETRY_NS: u64 = 2_000_000_000;

/// Opens a disk at a server: its device, the client that the device uses, and the client's connection.
///
/// # Errors
/// The server cannot be reached, or does not export such a disk.
pub fn open(disk: &Disk, address: &Address, folder: &Path) -> Result<(RemoteDisk, Client<RemoteToken>, Link)> {
    let key = read_key(folder, disk)?;
    let timeout = Duration::from_secs(disk.timeout_seconds);
    let mut client = Client::new(address.export.clone(), timeout.as_nanos() as u64);
    let place = Endpoint::find(&address.place, folder)?;
    let stream = place.connect().with_context(|| format!("cannot connect to {place}"))?;
    let link = Link::negotiate(&disk.name, place, stream, &mut client, timeout)?;
    let export = *client.export().context("the server has told nothing of the export")?;
    if !export.flags.contains(TransmissionFlags::SEND_FLUSH) && !export.flags.contains(TransmissionFlags::READ_ONLY) {
        warn!("{}: the server has no flush: what it keeps in memory is lost with its power", disk.name);
    }
    Ok((RemoteDisk::new(disk, export, key)?, client, link))
}

/// Where a server is.
#[derive(Debug)]
enum Endpoint {
    /// The addresses of a host; the first is the next to be tried.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(addresses) => match addresses.first() {
                Some(address) => write!(formatter, "{address}"),
                None => formatter.write_str("nowhere"),
            },
            Self::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Looks a host's name up: once, as that may take long.
    fn find(place: &Place, folder: &Path) -> Result<Self> {
        Ok(match place {
            Place::Unix(path) => Self::Unix(folder.join(path)),
            Place::Tcp { host, port } => {
                let found = (host.as_str(), *port).to_socket_addrs();
                let addresses: Vec<_> = found.with_context(|| format!("cannot find the host {host}"))?.collect();
                if addresses.is_empty() {
                    bail!("the host {host} has no address");
                }
                Self::Tcp(addresses)
            }
        })
    }

    /// Connects, and waits for that.
    fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Self::Tcp(addresses) => {
                let mut last = Err(ErrorKind::AddrNotAvailable.into());
                for address in addresses {
                    last = TcpStream::connect_timeout(address, CONNECT).map(Stream::Tcp);
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
        }
    }

    /// Begins to connect: the next address in turn.
    fn begin_connect(&mut self) -> io::Result<Stream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let is_begun = |result: Result<(), Errno>| match result {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
            Err(errno) => Err(io::Error::from(errno)),
        };
        match self {
            Self::Unix(path) => {
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                is_begun(connect(&socket, &SocketAddrUnix::new(path.as_path())?))?;
                Ok(Stream::Unix(socket.into()))
            }
            Self::Tcp(addresses) => {
                addresses.rotate_left(1);
                let address = addresses.first().ok_or(ErrorKind::AddrNotAvailable)?;
                let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = socket_with(family, SocketType::STREAM, flags, None)?;
                is_begun(connect(&socket, address))?;
                Ok(Stream::Tcp(socket.into()))
            }
        }
    }
}

/// A socket that is connected, or about to be.
#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout)).and_then(|()| stream.set_write_timeout(Some(timeout)))
            }
        }
    }

    /// Small messages do not wait for larger ones.
    fn set_nodelay(&self) {
        if let Self::Tcp(stream) = self {
            // Without it all is slower, and works.
            let _ = stream.set_nodelay(true);
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(from),
            Self::Unix(stream) => stream.write(from),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

#[derive(Debug)]
enum State {
    /// There is no connection before this time.
    Down {
        retry_at_ns: u64,
    },
    Connecting {
        stream: Stream,
        until_ns: u64,
    },
    Up {
        stream: Stream,
        /// The log has it that there is a connection.
        is_told: bool,
        /// The server did more than to agree: the next connection is tried soon.
        is_good: bool,
    },
    /// The server broke the protocol, and the client is done with it.
    Over,
}

/// The connection of one disk, or the attempts to have one.
#[derive(Debug)]
pub struct Link {
    /// The disk's name, for the log.
    name: String,
    endpoint: Endpoint,
    epoll: OwnedFd,
    state: State,
    buffer: Vec<u8>,
    /// There may be something to read, and room to write.
    is_readable: bool,
    is_writable: bool,
    /// Since when the server owes an answer, or when it last said something.
    heard_ns: Option<u64>,
    /// How long a server may be silent that owes an answer: half of the time that requests have, which leaves them another try.
    silence_ns: u64,
    retry_ns: u64,
}

impl Link {
    /// A connection on which both have agreed.
    fn negotiate(
        name: &str,
        endpoint: Endpoint,
        mut stream: Stream,
        client: &mut Client<RemoteToken>,
        timeout: Duration,
    ) -> Result<Self> {
        let patience = timeout.min(CONNECT);
        stream.set_timeouts(patience).context("cannot wait for the server")?;
        stream.set_nodelay();
        client.connected();
        let mut buffer = vec![0; BUFFER_BYTES];
        let begin = Instant::now();
        while !client.is_ready() {
            // It may talk for ever, and say nothing.
            if begin.elapsed() >= patience {
                bail!("{endpoint} negotiates without end");
            }
            let count = stream.read(&mut buffer).with_context(|| format!("{endpoint} does not answer"))?;
            if count == 0 {
                bail!("{endpoint} has closed the connection");
            }
            client.receive(buffer.get(..count).unwrap_or_default()).with_context(|| endpoint.to_string())?;
            while !client.to_send().is_empty() {
                let count = stream.write(client.to_send()).with_context(|| format!("cannot write to {endpoint}"))?;
                client.sent(count);
            }
        }
        stream.set_nonblocking().context("cannot wait for the server")?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot wait for the server")?;
        socket::watch(&epoll, &stream, 0).context("cannot wait for the server")?;
        Ok(Self {
            name: name.into(),
            endpoint,
            epoll,
            state: State::Up { stream, is_told: true, is_good: true },
            buffer,
            is_readable: true,
            is_writable: true,
            heard_ns: None,
            silence_ns: timeout.as_nanos() as u64 / 2,
            retry_ns: RETRY_NS,
        })
    }

    /// Notes what has happened to the socket. Each event comes once.
    fn note_events(&mut self) {
        socket::tell_events::<4>(&self.epoll, |_, happened| {
            self.is_readable |= happened.is_readable;
            self.is_writable |= happened.is_writable;
        });
    }

    /// Ends the connection; another is to come.
    fn lose(&mut self, client: &mut Client<RemoteToken>, now_ns: u64, why: &dyn std::fmt::Display) {
        client.disconnected();
        let was_good = match &self.state {
            State::Up { is_told, is_good, .. } => {
                if *is_told {
                    warn!("{}: the connection to {} is lost: {why}", self.name, self.endpoint);
                } else {
                    debug!("{}: the connection to {} is lost: {why}", self.name, self.endpoint);
                }
                *is_good
            }
            State::Down { .. } | State::Connecting { .. } | State::Over => {
                debug!("{}: cannot connect to {}: {why}", self.name, self.endpoint);
                false
            }
        };
        self.retry_ns = if was_good { RETRY_NS } else { (self.retry_ns * 2).min(MAX_RETRY_NS) };
        // Closing the socket ends the waiting for it, too.
        self.state = State::Down { retry_at_ns: now_ns.saturating_add(self.retry_ns) };
        self.heard_ns = None;
    }

    fn begin_connect(&mut self, client: &mut Client<RemoteToken>, now_ns: u64) {
        let begun =
            self.endpoint.begin_connect().and_then(|stream| socket::watch(&self.epoll, &stream, 0).map(|()| stream));
        (self.is_readable, self.is_writable) = (false, false);
        match begun {
            Ok(stream) => {
                let until_ns = now_ns.saturating_add(CONNECT.as_nanos() as u64);
                self.state = State::Connecting { stream, until_ns };
            }
            Err(error) => self.lose(client, now_ns, &error),
        }
    }

    /// Looks whether the connection is there.
    fn finish_connect(&mut self, client: &mut Client<RemoteToken>, now_ns: u64) {
        let State::Connecting { stream, until_ns } = &self.state else { return };
        if !self.is_writable {
            if now_ns >= *until_ns {
                self.lose(client, now_ns, &"nobody answers");
            }
            return;
        }
        match sockopt::socket_error(stream) {
            Ok(Ok(())) => {}
            Ok(Err(errno)) | Err(errno) => return self.lose(client, now_ns, &errno),
        }
        if let State::Connecting { stream, .. } =
            std::mem::replace(&mut self.state, State::Down { retry_at_ns: now_ns })
        {
            stream.set_nodelay();
            self.state = State::Up { stream, is_told: false, is_good: false };
            client.connected();
        }
    }

    /// Moves bytes. Whether there were any.
    ///
    /// # Errors
    /// Why the connection is of no use any more.
    fn move_bytes(&mut self, client: &mut Client<RemoteToken>, now_ns: u64) -> Result<bool> {
        let State::Up { stream, is_told, is_good } = &mut self.state else { return Ok(false) };
        let mut has_worked = false;
        for _ in 0..BATCH {
            if !self.is_readable {
                break;
            }
            match stream.read(&mut self.buffer) {
                Ok(0) => bail!("the server has closed it"),
                Ok(count) => {
                    self.heard_ns = Some(now_ns);
                    has_worked = true;
                    *is_good |= client.is_ready();
                    client.receive(self.buffer.get(..count).unwrap_or_default())?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        for _ in 0..BATCH * 4 {
            if !self.is_writable || client.to_send().is_empty() {
                break;
            }
            match stream.write(client.to_send()) {
                Ok(count) => {
                    has_worked = true;
                    client.sent(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if client.is_ready() && !*is_told {
            *is_told = true;
            info!("{}: connected to {} again", self.name, self.endpoint);
        }
        if client.waits_for_server() {
            let heard_ns = *self.heard_ns.get_or_insert(now_ns);
            if now_ns.saturating_sub(heard_ns) >= self.silence_ns {
                bail!("the server does not answer");
            }
        } else {
            self.heard_ns = None;
        }
        Ok(has_worked)
    }

    /// When there is something to do, if nothing happens before.
    fn wait_until_ns(&self, client: &Client<RemoteToken>) -> Option<u64> {
        let connection = match &self.state {
            State::Down { retry_at_ns } => Some(*retry_at_ns),
            State::Connecting { until_ns, .. } => Some(*until_ns),
            State::Up { .. } => self.heard_ns.map(|heard_ns| heard_ns.saturating_add(self.silence_ns)),
            State::Over => None,
        };
        connection.into_iter().chain(client.next_deadline_ns()).min()
    }
}

impl Outside<Client<RemoteToken>> for Link {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn serve(&mut self, client: &mut Client<RemoteToken>, now_ns: u64) -> Option<Round> {
        self.note_events();
        match self.state {
            State::Down { retry_at_ns } if now_ns >= retry_at_ns => self.begin_connect(client, now_ns),
            State::Over => return None,
            State::Down { .. } | State::Connecting { .. } | State::Up { .. } => {}
        }
        self.finish_connect(client, now_ns);
        let mut has_worked = match self.move_bytes(client, now_ns) {
            Ok(has_worked) => has_worked,
            Err(why) => {
                if let Some(failure) = client.failure() {
                    error!("{}: the disk has failed: {failure}; start the card anew to try again", self.name);
                    self.state = State::Over;
                } else {
                    self.lose(client, now_ns, &why);
                }
                true
            }
        };
        if client.expire(now_ns) {
            warn!("{}: requests have failed that {} did not answer in time", self.name, self.endpoint);
            if matches!(self.state, State::Up { .. }) {
                self.lose(client, now_ns, &"it is too slow");
            }
            has_worked = true;
        }
        Some(Round { has_worked, wait_until_ns: self.wait_until_ns(client) })
    }
}
