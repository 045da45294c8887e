//! The numbers of the protocol, big-endian all of them.

use bitflags::bitflags;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// `NBDMAGIC`.
pub(super) const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
pub(super) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const REPLY_MAGIC: u32 = 0x6744_6698;

/// `NBD_FLAG_FIXED_NEWSTYLE`, and `NBD_FLAG_C_FIXED_NEWSTYLE`.
pub(super) const FIXED_NEWSTYLE: u16 = 1 << 0;
/// `NBD_FLAG_NO_ZEROES`, and `NBD_FLAG_C_NO_ZEROES`.
pub(super) const NO_ZEROES: u16 = 1 << 1;

pub(super) const OPTION_GO: u32 = 7;

pub(super) const REPLY_ACK: u32 = 1;
pub(super) const REPLY_INFO: u32 = 3;
/// Marks replies that are errors.
pub(super) const REPLY_ERROR: u32 = 1 << 31;
pub(super) const ERROR_UNSUPPORTED: u32 = REPLY_ERROR | 1;
pub(super) const ERROR_POLICY: u32 = REPLY_ERROR | 2;
pub(super) const ERROR_TLS_REQUIRED: u32 = REPLY_ERROR | 5;
pub(super) const ERROR_UNKNOWN: u32 = REPLY_ERROR | 6;
pub(super) const ERROR_SHUTDOWN: u32 = REPLY_ERROR | 7;
pub(super) const ERROR_BLOCK_SIZE_REQUIRED: u32 = REPLY_ERROR | 8;

pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

pub(super) const COMMAND_READ: u16 = 0;
pub(super) const COMMAND_WRITE: u16 = 1;
pub(super) const COMMAND_FLUSH: u16 = 3;
pub(super) const COMMAND_TRIM: u16 = 4;
pub(super) const COMMAND_WRITE_ZEROES: u16 = 6;

/// `NBD_CMD_FLAG_FUA`: what the command changes is safe when it ends.
pub(super) const COMMAND_FLAG_FUA: u16 = 1 << 0;
/// `NBD_CMD_FLAG_NO_HOLE`: zeros keep their space.
pub(super) const COMMAND_FLAG_NO_HOLE: u16 = 1 << 1;

/// `NBD_EPERM`.
pub(super) const EPERM: u32 = 1;
/// `NBD_ENOSPC`.
pub(super) const ENOSPC: u32 = 28;
/// `NBD_ESHUTDOWN`.
pub(super) const ESHUTDOWN: u32 = 108;

bitflags! {
    /// What a server can do with an export, as far as it is made use of here.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct TransmissionFlags: u16 {
        /// The other flags mean something.
        const HAS_FLAGS = 1 << 0;
        /// It cannot be changed.
        const READ_ONLY = 1 << 1;
        /// There is a flush.
        const SEND_FLUSH = 1 << 2;
        /// Writes can be asked to be safe when they end.
        const SEND_FUA = 1 << 3;
        /// There is a trim.
        const SEND_TRIM = 1 << 5;
        /// Zeros can be written without sending them.
        const SEND_WRITE_ZEROES = 1 << 6;
    }
}

/// The first that a server sends.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Greeting {
    pub(super) magic: U64,
    pub(super) option_magic: U64,
    pub(super) flags: U16,
}

/// What precedes an option's data.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct OptionHeader {
    pub(super) magic: U64,
    pub(super) option: U32,
    pub(super) bytes: U32,
}

/// What precedes the data of an option's reply.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct OptionReply {
    pub(super) magic: U64,
    pub(super) option: U32,
    pub(super) kind: U32,
    pub(super) bytes: U32,
}

/// `NBD_INFO_EXPORT`.
#[derive(FromBytes, Immutable)]
#[repr(C)]
pub(super) struct InfoExport {
    pub(super) kind: U16,
    pub(super) bytes: U64,
    pub(super) flags: U16,
}

/// `NBD_INFO_BLOCK_SIZE`.
#[derive(FromBytes, Immutable)]
#[repr(C)]
pub(super) struct InfoBlockSize {
    pub(super) kind: U16,
    pub(super) least_bytes: U32,
    pub(super) best_bytes: U32,
    pub(super) most_bytes: U32,
}

/// What precedes the data of a command.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct RequestHeader {
    pub(super) magic: U32,
    pub(super) flags: U16,
    pub(super) kind: U16,
    pub(super) cookie: U64,
    pub(super) offset: U64,
    pub(super) bytes: U32,
}

/// A simple reply, which precedes what a read gives.
#[derive(FromBytes, Immutable)]
#[repr(C)]
pub(super) struct Reply {
    pub(super) magic: U32,
    pub(super) error: U32,
    pub(super) cookie: U64,
}
