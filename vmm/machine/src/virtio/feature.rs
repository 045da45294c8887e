//! Features that are the transport's, not the device's (virtio 1.2, 6).

/// The device is not a legacy one: drivers must accept it.
pub(super) const VERSION_1: u64 = 1 << 32;
/// Queues are packed rings.
pub(super) const RING_PACKED: u64 = 1 << 34;
/// A queue can be reset by itself.
pub(super) const RING_RESET: u64 = 1 << 40;

/// What the function serves, whatever its back end offers.
const SERVED: u64 = VERSION_1 | RING_RESET;

/// What it does not, whatever its back end offers: vhost-user's protocol features (bit 30), SR-IOV, data in notifications
/// (doorbells tell only that they rang, so `NOTIFICATION_DATA` and `NOTIF_CONFIG_DATA` would be lost) and the administration
/// queue.
const UNSERVED: u64 = 1 << 30 | 1 << 37 | 1 << 38 | 1 << 39 | 1 << 41;

/// What the driver is offered by a function whose back end offers `features`.
pub(super) const fn offered(features: u64) -> u64 {
    features & !UNSERVED | SERVED
}

/// Whether a driver may accept these of the offered features.
pub(super) const fn may_accept(offered: u64, accepted: u64) -> bool {
    accepted & !offered == 0 && accepted & VERSION_1 != 0
}
