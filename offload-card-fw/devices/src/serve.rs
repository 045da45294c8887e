//! What a worker needs of a device.

use dragonfly_vhost_user::Device;
use dragonfly_virtqueue::{GuestMemory, QueueError};

/// A device whose rings a worker serves. Those that serve each other (the ports of a switch) are served by one worker, and
/// share what [`Self::Shared`] holds.
pub trait Serve: Device<RingError = QueueError> {
    /// What the devices of a worker have in common.
    type Shared;

    /// The device's name.
    fn name(&self) -> &str;

    /// Serves a ring for a bounded time; `now_ns` is the time since some moment, in nanoseconds.
    ///
    /// # Errors
    /// The ring is broken and has stopped, which is said once.
    fn serve<M: GuestMemory>(
        &mut self,
        shared: &mut Self::Shared,
        index: u16,
        memory: &M,
        now_ns: u64,
    ) -> Result<Service, QueueError>;

    /// Whether a ring is served.
    fn runs(&self, index: u16) -> bool;

    /// Asks to be told of the next buffers of a ring that runs, and says whether there is something to do already. A ring
    /// that waits for a time has nothing to do.
    fn enable_kicks<M: GuestMemory>(&mut self, index: u16, memory: &M) -> bool;

    /// Whether the configuration space has changed by itself since this was asked last.
    fn take_config_change(&mut self) -> bool {
        false
    }

    /// Rings may have been started or stopped.
    fn rings_changed(&mut self, shared: &mut Self::Shared) {
        let _ = shared;
    }
}

/// What serving a ring came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Something was done, so there may be more to do.
    pub has_worked: bool,
    /// The guest wants to be told.
    pub notify: bool,
    /// There is something to do, but not before this time.
    pub wait_until_ns: Option<u64>,
}
