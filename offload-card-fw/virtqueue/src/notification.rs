//! What a driver's notification says.

use crate::{Position, RingFeatures};

/// A notification of available buffers (virtio 1.2, 2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The queue, by its number or by what the transport had given it for this purpose.
    pub queue: u16,
    /// With VIRTIO_F_NOTIFICATION_DATA: the next place that the driver will make available. An allegation: it may say
    /// when to look at the ring, not what is there.
    pub next_available: Option<Position>,
}

impl Notification {
    /// Takes apart the word that the driver wrote: of 16 bits, or of 32 with VIRTIO_F_NOTIFICATION_DATA.
    #[must_use]
    pub const fn parse(word: u32, features: RingFeatures) -> Self {
        let queue = word as u16;
        if !features.contains(RingFeatures::NOTIFICATION_DATA) {
            return Self { queue, next_available: None };
        }
        let next = (word >> 16) as u16;
        let next = if features.contains(RingFeatures::RING_PACKED) {
            Position::from_packed(next)
        } else {
            Position { index: next, wrap: true }
        };
        Self { queue, next_available: Some(next) }
    }
}
