//! A device at its socket, with the client that uses it.

use std::{
    fs, io,
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use dragonfly_vhost_user::{Session, SessionError};
use dragonfly_virtqueue::QueueError;
use log::{debug, info, warn};

use crate::{
    inbox::{Inbox, InboxError},
    platform::LinuxPlatform,
    poller::{Poller, Token},
    serve::Serve,
    shared_memory::MapError,
};

/// A device, the socket where clients call, and the one that does.
#[derive(Debug)]
pub struct Port<D: Serve> {
    device: D,
    /// The worker's number of this device.
    number: u32,
    listener: UnixListener,
    path: PathBuf,
    client: Option<Client>,
}

#[derive(Debug)]
struct Client {
    inbox: Inbox,
    session: Session,
    platform: LinuxPlatform,
}

/// What a round over a device's rings came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Something was done.
    pub has_worked: bool,
    /// The earliest time at which there is something to do, if it is known.
    pub wait_until_ns: Option<u64>,
}

impl<D: Serve> Port<D> {
    /// Listens at a socket. One that a process left behind is replaced, one that is in use is not.
    ///
    /// # Errors
    /// There is something else, or the socket cannot be made.
    pub fn listen(device: D, path: &Path) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(metadata) if metadata.file_type().is_socket() => {
                if UnixStream::connect(path).is_ok() {
                    bail!("{}: another process listens there: stop it, or name another socket", path.display());
                }
                fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
            }
            Ok(_) => bail!("{}: there is a file that is no socket: name another place", path.display()),
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot make {}", path.display()))?;
        listener.set_nonblocking(true)?;
        Ok(Self { device, number: 0, listener, path: path.into(), client: None })
    }

    /// Lets a worker wait for clients.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn register(&mut self, number: u32, poller: &Poller) -> io::Result<()> {
        self.number = number;
        poller.add(&self.listener, Token::Listener { device: number })?;
        info!("{}: listening at {}", self.device.name(), self.path.display());
        Ok(())
    }

    /// Takes a client that calls. There is one at a time: the next waits until this one is gone.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn accept(&mut self, poller: &Poller) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            // It gave up before it was heard.
            Err(error) => {
                debug!("{}: {error}", self.device.name());
                return Ok(());
            }
        };
        poller.remove(&self.listener);
        self.attach(stream, poller)
    }

    /// Takes a client whose connection exists already.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn attach(&mut self, stream: UnixStream, poller: &Poller) -> io::Result<()> {
        poller.add(&stream, Token::Client { device: self.number })?;
        info!("{}: client connected", self.device.name());
        let platform = LinuxPlatform::new(self.device.name(), poller.epoll(), self.number);
        self.client = Some(Client { inbox: Inbox::new(stream), session: Session::default(), platform });
        Ok(())
    }

    /// Handles what the client has sent.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn handle_messages(&mut self, shared: &mut D::Shared, poller: &Poller) -> io::Result<()> {
        let Some(client) = &mut self.client else { return Ok(()) };
        let outcome = client.handle_messages(&mut self.device);
        self.device.rings_changed(shared);
        let Err(ended) = outcome else { return Ok(()) };
        match ended {
            ClientError::Inbox(InboxError::Closed) => info!("{}: client disconnected", self.device.name()),
            ended => warn!("{}: client disconnected by this side: {ended}", self.device.name()),
        }
        self.disconnect(poller);
        self.device.rings_changed(shared);
        poller.add(&self.listener, Token::Listener { device: self.number })
    }

    /// Serves all rings once.
    pub fn serve(&mut self, shared: &mut D::Shared, now_ns: u64) -> Round {
        let Some(client) = &mut self.client else { return Round::default() };
        let mut round = Round::default();
        for index in 0..self.device.queues() {
            let memory = client.platform.memory(index);
            match self.device.serve(shared, index, &memory, now_ns) {
                Ok(service) => {
                    round.has_worked |= service.has_worked;
                    round.wait_for(service.wait_until_ns);
                    if service.notify {
                        client.platform.call(index);
                    }
                }
                Err(reason) => {
                    warn!("{}: queue {index} has stopped: {reason}", self.device.name());
                    client.platform.report_broken(index);
                }
            }
        }
        round
    }

    /// Asks for kicks of all rings, and says whether there is something to do already, or a ring that nobody kicks.
    pub fn enable_kicks(&mut self) -> bool {
        let Some(client) = &self.client else { return false };
        let mut has_work = false;
        for index in (0..self.device.queues()).filter(|index| self.device.runs(*index)).collect::<Vec<_>>() {
            let memory = client.platform.memory(index);
            has_work |= client.platform.is_polled(index) || self.device.enable_kicks(index, &memory);
        }
        has_work
    }

    fn disconnect(&mut self, poller: &Poller) {
        if let Some(mut client) = self.client.take() {
            client.session.close(&mut self.device, &mut client.platform);
            poller.remove(&client.inbox);
        }
    }

    /// Ends the client's session and takes the socket away.
    pub fn close(mut self, poller: &Poller) {
        self.disconnect(poller);
        if let Err(error) = fs::remove_file(&self.path) {
            debug!("{}: {error}", self.path.display());
        }
    }
}

impl Round {
    /// There is something to do at this time, if any.
    fn wait_for(&mut self, time_ns: Option<u64>) {
        self.wait_until_ns = match (self.wait_until_ns, time_ns) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Both rounds together.
    pub fn add(&mut self, other: Self) {
        self.has_worked |= other.has_worked;
        self.wait_for(other.wait_until_ns);
    }
}

/// Why a client is not served any longer.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Session(#[from] SessionError<QueueError, MapError>),
    #[error("a file descriptor that cannot be waited for: {0}")]
    Descriptor(#[from] io::Error),
}

impl Client {
    fn handle_messages<D: Serve>(&mut self, device: &mut D) -> Result<(), ClientError> {
        while let Some((header, resources)) = self.inbox.receive()? {
            debug!("{}: {:?}", device.name(), header.request);
            let message = self.inbox.message(header, resources);
            let reply = self.session.handle(message, device, &mut self.platform)?;
            self.platform.check()?;
            if let Some(reply) = reply {
                self.inbox.send(&reply)?;
            }
        }
        Ok(())
    }
}
