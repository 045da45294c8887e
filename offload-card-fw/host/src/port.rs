//! A device at its socket, with the client that uses it.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

use anyhow::Result;
use dragonfly_card_devices::{Connection, ConnectionError, Round, Serve};
use log::{debug, info, warn};

use crate::{
    inbox::{Inbox, InboxError},
    platform::LinuxPlatform,
    poller::{Poller, Token},
    socket,
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
    connection: Connection<LinuxPlatform>,
}

impl<D: Serve> Port<D> {
    /// Listens at a socket. One that a process left behind is replaced, one that is in use is not.
    ///
    /// # Errors
    /// There is something else, or the socket cannot be made.
    pub fn listen(device: D, path: &Path) -> Result<Self> {
        let listener = socket::listen(path)?;
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
        self.client = Some(Client { inbox: Inbox::new(stream), connection: Connection::new(platform) });
        Ok(())
    }

    /// Handles what the client has sent.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn handle_messages(&mut self, shared: &mut D::Shared, poller: &Poller) -> io::Result<()> {
        let Some(client) = &mut self.client else { return Ok(()) };
        let Err(ended) = client.handle_messages(&mut self.device, shared) else { return Ok(()) };
        match ended {
            ClientError::Inbox(InboxError::Closed) => info!("{}: client disconnected", self.device.name()),
            ended => warn!("{}: client disconnected by this side: {ended}", self.device.name()),
        }
        self.disconnect(shared, poller);
        poller.add(&self.listener, Token::Listener { device: self.number })
    }

    /// Serves all rings once.
    pub fn serve(&mut self, shared: &mut D::Shared, now_ns: u64) -> Round {
        let device = &mut self.device;
        self.client.as_ref().map_or_else(Round::default, |client| client.connection.serve(device, shared, now_ns))
    }

    /// Asks for kicks of all rings, and says whether there is something to do already, or a ring that nobody kicks.
    pub fn enable_kicks(&mut self) -> bool {
        let device = &mut self.device;
        self.client.as_ref().is_some_and(|client| client.connection.enable_kicks(device))
    }

    fn disconnect(&mut self, shared: &mut D::Shared, poller: &Poller) {
        if let Some(client) = self.client.take() {
            client.connection.close(&mut self.device, shared);
            poller.remove(&client.inbox);
        }
    }

    /// Ends the client's session and takes the socket away.
    pub fn close(mut self, shared: &mut D::Shared, poller: &Poller) {
        self.disconnect(shared, poller);
        if let Err(error) = fs::remove_file(&self.path) {
            debug!("{}: {error}", self.path.display());
        }
    }
}

/// Why a client is not served any longer.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error(transparent)]
    Inbox(#[from] InboxError),
    #[error(transparent)]
    Session(#[from] ConnectionError<LinuxPlatform>),
    #[error("a file descriptor that cannot be waited for: {0}")]
    Descriptor(#[from] io::Error),
}

impl Client {
    fn handle_messages<D: Serve>(&mut self, device: &mut D, shared: &mut D::Shared) -> Result<(), ClientError> {
        while let Some((header, resources)) = self.inbox.receive()? {
            debug!("{}: {:?}", device.name(), header.request);
            let message = self.inbox.message(header, resources);
            let reply = self.connection.handle(message, device, shared)?;
            self.connection.platform.check()?;
            if let Some(reply) = reply {
                self.inbox.send(&reply)?;
            }
        }
        Ok(())
    }
}
