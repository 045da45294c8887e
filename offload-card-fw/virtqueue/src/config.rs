//! What a queue is made of: its size, addresses, features and the place to go on at.

use core::fmt;

use bitflags::bitflags;

use crate::QueueError;
use crate::memory::GuestAddress;

/// Entries of the largest queue (virtio 1.2, 2.7.13, 2.8).
pub const MAX_QUEUE_SIZE: u16 = 1 << 15;

bitflags! {
    /// The negotiated features that concern rings (virtio 1.2, 6).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RingFeatures: u64 {
        /// VIRTIO_F_INDIRECT_DESC: descriptors may refer to tables of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// VIRTIO_F_EVENT_IDX: either side says at which index it wants to be notified.
        const EVENT_IDX = 1 << 29;
        /// VIRTIO_F_VERSION_1: not a legacy device.
        const VERSION_1 = 1 << 32;
        /// VIRTIO_F_ACCESS_PLATFORM: addresses are those of the device's DMA space.
        const ACCESS_PLATFORM = 1 << 33;
        /// VIRTIO_F_RING_PACKED: the packed layout.
        const RING_PACKED = 1 << 34;
        /// VIRTIO_F_IN_ORDER: buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// VIRTIO_F_ORDER_PLATFORM: memory is ordered as for any device of the platform; barriers here are full ones.
        const ORDER_PLATFORM = 1 << 36;
        /// VIRTIO_F_NOTIFICATION_DATA: notifications say what is available.
        const NOTIFICATION_DATA = 1 << 38;
        /// VIRTIO_F_RING_RESET: queues can be reset one by one.
        const RING_RESET = 1 << 40;
    }
}

/// A part of a ring. The names are those that fit both layouts (virtio 1.2, 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingPart {
    /// Split: the descriptor table. Packed: the descriptor ring.
    Descriptors,
    /// Split: the available ring. Packed: the driver's event suppression.
    Driver,
    /// Split: the used ring. Packed: the device's event suppression.
    Device,
}

impl fmt::Display for RingPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "descriptor area",
            Self::Driver => "driver area",
            Self::Device => "device area",
        })
    }
}

/// Where the parts of a ring are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingAddresses {
    /// Split: the descriptor table. Packed: the descriptor ring.
    pub descriptors: GuestAddress,
    /// Split: the available ring. Packed: the driver's event suppression.
    pub driver: GuestAddress,
    /// Split: the used ring. Packed: the device's event suppression.
    pub device: GuestAddress,
}

/// A place in a ring.
///
/// Of a split ring the index runs through all values of 16 bits, and `wrap` means nothing. Of a packed ring the index is
/// below the size, and `wrap` is the ring wrap counter (virtio 1.2, 2.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The next descriptor or ring entry.
    pub index: u16,
    /// The wrap counter of a packed ring.
    pub wrap: bool,
}

impl Position {
    /// Where both sides begin: index 0, and the wrap counter 1 of a packed ring.
    pub const START: Self = Self { index: 0, wrap: true };

    /// From the 16 bits in which vhost and notifications of packed rings keep it: the wrap counter in the top bit.
    #[must_use]
    pub const fn from_packed(bits: u16) -> Self {
        Self { index: bits & 0x7fff, wrap: bits & 0x8000 != 0 }
    }

    /// The position `count` descriptors further on in a packed ring of `size`, at most one lap.
    #[inline]
    #[must_use]
    pub(crate) const fn advance_packed(self, count: u16, size: u16) -> Self {
        // No overflow: both are at most 32768, and the index is below.
        let index = self.index as u32 + count as u32;
        if index < size as u32 {
            Self { index: index as u16, wrap: self.wrap }
        } else {
            Self { index: (index - size as u32) as u16, wrap: !self.wrap }
        }
    }

    /// The position `count` descriptors before in a packed ring of `size`, at most one lap.
    #[must_use]
    pub(crate) const fn retreat_packed(self, count: u16, size: u16) -> Self {
        match self.index.checked_sub(count) {
            Some(index) => Self { index, wrap: self.wrap },
            // No overflow: the index is below the count, which is at most the size.
            None => Self { index: size - (count - self.index), wrap: !self.wrap },
        }
    }

