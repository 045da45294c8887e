//! A device with the session of the VMM that uses it.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use arrayvec::ArrayVec;
use dragonfly_card_devices::{
    Cables, Connection, ConsoleDevice, DiskDevice, Fabric, MAX_LINES, NetDevice, RngDevice, Round, Serve, SocketHub,
    VsockDevice,
};
use dragonfly_vhost_user::{HEADER_LEN, Header, MAX_RESOURCES, MessageError, Received, Reply, SessionError};
use dragonfly_virtqueue::QueueError;
use thiserror::Error;

use crate::card::Client;

/// Why a session was ended: the VMM's fault.
#[derive(Debug, Error)]
enum Broken<E> {
    /// It is shorter than a header.
    #[error("a message of {0} bytes has no header")]
    Short(usize),
    /// It is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// It contradicts what was said before, or cannot be done.
    #[error(transparent)]
    Session(#[from] SessionError<QueueError, E>),
}

/// Resources that came with a message.
pub(crate) type Resources<R> = ArrayVec<R, MAX_RESOURCES>;

/// A device, and the session while there is one.
pub(crate) struct Port<D, P> {
    device: D,
    connection: Option<Connection<P>>,
    /// Of the log, for broken rings: a guest may end its sessions, too, as often as it likes.
    lines_left: u32,
}

/// What devices of all kinds have in common, for each kind what its devices share.
#[derive(Debug)]
pub(crate) struct Common {
    /// What those share that share nothing.
    pub(crate) nothing: (),
    /// The switch between network devices.
    pub(crate) fabric: Fabric,
    /// Connections between sockets.
    pub(crate) sockets: SocketHub,
    /// Connections between consoles and other ports.
    pub(crate) cables: Cables,
}

/// The part of [`Common`] that devices of a kind share.
pub(crate) trait Part<S> {
    fn part(&mut self) -> &mut S;
}

impl Part<()> for Common {
    fn part(&mut self) -> &mut () {
        &mut self.nothing
    }
}

impl Part<Fabric> for Common {
    fn part(&mut self) -> &mut Fabric {
        &mut self.fabric
    }
}

impl Part<SocketHub> for Common {
    fn part(&mut self) -> &mut SocketHub {
        &mut self.sockets
    }
}

impl Part<Cables> for Common {
    fn part(&mut self) -> &mut Cables {
        &mut self.cables
    }
}

impl<D: Serve, P: Client> Port<D, P> {
    /// No session yet.
    pub(crate) fn new(device: D) -> Self {
        Self { device, connection: None, lines_left: MAX_LINES }
    }

    /// Does what a message says, in a new session with a new platform if there is none.
    ///
    /// # Errors
    /// The message is wrong, and the session has been ended: what the log is to say.
    pub(crate) fn message(
        &mut self,
        shared: &mut D::Shared,
        bytes: &[u8],
        resources: Resources<P::Resource>,
        platform: impl FnOnce() -> P,
    ) -> Result<Option<Reply<P::Resource>>, String> {
        let outcome = split(bytes).and_then(|(header, payload)| {
            let lines = self.lines_left;
            let connection = self.connection.get_or_insert_with(|| Connection::new(platform()).with_lines(lines));
            let message = Received { header, payload, resources };
            connection.handle(message, &mut self.device, shared).map_err(Broken::Session)
        });
        if outcome.is_err() {
            self.close(shared);
        }
        outcome.map_err(|reason| format!("{}: the session is ended: {reason}", self.device.name()))
    }

    /// Whether the guest was found to be gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.platform.is_gone())
    }

    /// Serves all rings once.
    pub(crate) fn serve(&mut self, shared: &mut D::Shared, now_ns: u64) -> Round {
        let device = &mut self.device;
        self.connection.as_ref().map_or_else(Round::default, |connection| connection.serve(device, shared, now_ns))
    }

    /// Asks for kicks of all rings, and says whether there is something to do already.
    pub(crate) fn enable_kicks(&mut self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.enable_kicks(&mut self.device))
    }

    /// Ends the session, if there is one.
    pub(crate) fn close(&mut self, shared: &mut D::Shared) {
        if let Some(connection) = self.connection.take() {
            self.lines_left = connection.close(&mut self.device, shared);
        }
    }
}

