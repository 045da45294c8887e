//! virtio over PCI (virtio 1.2, 4.1): the function that a guest's driver finds, without what serves its queues, which is a
//! [`Backend`].

mod backend;

use alloc::boxed::Box;

pub use backend::{Backend, Description, DeviceKind, Failed, MAX_QUEUES, QueueSetup};

use crate::pci::PciFunction;

/// Vendor of all virtio devices (virtio 1.2, 4.1.2).
const VENDOR: u32 = 0x1af4;
/// Added to the number of the kind of device (4.1.2.1).
const DEVICE_BASE: u32 = 0x1040;

/// A virtio device as PCI function.
pub struct VirtioPci {
    description: Description,
    #[expect(dead_code, reason = "the registers that reach it come next")]
    backend: Box<dyn Backend>,
}

impl VirtioPci {
    /// A device that was just switched on. More queues, or more configuration space, than a device can have are cut off.
    #[must_use]
    pub fn new(description: Description, backend: Box<dyn Backend>) -> Self {
        Self { description, backend }
    }
}

impl PciFunction for VirtioPci {
    fn read_config(&mut self, offset: u16) -> u32 {
        match offset {
            0 => (DEVICE_BASE + self.description.kind as u32) << 16 | VENDOR,
            _ => 0,
        }
    }

    fn write_config(&mut self, _offset: u16, _value: u32, _mask: u32) {}
}
