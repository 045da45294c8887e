//! Virtio's registers in a PCI function (virtio 1.2 4.1).
//!
//! The crate's own transport is not used: it waits for a device's reset without end, panics when a device names a
//! doorbell that is not there, and keeps the registers for interrupts to itself.

#[cfg(test)]
mod tests;

use dragonfly_rt::sys::InterruptMessage;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::OpenError;
use crate::interrupt::MessageTable;
use crate::pci::{CAPABILITY_VENDOR, Function, Window};

/// Virtio's vendor number; devices have numbers from 0x1040 on, transitional ones from 0x1000 (virtio 1.2 4.1.2.1).
const VENDOR: u16 = 0x1af4;
const MODERN: u16 = 0x1040;

/// Structures (virtio 1.2 4.1.4), and where their capability says where they are.
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;
const CAP_TYPE: u64 = 3;
const CAP_BAR: u64 = 4;
const CAP_OFFSET: u64 = 8;
const CAP_LENGTH: u64 = 12;
const CAP_NOTIFY_MULTIPLIER: u64 = 16;

/// `struct virtio_pci_common_cfg` (virtio 1.2 4.1.4.3).
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_MSIX_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_DESC: u64 = 0x20;
const QUEUE_DRIVER: u64 = 0x28;
const QUEUE_DEVICE: u64 = 0x30;
const COMMON_BYTES: u64 = 0x38;

/// Queues that a driver here uses.
const MAX_QUEUES: usize = 2;

/// A virtio device that is a PCI function.
#[derive(Debug)]
pub struct VirtioFunction {
    function: Function,
    kind: DeviceType,
    common: Window,
    notify: Window,
    notify_multiplier: u32,
    config: Option<Window>,
    /// Where in `notify` each queue's doorbell is, once the queue is set up.
    doorbells: [Option<u64>; MAX_QUEUES],
}

impl VirtioFunction {
    /// The function that the domain has under a name, if it is such a device; `None` if there is none. It may not
    /// access memory yet.
    ///
    /// # Errors
    /// It is another device, or its structures are not where they should be.
    pub(crate) fn open(name: &str, kind: DeviceType) -> Result<Option<Self>, OpenError> {
        Function::open(name)?.map(|function| Self::find(function, kind)).transpose()
    }

    fn find(function: Function, kind: DeviceType) -> Result<Self, OpenError> {
        let (vendor, device) = function.identity();
        let wanted = kind as u16;
        let transitional = match kind {
            DeviceType::Network => 0x1000,
            DeviceType::Block => 0x1001,
            _ => MODERN + wanted,
        };
        if vendor != VENDOR || (device != MODERN + wanted && device != transitional) {
            return Err(OpenError::OtherDevice { vendor, device, wanted });
        }
        let structure = |kind: u8| {
            let place = function.capabilities(CAPABILITY_VENDOR).find(|place| {
                // Structures in BARs that this domain does not have, such as ports, come again in others.
                function.config().read_u8(place + CAP_TYPE) == kind && window(&function, *place).is_some()
            })?;
            Some((place, window(&function, place)?))
        };
        let (_, common) = structure(COMMON).ok_or(OpenError::Structure("common configuration"))?;
        let (place, notify) = structure(NOTIFY).ok_or(OpenError::Structure("notification area"))?;
        let notify_multiplier = function.config().read_u32(place + CAP_NOTIFY_MULTIPLIER);
        let config = structure(DEVICE).map(|(_, window)| window);
        if common.length() < COMMON_BYTES {
            return Err(OpenError::Structure("common configuration"));
        }
        function.enable();
        let doorbells = [None; MAX_QUEUES];
        Ok(Self { function, kind, common, notify, notify_multiplier, config, doorbells })
    }

    fn select(&self, queue: u16) {
        self.common.write_u16(QUEUE_SELECT, queue);
    }
}

/// Where the structure is that a capability of virtio describes.
fn window(function: &Function, place: u64) -> Option<Window> {
    let config = function.config();
    let (offset, length) = (config.read_u32(place + CAP_OFFSET), config.read_u32(place + CAP_LENGTH));
    function.window(config.read_u8(place + CAP_BAR), offset, length)
}

