//! Packets between a guest's socket driver and the card (virtio 1.2 5.10.6).

use core::mem::offset_of;

use bitflags::bitflags;
use zerocopy::{
    FromBytes, Immutable, IntoBytes,
    little_endian::{U16, U32, U64},
};

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub const STREAM: u16 = 1;

/// What comes before the data of a packet: `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Header {
    /// The sender's guest.
    pub source_cid: U64,
    /// The receiver's.
    pub destination_cid: U64,
    /// The sender's end there.
    pub source_port: U32,
    /// The receiver's.
    pub destination_port: U32,
    /// Bytes of data.
    pub len: U32,
    /// [`STREAM`], the field `type`.
    pub kind: U16,
    /// An [`Operation`].
    pub operation: U16,
    /// Of a shutdown: [`Shutdown`].
    pub flags: U32,
    /// Bytes that the sender has room for in all, `buf_alloc`.
    pub room: U32,
    /// Bytes that it has taken out of there since the connection began, `fwd_cnt`; 2^32 is 0 again.
    pub forwarded: U32,
}

const _: () =
    assert!(size_of::<Header>() == 44 && offset_of!(Header, len) == 24 && offset_of!(Header, forwarded) == 40);

/// What a packet says (5.10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// May there be a connection?
    Request = 1,
    /// There is.
    Response = 2,
    /// There is none, or no longer.
    Reset = 3,
    /// The sender does some things no more: [`Shutdown`].
    Shutdown = 4,
    /// Bytes of the stream.
    Data = 5,
    /// The numbers of the header are new.
    CreditUpdate = 6,
    /// What are the numbers?
    CreditRequest = 7,
}

bitflags! {
    /// Of [`Operation::Shutdown`]: what its sender does no more.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Shutdown: u32 {
        /// It takes no more.
        const RECEIVE = 1;
        /// It sends no more.
        const SEND = 2;
    }
}

impl Operation {
    /// The operation of a header; `None` for one that is none.
    #[must_use]
    pub fn of(header: &Header) -> Option<Self> {
        Some(match header.operation.get() {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

impl Header {
    /// The answer to a packet that belongs to no connection.
    pub(super) fn refusal(&self) -> Self {
        Self {
            source_cid: self.destination_cid,
            destination_cid: self.source_cid,
            source_port: self.destination_port,
            destination_port: self.source_port,
            kind: self.kind,
            operation: U16::new(Operation::Reset as u16),
            ..Self::default()
        }
    }
}