    /// The inverse of [`Self::from_packed`].
    #[must_use]
    pub const fn to_packed(self) -> u16 {
        (self.index & 0x7fff) | ((self.wrap as u16) << 15)
    }
}

/// How far the device has come in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// The next buffer to take.
    pub next_available: Position,
    /// The next buffer to give back.
    pub next_used: Position,
}

impl Default for QueueState {
    fn default() -> Self {
        Self { next_available: Position::START, next_used: Position::START }
    }
}

impl QueueState {
    /// Of a split ring that goes on at `next_available`, with nothing in flight: what VHOST_USER_SET_VRING_BASE tells.
    #[must_use]
    pub const fn split(next_available: u16) -> Self {
        let position = Position { index: next_available, wrap: true };
        Self { next_available: position, next_used: position }
    }

    /// Of a packed ring from a vring base of vhost-user: the next available position in the lower half, the next used
    /// one in the upper, each with its wrap counter in the top bit.
    #[must_use]
    pub const fn packed(base: u32) -> Self {
        Self {
            next_available: Position::from_packed(base as u16),
            next_used: Position::from_packed((base >> 16) as u16),
        }
    }

    /// The vring base of vhost-user, for a ring of this layout.
    #[must_use]
    pub const fn to_vring_base(self, is_packed: bool) -> u32 {
        if is_packed {
            self.next_available.to_packed() as u32 | (self.next_used.to_packed() as u32) << 16
        } else {
            self.next_available.index as u32
        }
    }
}

/// All that a queue needs to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Entries: 1 to 32768, of a split ring a power of two.
    pub size: u16,
    /// Where the ring is.
    pub addresses: RingAddresses,
    /// What was negotiated.
    pub features: RingFeatures,
    /// Where to go on; the default is the start of a new ring.
    pub state: QueueState,
}

impl QueueConfig {
    /// Whether the ring has the packed layout.
    #[inline]
    #[must_use]
    pub const fn is_packed(&self) -> bool {
        self.features.contains(RingFeatures::RING_PACKED)
    }

    /// How many descriptors of a packed ring lie between the used and the available position.
    pub(crate) const fn packed_in_flight(&self) -> u16 {
        let QueueState { next_available, next_used } = self.state;
        let laps = if next_available.wrap == next_used.wrap { 0 } else { self.size };
        next_available.index.wrapping_sub(next_used.index).wrapping_add(laps)
    }

    /// Address, bytes and alignment of each part (virtio 1.2, 2.7 and 2.8.10.1).
    pub(crate) fn parts(&self) -> [(RingPart, GuestAddress, usize, u64); 3] {
        let size = usize::from(self.size);
        let event = if self.features.contains(RingFeatures::EVENT_IDX) { 2 } else { 0 };
        let (driver, driver_alignment, device) =
            if self.is_packed() { (4, 4, 4) } else { (4 + 2 * size + event, 2, 4 + 8 * size + event) };
        [
            (RingPart::Descriptors, self.addresses.descriptors, 16 * size, 16),
            (RingPart::Driver, self.addresses.driver, driver, driver_alignment),
            (RingPart::Device, self.addresses.device, device, 4),
        ]
    }

    /// Everything that can be known to be wrong without looking at memory.
    pub(crate) fn check(&self) -> Result<(), QueueError> {
        if self.size == 0 || self.size > MAX_QUEUE_SIZE || (!self.is_packed() && !self.size.is_power_of_two()) {
            return Err(QueueError::Size(self.size));
        }
        for (part, address, len, alignment) in self.parts() {
            if address.0 % alignment != 0 {
                return Err(QueueError::Alignment(part));
            }
            if address.checked_add(len as u64).is_none() {
                return Err(QueueError::RingWraps(part));
            }
        }
        let QueueState { next_available, next_used } = self.state;
        let in_flight = if self.is_packed() {
            if next_available.index >= self.size || next_used.index >= self.size {
                return Err(QueueError::Position);
            }
            self.packed_in_flight()
        } else {
            next_available.index.wrapping_sub(next_used.index)
        };
        if in_flight <= self.size { Ok(()) } else { Err(QueueError::Position) }
    }
}
