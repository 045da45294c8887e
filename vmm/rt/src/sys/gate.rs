//! Gates: synchronous messages between domains.

use dragonfly_abi::{Call, FOREVER, MessageTag, Status};

use super::handle::{Owned, define_object};
use super::{Notification, call};
use crate::message;

define_object! {
    /// An IPC end point.
    Gate
}

/// A message: what travels in registers. Bytes and handles are in the thread's [message buffer](crate::message).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Label, number of bytes and of handles.
    pub tag: MessageTag,
    /// Words for the two domains to use.
    pub words: [u64; 4],
}

impl Message {
    /// A message without bytes and handles.
    #[must_use]
    #[inline(always)]
    pub const fn new(label: u32, words: [u64; 4]) -> Self {
        Self { tag: MessageTag::new(label, 0, 0), words }
    }
}

/// A message with the badge of the handle that it was sent through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The sender, as whoever made its handle named it; 0 for a notification's bits.
    pub badge: u64,
    /// What it sent.
    pub message: Message,
}

impl Gate {
    /// Makes a gate, with all rights.
    ///
    /// # Errors
    /// [`Status::NoHandles`], [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn create() -> Result<Owned<Self>, Status> {
        call(Call::GateCreate, []).map(|words| Owned::from_word(words[0]))
    }

    /// Sends a message and waits for the reply.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without SEND, [`Status::BadArgument`] for a
    /// tag that names more than fits, [`Status::Refused`] if the receiver does not accept the handles,
    /// [`Status::Aborted`] if the gate or the receiver is gone, and what the handles sent may give.
    #[inline(always)]
    pub fn call(self, message: Message) -> Result<Message, Status> {
        call(Call::Call, self.message_arguments(message)).map(message_from)
    }

    /// As [`Gate::call`], for so long at most.
    ///
    /// # Errors
    /// As [`Gate::call`], and [`Status::TimedOut`].
    pub fn call_timed(self, message: Message, timeout_ns: u64) -> Result<Message, Status> {
        message::buffer().set_timeout_ns(timeout_ns);
        self.call(Message { tag: message.tag.timed(), ..message })
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without RECEIVE, [`Status::Aborted`] if the
    /// gate is gone.
    #[inline(always)]
    pub fn receive(self) -> Result<Received, Status> {
        self.receive_timed(FOREVER)
    }

    /// Waits for a message for so long at most; with 0 it does not wait.
    ///
    /// # Errors
    /// As [`Gate::receive`], [`Status::TimedOut`], and [`Status::WouldBlock`] for a time-out of 0.
    #[inline(always)]
    pub fn receive_timed(self, timeout_ns: u64) -> Result<Received, Status> {
        call(Call::Receive, [self.word(), timeout_ns]).map(received_from)
    }

    /// Answers the caller of the last message, then waits for the next.
    ///
    /// # Errors
    /// As [`reply`] and [`Gate::receive`].
    #[inline(always)]
    pub fn reply_receive(self, message: Message) -> Result<Received, Status> {
        call(Call::ReplyReceive, self.message_arguments(message)).map(received_from)
    }

    /// Lets receivers of the gate also get a notification's bits, as a message of the kind
    /// [`Notification`](dragonfly_abi::MessageKind::Notification).
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without RECEIVE on both, [`Status::Busy`] if
    /// one of them is bound.
    pub fn bind(self, notification: Notification) -> Result<(), Status> {
        notification.bind(self)
    }

    #[inline(always)]
    fn message_arguments(self, message: Message) -> [u64; 6] {
        let [w0, w1, w2, w3] = message.words;
        [self.word(), message.tag.0, w0, w1, w2, w3]
    }
}

/// Answers the caller of the last message that this thread received.
///
/// # Errors
/// [`Status::NoCaller`], [`Status::BadArgument`], [`Status::Refused`] if the caller does not accept the handles.
#[inline(always)]
pub fn reply(message: Message) -> Result<(), Status> {
    let [w0, w1, w2, w3] = message.words;
    call(Call::Reply, [0, message.tag.0, w0, w1, w2, w3]).map(drop)
}

#[inline(always)]
fn message_from(words: [u64; 6]) -> Message {
    let [_, tag, w0, w1, w2, w3] = words;
    Message { tag: MessageTag(tag), words: [w0, w1, w2, w3] }
}

#[inline(always)]
fn received_from(words: [u64; 6]) -> Received {
    Received { badge: words[0], message: message_from(words) }
}
