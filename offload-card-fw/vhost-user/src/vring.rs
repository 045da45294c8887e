//! What is known of one ring.

use crate::wire::VringAddress;

/// The most queues that a device has here: virtio-net's eight pairs and its control queue are 17.
pub const MAX_QUEUES: usize = 32;

/// What the front end has said of a ring so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Vring {
    /// Number of descriptors, not zero.
    pub size: Option<u16>,
    /// Where it is, in the front end's addresses.
    pub addresses: Option<VringAddress>,
    /// Where to go on.
    pub base: u32,
    /// Whether it was said how buffers are told of, which asks for the ring to be started.
    pub has_kick: bool,
    /// Whether it may be served.
    pub is_enabled: bool,
    /// Whether the device serves it.
    pub runs: bool,
}
