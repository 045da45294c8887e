//! Rings as a session describes them, made into queues.

use dragonfly_vhost_user::RingConfig;
use dragonfly_virtqueue::{GuestAddress, Queue, QueueConfig, QueueError, QueueState, RingAddresses, RingFeatures};

/// The features of rings that devices offer.
pub const OFFERED: RingFeatures =
    RingFeatures::INDIRECT_DESC.union(RingFeatures::EVENT_IDX).union(RingFeatures::VERSION_1);

/// A queue that goes on where the session says.
///
/// # Errors
/// The ring cannot be one.
pub fn start(config: RingConfig, features: u64) -> Result<Queue, QueueError> {
    let features = RingFeatures::from_bits_truncate(features);
    let state = if features.contains(RingFeatures::RING_PACKED) {
        QueueState::packed(config.base)
    } else {
        // An index of 16 bits; whatever else a front end says is cut off.
        QueueState::split(config.base as u16)
    };
    Queue::new(QueueConfig {
        size: config.size,
        addresses: RingAddresses {
            descriptors: GuestAddress(config.descriptor),
            driver: GuestAddress(config.available),
            device: GuestAddress(config.used),
        },
        features,
        state,
    })
}
