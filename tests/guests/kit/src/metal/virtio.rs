//! The common configuration of a virtio function, through which a driver sets its device up (virtio 1.2, 4.1.4.3).

use super::cpu::{peek, poke};
use super::time::wait_until;

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const CONFIG_VECTOR: u64 = 0x10;
const NUM_QUEUES: u64 = 0x12;
/// Offset of the device status in the structure.
pub const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY: u64 = 0x1e;
/// Offset of the addresses of the selected queue's descriptors, of what the driver and of what the device writes, 8 bytes each.
pub const QUEUE_ADDRESSES: u64 = 0x20;

/// Bits of the status (virtio 1.2, 2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// `VIRTIO_F_EVENT_IDX`.
pub const EVENT_INDEX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`, without which there is no modern driver.
pub const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_MSI_NO_VECTOR`.
pub const VECTOR_ABSENT: u16 = 0xffff;

/// How long a device is waited for.
pub const PATIENCE_MS: u64 = 20_000;

/// The structure of one function, at its guest-physical address.
#[derive(Clone, Copy)]
pub struct Common(pub u64);

impl Common {
    /// Asks for a reset.
    pub fn begin_reset(self) {
        self.set_status(0);
    }

    /// Resets it; false if it does not come out of it.
    pub fn reset(self) -> bool {
        self.begin_reset();
        wait_until(PATIENCE_MS, || self.status() == 0)
    }

    /// Features that it offers.
    pub fn offered(self) -> u64 {
        let half = |number: u32| {
            self.write(DEVICE_FEATURE_SELECT, number);
            u64::from(self.read::<u32>(DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    /// Accepts features; false if it does not agree.
    pub fn accept(self, features: u64) -> bool {
        self.set_status(ACKNOWLEDGE | DRIVER);
        for number in 0..2_u32 {
            self.write(DRIVER_FEATURE_SELECT, number);
            self.write(DRIVER_FEATURE, (features >> (32 * number)) as u32);
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    /// How many queues it has.
    pub fn queues(self) -> u16 {
        self.read(NUM_QUEUES)
    }

    /// Selects a queue; gives its greatest size, and its number for doorbells.
    pub fn select(self, queue: u16) -> (u16, u16) {
        self.write(QUEUE_SELECT, queue);
        (self.read(QUEUE_SIZE), self.read(QUEUE_NOTIFY))
    }

    /// Names the MSI-X entries for changes of the configuration and for the selected queue.
    pub fn set_vectors(self, config: u16, queue: u16) {
        self.write(CONFIG_VECTOR, config);
        self.write(QUEUE_VECTOR, queue);
    }

    /// Describes the selected queue and enables it.
    pub fn enable(self, size: u16, addresses: [u64; 3]) {
        self.write(QUEUE_SIZE, size);
        for (register, address) in (QUEUE_ADDRESSES..).step_by(8).zip(addresses) {
            // By halves: a 64-bit field may be accessed so (4.1.3.1).
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(QUEUE_ENABLE, 1_u16);
    }

    /// Lets the queues run.
    pub fn start(self) {
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    fn status(self) -> u8 {
        self.read(STATUS)
    }

    fn set_status(self, status: u8) {
        self.write(STATUS, status);
    }

    fn read<T: Copy>(self, offset: u64) -> T {
        peek(self.0 + offset)
    }

    fn write<T: Copy>(self, offset: u64, value: T) {
        poke(self.0 + offset, value);
    }
}
