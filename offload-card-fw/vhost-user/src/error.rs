//! Why a session ends.

use thiserror::Error;

use crate::request::Request;

/// A message that is none: the front end's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The flags name another version of the protocol than 1.
    #[error("message of another version of vhost-user than 1 (flags {flags:#x})")]
    Version {
        /// The flags.
        flags: u32,
    },
    /// An answer came, but nothing had been asked.
    #[error("an answer that nothing was asked for")]
    UnaskedReply,
    /// The request's number is unknown, or is that of an extension that was not offered.
    #[error("request {id} is unknown, or was not offered")]
    UnknownRequest {
        /// The number.
        id: u32,
    },
    /// More bytes are announced than any request has.
    #[error("{request:?} announces {size} bytes, more than any request has")]
    TooLong {
        /// The request.
        request: Request,
        /// Bytes announced.
        size: u32,
    },
    /// The payload is shorter or longer than this request's.
    #[error("{request:?} has {size} bytes, which is no length of it")]
    WrongLength {
        /// The request.
        request: Request,
        /// Bytes that came.
        size: usize,
    },
    /// Too many or too few resources came along.
    #[error("{request:?} came with {found} resources in place of {wanted}")]
    WrongResources {
        /// The request.
        request: Request,
        /// How many came.
        found: usize,
        /// How many belong to it.
        wanted: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{request:?}: {value:#x} is no value of its {field}")]
    WrongValue {
        /// The request.
        request: Request,
        /// The field.
        field: &'static str,
        /// The value.
        value: u64,
    },
}

/// Why a session must be closed. `D` says why a device does not start a ring, `P` why a platform does not map memory.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError<D, P> {
    /// The message is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Features are asked for that were not offered.
    #[error("features {extra:#x} are set but were not offered")]
    Features {
        /// Those that were not.
        extra: u64,
    },
    /// The request belongs to an extension that was not negotiated.
    #[error("{request:?} belongs to an extension that was not negotiated")]
    NotNegotiated {
        /// The request.
        request: Request,
    },
    /// The device has no such queue.
    #[error("queue {index} is named, but the device has {queues}")]
    NoSuchQueue {
        /// The queue named.
        index: u32,
        /// Number of queues.
        queues: u16,
    },
    /// A ring's place or features are changed while it runs.
    #[error("{request:?} would change ring {index}, which runs")]
    RingRuns {
        /// The request.
        request: Request,
        /// The queue.
        index: u16,
    },
    /// Part of a ring is outside the guest's memory.
    #[error("the {part} of ring {index}, at {address:#x} of the front end, is outside the guest's memory")]
    RingOutside {
        /// The queue.
        index: u16,
        /// Which part.
        part: &'static str,
        /// The front end's address.
        address: u64,
    },
    /// A region of memory is empty, or goes beyond 64 bits.
    #[error("the memory region at {guest_address:#x} has {size:#x} bytes, which is none or too many")]
    RegionSize {
        /// Its guest-physical address.
        guest_address: u64,
        /// Its size in bytes.
        size: u64,
    },
    /// Two regions share addresses.
    #[error("the memory region at {guest_address:#x} overlaps another")]
    RegionOverlaps {
        /// Its guest-physical address.
        guest_address: u64,
    },
    /// There are more regions than are kept.
    #[error("there are more than {most} memory regions", most = crate::MAX_REGIONS)]
    TooManyRegions,
    /// A region is to be removed that there is not.
    #[error("there is no memory region at {guest_address:#x} to remove")]
    NoSuchRegion {
        /// Its guest-physical address.
        guest_address: u64,
    },
    /// The device refuses a ring.
    #[error("ring {index}: {reason}")]
    Ring {
        /// The queue.
        index: u16,
        /// The device's reason.
        reason: D,
    },
    /// Memory cannot be mapped.
    #[error("memory cannot be mapped: {0}")]
    Memory(P),
    /// The area for requests under way does not fit the device's queues.
    #[error("an area of {size} bytes for requests under way, where {needed} are needed")]
    InflightSize {
        /// Its bytes.
        size: u64,
        /// Bytes that the queues need.
        needed: u64,
    },
}