impl<P: Client> Port<NetDevice, P> {
    /// The device's name.
    pub(crate) fn name(&self) -> &str {
        self.device.name()
    }

    /// Plugs the device in or out; the VMM is told if there is one.
    pub(crate) fn set_link(&mut self, fabric: &mut Fabric, is_up: bool) {
        self.device.set_link(is_up, fabric);
        if let Some(connection) = &self.connection {
            connection.tell_of_config(&mut self.device);
        }
    }
}

/// A device of whatever kind that the worker serves, and its session while there is one.
pub(crate) enum AnyPort<P> {
    Disk(Box<Port<DiskDevice, P>>),
    Net(Box<Port<NetDevice, P>>),
    Rng(Box<Port<RngDevice, P>>),
    Vsock(Box<Port<VsockDevice, P>>),
    Console(Box<Port<ConsoleDevice, P>>),
}

/// Calls the same function of whatever device.
macro_rules! each {
    ($any:expr, $port:ident => $call:expr) => {
        match $any {
            AnyPort::Disk($port) => $call,
            AnyPort::Net($port) => $call,
            AnyPort::Rng($port) => $call,
            AnyPort::Vsock($port) => $call,
            AnyPort::Console($port) => $call,
        }
    };
}

impl<P: Client> AnyPort<P> {
    /// The port of a network device.
    pub(crate) fn net(&mut self) -> Option<&mut Port<NetDevice, P>> {
        match self {
            Self::Net(port) => Some(port),
            _ => None,
        }
    }

    /// As [`Port::message`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn message(
        &mut self,
        common: &mut Common,
        bytes: &[u8],
        resources: Resources<P::Resource>,
        platform: impl FnOnce() -> P,
    ) -> Result<Option<Reply<P::Resource>>, String> {
        each!(self, port => port.message(common.part(), bytes, resources, platform))
    }

    /// Whether the guest was found to be gone.
    pub(crate) fn is_gone(&self) -> bool {
        each!(self, port => port.is_gone())
    }

    /// Serves all rings once.
    pub(crate) fn serve(&mut self, common: &mut Common, now_ns: u64) -> Round {
        each!(self, port => port.serve(common.part(), now_ns))
    }

    /// Asks for kicks of all rings, and says whether there is something to do already.
    pub(crate) fn enable_kicks(&mut self) -> bool {
        each!(self, port => port.enable_kicks())
    }

    /// Ends the session, if there is one.
    pub(crate) fn close(&mut self, common: &mut Common) {
        each!(self, port => port.close(common.part()));
    }
}

impl<P: Client> From<DiskDevice> for AnyPort<P> {
    fn from(device: DiskDevice) -> Self {
        Self::Disk(Box::new(Port::new(device)))
    }
}

impl<P: Client> From<NetDevice> for AnyPort<P> {
    fn from(device: NetDevice) -> Self {
        Self::Net(Box::new(Port::new(device)))
    }
}

impl<P: Client> From<RngDevice> for AnyPort<P> {
    fn from(device: RngDevice) -> Self {
        Self::Rng(Box::new(Port::new(device)))
    }
}

impl<P: Client> From<VsockDevice> for AnyPort<P> {
    fn from(device: VsockDevice) -> Self {
        Self::Vsock(Box::new(Port::new(device)))
    }
}

impl<P: Client> From<ConsoleDevice> for AnyPort<P> {
    fn from(device: ConsoleDevice) -> Self {
        Self::Console(Box::new(Port::new(device)))
    }
}

/// Header and payload of a message.
fn split<E>(bytes: &[u8]) -> Result<(Header, &[u8]), Broken<E>> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Broken::Short(bytes.len()))?;
    let header = Header::parse(*header)?;
    if payload.len() != header.payload_len {
        return Err(MessageError::WrongLength { request: header.request, size: payload.len() }.into());
    }
    Ok((header, payload))
}
