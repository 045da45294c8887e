//! What serves a virtio device, as its PCI function needs it: a vhost-user session in the VMM, a model in the tests.

use dragonfly_guest_boot::GuestPhys;

use crate::message::Message;

/// Most queues of a device: with the vector for changes of the configuration, each can have one of its own.
pub const MAX_QUEUES: u16 = 63;

/// Which device it is (virtio 1.2, 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceKind {
    /// Network card.
    Network = 1,
    /// Disk.
    Block = 2,
    /// Consoles, and other ports for bytes.
    Console = 3,
    /// Source of random numbers.
    Entropy = 4,
    /// Sockets.
    Socket = 19,
}

/// What of a device is the same for as long as it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// Which device it is.
    pub kind: DeviceKind,
    /// Number of queues, at most [`MAX_QUEUES`].
    pub queues: u16,
    /// Most descriptors of a queue, a power of two up to 32,768.
    pub queue_size_max: u16,
    /// Bytes of the device's own configuration space, at most 4096.
    pub config_size: u16,
}

/// Most bytes of a device's own configuration space: its place in the window.
const CONFIG_SIZE_MAX: u16 = 4096;

impl Description {
    /// Within what the function has room for.
    pub(super) fn bounded(self) -> Self {
        Self {
            queues: self.queues.min(MAX_QUEUES),
            queue_size_max: self.queue_size_max.clamp(1, 1 << 15),
            config_size: self.config_size.min(CONFIG_SIZE_MAX),
            ..self
        }
    }
}

/// A queue as its driver has set it up. The numbers are the driver's: whoever follows them checks them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueSetup {
    /// Number of descriptors, at least 1 and at most [`Description::queue_size_max`].
    pub size: u16,
    /// Where to go on, as vhost-user's `SET_VRING_BASE` has it: for a split ring the next index of the available ring, for a
    /// packed ring that and the index of used descriptors, each with a wrap counter in its bit 15.
    pub base: u32,
    /// Descriptor table, or packed ring.
    pub descriptors: GuestPhys,
    /// Available ring, or driver's event suppression area.
    pub driver_area: GuestPhys,
    /// Used ring, or device's event suppression area.
    pub device_area: GuestPhys,
}

/// The device cannot go on before its driver has reset it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the device failed: its driver is to reset it")]
pub struct Failed;

/// What serves a virtio device's queues.
///
/// All calls come from accesses of the guest, which go on when the call returns: it takes bounded time, and what is far away
/// is kept near (the features, the configuration space). A back end that is away for some time and comes back says `Ok`,
/// remembers what it was told and makes up for it; [`Failed`] is for what cannot be made up for. Then the function shows
/// `DEVICE_NEEDS_RESET` and stops all queues.
///
/// The function tells only changes: after a [`reset`](Self::reset), and at first, no feature is accepted, no queue runs, and
/// no queue has a doorbell or a message. Queues are numbered from 0 to [`Description::queues`] − 1. It is dropped with the
/// machine.
pub trait Backend: Send {
    /// The features that are offered to the driver; they stay the same. What the transport is concerned with is added and
    /// taken away by the function: `VIRTIO_F_VERSION_1`, `VIRTIO_F_RING_RESET`, `VIRTIO_F_NOTIFICATION_DATA` and others.
    fn features(&self) -> u64;

    /// The driver has accepted these of [`features`](Self::features). No queue runs.
    ///
    /// # Errors
    /// [`Failed`] if it does not work with these: the driver is not given `FEATURES_OK`.
    fn negotiate(&mut self, features: u64) -> Result<(), Failed>;

    /// Reads the device's own configuration space; the access is inside of it.
    fn read_config(&mut self, offset: u16, data: &mut [u8]);

    /// Writes the device's own configuration space; the access is inside of it. What cannot be written stays as it is.
    fn write_config(&mut self, offset: u16, data: &[u8]);

    /// Begins to serve a queue that does not run. Comes at `DRIVER_OK`, and later when the driver enables a queue, resets
    /// one, or makes it go on.
    ///
    /// # Errors
    /// [`Failed`] if the queue cannot be served, above all because its addresses are not RAM.
    fn start_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), Failed>;

    /// Ends serving a queue that runs, with its requests completed or given back. Gives [`QueueSetup::base`] to go on with.
    ///
    /// # Errors
    /// [`Failed`] if where it stands is not known.
    fn stop_queue(&mut self, queue: u16) -> Result<u32, Failed>;

    /// The driver has rung for a queue that runs, and no doorbell has taken it.
    fn notify(&mut self, queue: u16);

    /// From now on the queue, which runs, is rung for by writes to this port, of any value and width; `None`: by none. Set
    /// after the queue was started, and taken away before it is stopped, or gets another port. Who cannot watch the port does
    /// nothing: [`notify`](Self::notify) is called for each write that comes to the machine.
    fn set_doorbell(&mut self, queue: u16, port: Option<u16>);

    /// From now on the queue interrupts the guest by this message; `None`: by none, and interrupts are kept for
    /// [`take_pending`](Self::take_pending), which is called after each message that is set. It may come before the
    /// queue is started and stays when it is stopped.
    fn set_message(&mut self, queue: u16, message: Option<Message>);

    /// Whether the queue has interrupted since this was asked last, except what went out as message.
    fn take_pending(&mut self, queue: u16) -> bool;

    /// The driver has reset the device: all queues are stopped at once, and what was accepted, written and kept counts no
    /// longer. Doorbells and messages were taken away before.
    fn reset(&mut self);
}
