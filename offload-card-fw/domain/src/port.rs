//! A device with the session of the VMM that uses it.

use arrayvec::ArrayVec;
use dragonfly_card_devices::{Connection, MAX_LINES, Round, Serve};
use dragonfly_vhost_user::{HEADER_LEN, Header, MAX_RESOURCES, MessageError, Received, Reply, SessionError};
use dragonfly_virtqueue::QueueError;
use thiserror::Error;

use crate::card::Client;

/// Why a session was ended: the VMM's fault.
#[derive(Debug, Error)]
pub(crate) enum Broken<E> {
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
    pub(crate) device: D,
    connection: Option<Connection<P>>,
    /// Of the log, for broken rings: a guest may end its sessions, too, as often as it likes.
    lines_left: u32,
}

impl<D: Serve, P: Client> Port<D, P> {
    /// A device that nobody uses.
    pub(crate) fn new(device: D) -> Self {
        Self { device, connection: None, lines_left: MAX_LINES }
    }

    /// Does what a message says, in a new session with a new platform if there is none.
    ///
    /// # Errors
    /// The message is wrong, and the session has been ended.
    pub(crate) fn message(
        &mut self,
        shared: &mut D::Shared,
        bytes: &[u8],
        resources: Resources<P::Resource>,
        platform: impl FnOnce() -> P,
    ) -> Result<Option<Reply<P::Resource>>, Broken<P::Error>> {
        let outcome = split(bytes).and_then(|(header, payload)| {
            let lines = self.lines_left;
            let connection = self.connection.get_or_insert_with(|| Connection::new(platform()).with_lines(lines));
            let message = Received { header, payload, resources };
            connection.handle(message, &mut self.device, shared).map_err(Broken::Session)
        });
        if outcome.is_err() {
            self.close(shared);
        }
        outcome
    }

    /// Whether the guest was found to be gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.platform.is_gone())
    }

    /// Serves all rings once.
    pub(crate) fn serve(&mut self, shared: &mut D::Shared, now_ns: u64) -> Round {
        self.connection
            .as_ref()
            .map_or_else(Round::default, |connection| connection.serve(&mut self.device, shared, now_ns))
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

/// Header and payload of a message.
fn split<E>(bytes: &[u8]) -> Result<(Header, &[u8]), Broken<E>> {
    let (header, payload) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Broken::Short(bytes.len()))?;
    let header = Header::parse(*header)?;
    if payload.len() != header.payload_len {
        return Err(MessageError::WrongLength { request: header.request, size: payload.len() }.into());
    }
    Ok((header, payload))
}
