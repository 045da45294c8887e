//! What the tests of devices share.

use dragonfly_vhost_user::RingConfig;
use dragonfly_virtqueue::QueueConfig;

/// A ring as a session describes it to a device.
pub fn ring_config(config: &QueueConfig) -> RingConfig {
    RingConfig {
        size: config.size,
        base: config.state.to_vring_base(config.is_packed()),
        descriptor: config.addresses.descriptors.0,
        available: config.addresses.driver.0,
        used: config.addresses.device.0,
    }
}
