//! Messages between VMMs and the console server.
//!
//! The first word of each message is the guest's number, or [`CARD`]. It belongs to the VMM that registers first, by the badge of
//! its handle: nobody else may write in that guest's name or read its input. Every reply has the label [`OK`] or
//! [`REFUSED`].

use dragonfly_abi::MESSAGE_DATA_SIZE;

/// Name of the gate among a domain's handles.
pub const GATE_NAME: &str = "console";

/// How many guests there may be; their numbers are below it.
pub const MAX_GUESTS: usize = 32;

/// The console of the offload card, which comes after those of guests: by it the card takes its operator's orders.
pub const CARD: u64 = MAX_GUESTS as u64;

/// How many consoles there are.
pub(crate) const CONSOLES: usize = MAX_GUESTS + 1;

/// The most bytes that one message carries.
pub const MAX_BYTES: usize = MESSAGE_DATA_SIZE;

/// Takes a guest's console. The message brings a handle of a notification, with SEND and a badge, which is signalled
/// when there is input.
pub const REGISTER: u32 = 1;

/// Writes the message's bytes. The reply's first word says how many of them were taken: when it is less than all, the
/// line is busy, and the others are to be sent a little later.
pub const WRITE: u32 = 2;

/// Takes input: the reply's bytes. There may be more when it is as many as fit.
pub const READ: u32 = 3;

/// Says how the guest ended: the second word is an [`EndStatus`].
pub const ENDED: u32 = 4;

/// Asks for the time; needs no registration. The reply's first word is the seconds since 1970-01-01 00:00 UTC when the
/// kernel's clock was at the nanoseconds in the second word. Refused if the machine has no clock.
pub const TIME: u32 = 5;

/// Asks whether all has been sent, so that the machine can be switched off: the reply's first word is how many bytes are
/// still on their way.
pub const PENDING: u32 = 6;

/// Takes an order to let a vCPU's thread go on on another CPU: the reply's words are 1, the vCPU's number and the CPU's, or 0 when
/// there is none. When there is one the notification is signalled as for input.
pub const MOVE: u32 = 7;

/// Label of a reply: done.
pub const OK: u32 = 0;

/// Label of a reply: not done.
pub const REFUSED: u32 = 1;

/// How a guest ended, or that it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndStatus {
    /// It switched its machine off.
    PoweredOff = 0,
    /// It crashed; the report is on the kernel's log.
    Crashed = 1,
    /// It could not be started; the reason is on the kernel's log.
    BadInput = 2,
    /// It starts anew.
    Rebooted = 3,
}

impl EndStatus {
    /// The status with this number, if there is one.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        [Self::PoweredOff, Self::Crashed, Self::BadInput, Self::Rebooted]
            .into_iter()
            .find(|status| *status as u64 == raw)
    }
}
