//! Messages between VMMs, the front ends, and the card.
//!
//! The card provides the gate [`GATE_NAME`]. A VMM attaches as a machine of the bundle, whose devices are then its own; each
//! device has a vhost-user session, whose messages are carried one by one. What travels beside them as file descriptors on
//! Linux are handles here:
//!
//! | request | handle |
//! | --- | --- |
//! | `SET_MEM_TABLE`, `ADD_MEM_REG` | Memory of the guest's RAM, READ and WRITE |
//! | `SET_VRING_KICK` | a copy of the Notification that [`Request::Attach`] brought: this ring is kicked and not polled |
//! | `SET_VRING_CALL`, `SET_VRING_ERR` | a Notification, SEND: signals interrupt the guest, or tell the VMM that a ring is broken |
//! | `SET_BACKEND_REQ_FD` | a Notification, SEND: a signal stands for `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`, the only message there |
//! | `SET_INFLIGHT_FD` | Memory, READ and WRITE, that the VMM keeps for the card's successor |
//!
//! The addresses of the front end, of rings and memory regions, are guest-physical ones. `GET_INFLIGHT_FD` is not for gates.
//!
//! Attaching brings a second Notification, which is never signalled. It goes with the card: who waits for it is told `Aborted`
//! then, and who comes later `BadHandle`. A card that was started again knows nothing of the sessions before, so the VMM
//! attaches anew; its handle of the gate leads there.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

/// Name of the card's gate among a domain's handles.
pub const GATE_NAME: &str = "card";

/// Place of the Notification that kicks the guest's rings among the handles that answer [`Request::Attach`]: SEND and COPY.
pub const KICK_HANDLE: usize = 0;

/// Place of the Notification that goes with the card among those handles: RECEIVE.
pub const LIFE_HANDLE: usize = 1;

/// Bytes of memory that a VMM makes for each queue's requests under way (`SET_INFLIGHT_FD`): enough for the largest ring that
/// is kept account of, and for all that commands of a network device's driver set.
pub const IN_FLIGHT_BYTES_PER_QUEUE: u64 = 128 << 10;

/// The most handles that come with a message: as many as a memory table has regions.
pub const MAX_HANDLES: u32 = 8;

const ATTACH: u32 = 1;
const MESSAGE: u32 = 2;
const OUTCOME: u32 = 3;

/// What a VMM asks of the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Takes the devices of a machine file. They belong to the first VMM that does, by the badge of its handle; when the same
    /// one attaches again all its sessions are ended, to begin anew. The answer's first word is [`Devices`], and two handles come
    /// with it: [`KICK_HANDLE`] and [`LIFE_HANDLE`].
    Attach {
        /// Number of the machine file, `machines/N.toml` in the bundle.
        machine: u32,
    },
    /// A vhost-user message: the bytes of header and payload, with its handles. The answer has the bytes of vhost-user's
    /// reply, or none.
    Message {
        /// The device: disks come first, then network devices, then sources of random numbers, then sockets, then
        /// consoles, each in the machine file's order.
        device: u32,
    },
    /// What became of the message to the device that was answered by [`Answer::Later`], answered as the message would have
    /// been. Another message in place of this ends the session, as of a VMM that has given up, and begins a new one.
    Outcome {
        /// The device.
        device: u32,
    },
}

impl Request {
    /// The request of a message's label and first word; `None` if there is no such request.
    #[must_use]
    pub fn decode(label: u32, word: u64) -> Option<Self> {
        let number = u32::try_from(word).ok()?;
        match label {
            ATTACH => Some(Self::Attach { machine: number }),
            MESSAGE => Some(Self::Message { device: number }),
            OUTCOME => Some(Self::Outcome { device: number }),
            _ => None,
        }
    }

    /// Label and first word.
    #[must_use]
    pub const fn encode(self) -> (u32, u64) {
        match self {
            Self::Attach { machine } => (ATTACH, machine as u64),
            Self::Message { device } => (MESSAGE, device as u64),
            Self::Outcome { device } => (OUTCOME, device as u64),
        }
    }
}

/// Label of the card's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Answer {
    /// It was done.
    Done = 0,
    /// There is no such machine, device or request, or it is another VMM's. Nothing was changed.
    Refused = 1,
    /// The message broke the protocol, or its memory cannot be mapped: the card has logged why and ended the device's session.
    /// The next message begins a new one.
    Closed = 2,
    /// The device waits for a physical disk, and does what the message says when that has come to an end. Ask by
    /// [`Request::Outcome`] every now and then.
    Later = 3,
}

impl Answer {
    /// The answer with this label; one that is not known was not done.
    #[must_use]
    pub const fn decode(label: u32) -> Self {
        match label {
            0 => Self::Done,
            2 => Self::Closed,
            3 => Self::Later,
            _ => Self::Refused,
        }
    }
}

/// How many devices a machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Disks, the devices from 0 on.
    pub disks: u8,
    /// Network devices, those that follow.
    pub nets: u8,
    /// Sources of random numbers, the next.
    pub rngs: u8,
    /// Socket devices, the next.
    pub vsocks: u8,
    /// Consoles, the last.
    pub consoles: u8,
}

impl Devices {
    /// The first word of the answer to [`Request::Attach`]: a byte for each kind.
    #[must_use]
    pub const fn encode(self) -> u64 {
        u64::from_le_bytes([self.disks, self.nets, self.rngs, self.vsocks, self.consoles, 0, 0, 0])
    }

    /// The same, back; `None` if there are devices of kinds that are not known.
    #[must_use]
    pub const fn decode(word: u64) -> Option<Self> {
        match word.to_le_bytes() {
            [disks, nets, rngs, vsocks, consoles, 0, 0, 0] => Some(Self { disks, nets, rngs, vsocks, consoles }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_decoded_as_they_were_encoded() {
        for request in
            [Request::Attach { machine: 7 }, Request::Message { device: u32::MAX }, Request::Outcome { device: 1 }]
        {
            let (label, word) = request.encode();
            assert_eq!(Request::decode(label, word), Some(request));
        }
    }

    #[test]
    fn what_is_no_request_is_none() {
        for (label, word) in [(0, 0), (4, 0), (u32::MAX, 0), (1, 1 << 32), (2, u64::MAX)] {
            assert_eq!(Request::decode(label, word), None, "{label} {word}");
        }
    }

    #[test]
    fn answers_are_decoded_as_they_were_encoded_and_unknown_ones_are_refusals() {
        for answer in [Answer::Done, Answer::Refused, Answer::Closed, Answer::Later] {
            assert_eq!(Answer::decode(answer as u32), answer);
        }
        assert_eq!(Answer::decode(4), Answer::Refused);
    }

    #[test]
    fn numbers_of_devices_are_decoded_as_they_were_encoded() {
        let devices = Devices { disks: 2, nets: 31, rngs: 1, vsocks: 3, consoles: 4 };
        assert_eq!(Devices::decode(devices.encode()), Some(devices));
        assert_eq!(Devices::decode(1 << 56), None);
        assert_eq!(Devices::decode(u64::MAX), None);
    }
}
