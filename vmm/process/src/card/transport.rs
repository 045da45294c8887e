//! vhost-user's messages on their way through the card's gate.

use core::time::Duration;

use dragonfly_abi::{HandleTransfer, Status};
use dragonfly_card_gate::{Answer, GATE_NAME, Request};
use dragonfly_rt::sys::{Gate, Message, clock_now_ns};
use dragonfly_rt::{supervisor, time};
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
    /// The device waits for a physical disk that does not answer.
    #[error("its disk hangs")]
    Hangs,
}

/// How long a message waits for a physical disk: longer than one takes to put an error right.
const DISK_NS: u64 = 30_000_000_000;

/// How long to wait before what became of a message is asked for, at first, and in the end.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// How long the card has to answer: any answer takes it milliseconds.
const ANSWER_NS: u64 = 8_000_000_000;

/// Calls the card. When it does not answer the supervisor is told, which starts it anew if it does not answer that either.
///
/// # Errors
/// [`Status::TimedOut`]: it is one that was started anew, or it does not answer twice. Others as of [`Gate::call_timed`].
pub(crate) fn call(gate: Gate, make: impl Fn() -> Result<Message, Status>) -> Result<Message, Status> {
    let first = gate.call_timed(make()?, ANSWER_NS);
    if first.as_ref().err() != Some(&Status::TimedOut) {
        return first;
    }
    match supervisor::report_hang(GATE_NAME) {
        Ok(()) => first,
        // It answers, or another VMM has had it started anew: what was asked may have been done, which is no harm.
        Err(_) => gate.call_timed(make()?, ANSWER_NS),
    }
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
        let make = || Message::with(label, [word, 0, 0, 0], message, resources);
        let mut reply = call(self.gate, make).map_err(CarryError::Gone)?;
        let until_ns = clock_now_ns().saturating_add(DISK_NS);
        let mut pause = PAUSE;
        loop {
            match Answer::decode(reply.tag.label()) {
                Answer::Done => return Ok(reply.read(answer)),
                Answer::Refused => return Err(CarryError::Refused),
                Answer::Closed => return Err(CarryError::Closed),
                Answer::Later if clock_now_ns() >= until_ns => return Err(CarryError::Hangs),
                Answer::Later => {}
            }
            time::sleep(pause);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            let (label, word) = Request::Outcome { device: self.device }.encode();
            reply = call(self.gate, || Ok(Message::new(label, [word, 0, 0, 0]))).map_err(CarryError::Gone)?;
        }
    }
}
