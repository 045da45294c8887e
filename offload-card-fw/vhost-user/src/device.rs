//! What a session needs of a virtio device.

use core::fmt::{Debug, Display};

use crate::feature::ProtocolFeatures;

/// A virtio device behind a session: it serves rings whose place the session has found out.
pub trait Device {
    /// Why a ring cannot be started.
    type RingError: Debug + Display;

    /// The virtio features that the device offers.
    fn features(&self) -> u64;

    /// Takes those of the offered features that driver and front end use; rings started from now on have them.
    fn set_features(&mut self, features: u64);

    /// The extensions of the protocol that are offered for the device; that for requests under way is left out by itself
    /// for one that keeps no state of them. `BACKEND_REQ` is for one whose configuration space changes by itself.
    fn extensions(&self) -> ProtocolFeatures {
        ProtocolFeatures::all() - ProtocolFeatures::BACKEND_REQ
    }

    /// Number of queues, at most [`MAX_QUEUES`](crate::MAX_QUEUES).
    fn queues(&self) -> u16;

    /// The number of queues as front ends are told it: those of network devices count pairs, without the control queue.
    fn told_queues(&self) -> u16 {
        self.queues()
    }

    /// Reads the configuration space from `offset` on; bytes beyond its end are zero.
    fn read_config(&self, offset: usize, into: &mut [u8]);

    /// Writes to the configuration space.
    ///
    /// # Errors
    /// A byte of it is read-only or outside.
    fn write_config(&mut self, offset: usize, from: &[u8]) -> Result<(), ConfigError>;

    /// Begins to serve a ring.
    ///
    /// # Errors
    /// The ring is not one that the device can serve.
    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), Self::RingError>;

    /// Ends serving a ring, with all its requests completed or given back, and says where it stands: what
    /// `SET_VRING_BASE` takes to go on there.
    fn stop_ring(&mut self, index: u16) -> u32;

    /// Puts the device's state back to what it was at first. No ring runs.
    fn reset(&mut self);

    /// Bytes that the state of requests under way takes for each queue of this size, with the features that are set; `None`
    /// for a device that keeps none, or a size that no queue has.
    fn inflight_len(&self, queue_size: u16) -> Option<u64>;
}

/// A ring as the front end describes it, with addresses found to lie in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Number of descriptors, not zero.
    pub size: u16,
    /// Where to go on: for a split ring the next index of the available ring, for a packed ring that and the index of used
    /// descriptors, each with a wrap counter in its bit 15.
    pub base: u32,
    /// Guest-physical address of the descriptor table, or of a packed ring.
    pub descriptor: u64,
    /// Guest-physical address of the available ring, or of the driver's event suppression area.
    pub available: u64,
    /// Guest-physical address of the used ring, or of the device's event suppression area.
    pub used: u64,
}

/// The configuration space was not written to: the driver's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes of the configuration space cannot be written")]
pub struct ConfigError;
