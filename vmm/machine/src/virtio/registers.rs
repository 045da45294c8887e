//! What the driver has set of a virtio device by its common configuration (virtio 1.2, 4.1.4.3), apart from what it has set
//! of the PCI function.

use alloc::vec;
use alloc::vec::Vec;

use bitflags::bitflags;

use super::backend::{Description, MAX_QUEUES};

/// No vector: what wants to interrupt does not.
pub(super) const NO_VECTOR: u16 = 0xffff;

bitflags! {
    /// Device status (virtio 1.2, 2.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Status: u8 {
        /// A kernel has seen the device.
        const ACKNOWLEDGE = 1;
        /// It has a driver.
        const DRIVER = 2;
        /// The driver is ready.
        const DRIVER_OK = 4;
        /// Features are negotiated.
        const FEATURES_OK = 8;
        /// The device cannot go on before it is reset.
        const NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

bitflags! {
    /// ISR status (4.1.4.5).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Isr: u8 {
        /// A queue has interrupted.
        const QUEUE = 1;
        /// The configuration has changed.
        const CONFIG = 2;
    }
}

/// Of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Registers {
    pub device_feature_select: u32,
    pub driver_feature_select: u32,
    pub driver_features: u64,
    pub config_vector: u16,
    pub status: Status,
    pub config_generation: u8,
    pub queue_select: u16,
    pub isr: Isr,
    pub queues: Vec<Queue>,
}

/// Of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Queue {
    pub size: u16,
    pub vector: u16,
    pub is_enabled: bool,
    pub descriptors: u64,
    pub driver_area: u64,
    pub device_area: u64,
    /// Where it goes on; set when it is enabled.
    pub base: u32,
}

impl Registers {
    /// After a reset.
    pub fn new(description: &Description) -> Self {
        let queue = Queue::new(description.queue_size_max);
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: Status::empty(),
            config_generation: 0,
            queue_select: 0,
            isr: Isr::empty(),
            queues: vec![queue; description.queues.min(MAX_QUEUES).into()],
        }
    }

    /// The queue that the driver has selected, if there is one with that number.
    pub fn selected(&self) -> Option<&Queue> {
        self.queues.get(usize::from(self.queue_select))
    }

    /// The same, to be changed.
    pub fn selected_mut(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.queue_select))
    }
}

impl Queue {
    /// After a reset.
    pub const fn new(size_max: u16) -> Self {
        Self {
            size: size_max,
            vector: NO_VECTOR,
            is_enabled: false,
            descriptors: 0,
            driver_area: 0,
            device_area: 0,
            base: 0,
        }
    }
}
