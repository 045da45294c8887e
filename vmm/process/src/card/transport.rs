//! vhost-user's messages on their way through the card's gate.

use dragonfly_abi::{HandleTransfer, Status};
use dragonfly_card_gate::{Answer, Request};
use dragonfly_rt::sys::{Gate, Message};
use dragonfly_vhost_user::{MAX_MESSAGE, Transport};
use thiserror::Error;

/// Why a message did not get through to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum CarryError {
    /// There is no card that it could be carried to.
    #[error("the card is gone: {0}")]
    Gone(Status),
    /// The card does not know the device: it is one that nobody has attached to yet.
    #[error("the card refuses messages to the device")]
    Refused,
    /// The card has ended the device's session.
    #[error("the card has ended the session and logged why")]
    Closed,
}

/// The way to a device of the card.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateTransport {
    /// The card's gate.
    pub(crate) gate: Gate,
    /// The device's number.
    pub(crate) device: u32,
}

impl Transport for GateTransport {
    type Resource = HandleTransfer;
    type Error = CarryError;

    fn exchange(
        &mut self,
        message: &[u8],
        resources: &[HandleTransfer],
        answer: &mut [u8; MAX_MESSAGE],
    ) -> Result<usize, CarryError> {
        let (label, word) = Request::Message { device: self.device }.encode();
        let message = Message::with(label, [word, 0, 0, 0], message, resources);
        let reply = message.and_then(|message| self.gate.call(message)).map_err(CarryError::Gone)?;
        match Answer::decode(reply.tag.label()) {
            Answer::Done => Ok(reply.read(answer)),
            Answer::Refused => Err(CarryError::Refused),
            Answer::Closed => Err(CarryError::Closed),
        }
    }
}
