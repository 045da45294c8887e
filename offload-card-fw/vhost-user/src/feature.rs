//! Extensions of the protocol.

use bitflags::bitflags;

/// The virtio feature bit by which a back end says that it has [`ProtocolFeatures`].
pub const F_PROTOCOL_FEATURES: u64 = 1 << 30;

bitflags! {
    /// Extensions of the protocol (`VHOST_USER_PROTOCOL_F_*`) that sessions know.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ProtocolFeatures: u64 {
        /// Several queues, whose number can be asked for.
        const MQ = 1 << 0;
        /// Any request can be acknowledged.
        const REPLY_ACK = 1 << 3;
        /// The back end tells the front end something of its own accord, by a channel that it is given.
        const BACKEND_REQ = 1 << 5;
        /// The configuration space is the back end's.
        const CONFIG = 1 << 9;
        /// The state of requests under way outlives the connection.
        const INFLIGHT_SHMFD = 1 << 12;
        /// The device can be reset.
        const RESET_DEVICE = 1 << 13;
        /// Regions of memory can come and go one by one.
        const CONFIGURE_MEM_SLOTS = 1 << 15;
        /// The virtio device's status is told to the back end.
        const STATUS = 1 << 16;
    }
}
