//! Why a queue stops, or does not start.

use thiserror::Error;

use crate::memory::GuestAddress;
use crate::{MAX_SEGMENTS, RingPart};

/// What is wrong with a queue.
///
/// Up to [`QueueError::AvailableTwice`] it is the driver's fault: the queue has stopped, which
/// [`Queue::error`](crate::Queue::error) goes on telling, and nothing but a reset starts it again. Then come mistakes in
/// how a queue is set up, of who does that; and at the end the device's own, which stop nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// A part of the ring is not, or no longer, in the guest's memory.
    #[error("the {0} is not in the guest's memory")]
    RingUnmapped(RingPart),
    /// More buffers are available than the queue has entries (virtio 1.2, 2.7.13).
    #[error("available index {available} is more than {size} ahead of the device's {used}")]
    AvailableTooFar {
        /// The driver's index.
        available: u16,
        /// How far the device has used them.
        used: u16,
        /// The queue's size.
        size: u16,
    },
    /// A head or next index beyond the descriptor table (2.7.5, 2.7.6).
    #[error("descriptor {index} is not in the table, which has {size}")]
    DescriptorIndex {
        /// The index.
        index: u16,
        /// Entries of the table, the queue's or an indirect one.
        size: u32,
    },
    /// More descriptors in a chain than the table has: a loop (2.7.5.1, 2.8.17).
    #[error("a chain has more descriptors than its table: it has a loop")]
    ChainTooLong,
    /// More segments than this device takes (2.7.4.1, 2.8.5).
    #[error("a chain has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// More than 2^32 bytes (2.7.5.2).
    #[error("a chain has more than 2^32 bytes")]
    ChainTooLarge,
    /// A buffer that ends beyond the last address.
    #[error("a buffer at {0} ends beyond the last address")]
    SegmentWraps(GuestAddress),
    /// A device-readable buffer behind a writable one (2.7.4.2, 2.8.17).
    #[error("a readable buffer follows a writable one")]
    ReadableAfterWritable,
    /// An indirect descriptor without the feature (2.7.5.3.1, 2.8.19).
    #[error("an indirect descriptor, but the feature was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect descriptor in an indirect table (2.7.5.3.1).
    #[error("an indirect descriptor in an indirect table")]
    IndirectOfIndirect,
    /// An indirect descriptor that has a next one, or in a packed ring is next to one (2.7.5.3.1, 2.8.19).
    #[error("an indirect descriptor is chained to others in a way that is not allowed")]
    IndirectChained,
    /// The length of an indirect table is zero or not a multiple of 16 (2.7.5.3, 2.8.7).
    #[error("an indirect table has {0} bytes, which is no multiple of 16 or zero")]
    IndirectLength(u32),
    /// An indirect table outside of the guest's memory.
    #[error("an indirect table at {0} is not in the guest's memory")]
    IndirectUnmapped(GuestAddress),
    /// A chain in a packed ring whose first descriptor was made available before another one (2.8.17).
    #[error("the descriptor at {0} belongs to an available chain and is not available")]
    ChainIncomplete(u16),
    /// The head of a chain was made available again while the device has it (2.7.13.1).
    #[error("the chain at {0} was made available while it was in use")]
    AvailableTwice(u16),

    /// The size is zero, above 32768, or of a split ring and no power of two (2.7, 2.8.10.1).
    #[error("a queue cannot have {0} entries")]
    Size(u16),
    /// An address is not aligned as the part needs (2.7, 2.8.10.1).
    #[error("the {0} is not aligned")]
    Alignment(RingPart),
    /// A part ends beyond the last address.
    #[error("the {0} ends beyond the last address")]
    RingWraps(RingPart),
    /// The position is outside of the ring.
    #[error("the position to go on at is not in the ring")]
    Position,
    /// In-flight tracking without memory for it, or with too little.
    #[error("the memory for what is in flight is too small or missing")]
    InFlightMemory,
    /// What the memory for tracking says is no state of this queue.
    #[error("the memory for what is in flight does not hold the state of this queue")]
    InFlightState,

    /// The chain belongs to the queue as it was before a reset (2.6.1.1), or was never taken from it.
    #[error("the chain was not taken from this queue since it was reset")]
    NotInFlight,
    /// With VIRTIO_F_IN_ORDER, an earlier chain has to be used first (2.7.9, 2.8.8).
    #[error("an earlier chain has to be used first")]
    OutOfOrder,
}