/// What a device's place on the bus allows beside virtio's registers.
pub trait OnBus {
    /// Lets the device access memory: once it has been reset and knows of none.
    fn admit(&mut self);

    /// Keeps the device from accessing memory even when it does not obey.
    fn cut_off(&mut self);

    /// Lets a queue that is not set up yet interrupt by a message. `false` if it cannot.
    fn set_message(&mut self, queue: u16, message: InterruptMessage) -> bool;
}

impl OnBus for VirtioFunction {
    fn admit(&mut self) {
        self.function.set_bus_master(true);
    }

    fn cut_off(&mut self) {
        self.function.set_bus_master(false);
    }

    /// Each queue has the entry of its number.
    fn set_message(&mut self, queue: u16, message: InterruptMessage) -> bool {
        let Some(messages) = MessageTable::find(&self.function) else { return false };
        if !messages.set(&self.function, queue, message) {
            return false;
        }
        self.select(queue);
        self.common.write_u16(QUEUE_MSIX_VECTOR, queue);
        // A device that has no room for it says so by another number.
        self.common.read_u16(QUEUE_MSIX_VECTOR) == queue
    }
}

impl Transport for VirtioFunction {
    fn device_type(&self) -> DeviceType {
        self.kind
    }

    fn read_device_features(&mut self) -> u64 {
        let half = |select| {
            self.common.write_u32(DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read_u32(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        for (select, half) in [(0, driver_features as u32), (1, (driver_features >> 32) as u32)] {
            self.common.write_u32(DRIVER_FEATURE_SELECT, select);
            self.common.write_u32(DRIVER_FEATURE, half);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.select(queue);
        self.common.read_u16(QUEUE_SIZE).into()
    }

    /// A doorbell that is not where the device says is not rung: the device then does not answer in time.
    fn notify(&mut self, queue: u16) {
        if let Some(Some(doorbell)) = self.doorbells.get(usize::from(queue)) {
            self.notify.write_u16(*doorbell, queue);
        }
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.common.read_u8(DEVICE_STATUS).into())
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.common.write_u8(DEVICE_STATUS, status.bits() as u8);
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.select(queue);
        self.common.write_u16(QUEUE_SIZE, size as u16);
        self.common.write_u64(QUEUE_DESC, descriptors);
        self.common.write_u64(QUEUE_DRIVER, driver_area);
        self.common.write_u64(QUEUE_DEVICE, device_area);
        let doorbell = u64::from(self.common.read_u16(QUEUE_NOTIFY_OFF)) * u64::from(self.notify_multiplier);
        if let Some(place) = self.doorbells.get_mut(usize::from(queue)) {
            *place = Some(doorbell);
        }
        self.common.write_u16(QUEUE_ENABLE, 1);
    }

    /// A queue is taken back by resetting the device.
    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.select(queue);
        self.common.read_u16(QUEUE_ENABLE) == 1
    }

    /// Message-signalled interrupts have nothing to acknowledge.
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        self.common.read_u8(CONFIG_GENERATION).into()
    }

    /// Reads a field with its own width (virtio 1.2 4.1.3.1); one of eight bytes in halves, one of another size in bytes.
    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let config = self.config.as_ref().ok_or(Error::ConfigSpaceMissing)?;
        let offset = offset as u64;
        let mut bytes = [0; 8];
        let length = size_of::<T>();
        let field = bytes.get_mut(..length).ok_or(Error::InvalidParam)?;
        if offset.saturating_add(length as u64) > config.length() {
            return Err(Error::ConfigSpaceTooSmall);
        }
        match length {
            2 => field.copy_from_slice(&config.read_u16(offset).to_le_bytes()),
            4 => field.copy_from_slice(&config.read_u32(offset).to_le_bytes()),
            8 => {
                for (place, half) in (offset..).step_by(4).zip(field.chunks_exact_mut(4)) {
                    half.copy_from_slice(&config.read_u32(place).to_le_bytes());
                }
            }
            _ => field.iter_mut().zip(offset..).for_each(|(byte, place)| *byte = config.read_u8(place)),
        }
        T::read_from_bytes(field).map_err(|_| Error::InvalidParam)
    }

    /// No driver here changes a configuration.
    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _offset: usize, _value: T) -> Result<(), Error> {
        Err(Error::Unsupported)
    }
}
