//! The function as a guest's driver sees it, in a machine, with a model that serves the queues.

mod driver;
mod function;
mod interrupts;
mod model;
mod saved;

use super::*;
use crate::pci::DeviceFunction;
use crate::{Config, GuestPhys, Machine};
use model::{Call, Model};

const CONFIG: Config = Config { vcpus: 2, start_s: 0 };
const DISK: Description = Description { kind: DeviceKind::Block, queues: 2, queue_size_max: 256, config_size: 60 };

// Where the first device of the bus is placed.
const PORTS: u16 = 0x1100;
const MEMORY: u64 = 0xe800_4000;

// Parts of the memory window.
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const PENDING: u64 = 0x3800;

// Fields of the common configuration.
const STATUS: u64 = 0x14;
const GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_VECTOR: u64 = 0x1a;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_RESET: u64 = 0x3a;
const CONFIG_VECTOR: u64 = 0x10;

// Device status.
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 64;
const FAILED: u8 = 128;

const VERSION_1: u64 = 1 << 32;
const RING_PACKED: u64 = 1 << 34;
const RING_RESET: u64 = 1 << 40;

/// A machine with one disk, and the accesses of its guest.
struct Guest {
    machine: Machine,
    model: Model,
    at: DeviceFunction,
}

impl Guest {
    fn new() -> Self {
        Self::with(DISK)
    }

    fn with(description: Description) -> Self {
        let model = Model::default();
        let mut machine = Machine::new(&CONFIG);
        let at = machine.add_virtio(VirtioPci::new(description, Box::new(model.clone()))).unwrap();
        Self { machine, model, at }
    }

    /// A register of configuration space.
    fn config(&mut self, offset: u64) -> u32 {
        self.read(0xe000_0000 + u64::from(self.at.0) * 4096 + offset)
    }

    fn set_config(&mut self, offset: u64, value: u32) {
        self.write(0xe000_0000 + u64::from(self.at.0) * 4096 + offset, &value.to_le_bytes());
    }

    fn set_command(&mut self, value: u16) {
        self.write(0xe000_0000 + u64::from(self.at.0) * 4096 + 4, &value.to_le_bytes());
    }

    fn read(&mut self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.machine.mmio_read(GuestPhys(address), &mut data, || 0);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, address: u64, data: &[u8]) {
        self.machine.mmio_write(GuestPhys(address), data, || 0);
    }

    fn get8(&mut self, offset: u64) -> u8 {
        let mut data = [0; 1];
        self.machine.mmio_read(GuestPhys(MEMORY + offset), &mut data, || 0);
        data[0]
    }

    fn get16(&mut self, offset: u64) -> u16 {
        let mut data = [0; 2];
        self.machine.mmio_read(GuestPhys(MEMORY + offset), &mut data, || 0);
        u16::from_le_bytes(data)
    }

    fn get32(&mut self, offset: u64) -> u32 {
        self.read(MEMORY + offset)
    }

    fn set8(&mut self, offset: u64, value: u8) {
        self.write(MEMORY + offset, &[value]);
    }

    fn set16(&mut self, offset: u64, value: u16) {
        self.write(MEMORY + offset, &value.to_le_bytes());
    }

    fn set32(&mut self, offset: u64, value: u32) {
        self.write(MEMORY + offset, &value.to_le_bytes());
    }

    fn messages(&mut self) -> Vec<u32> {
        core::iter::from_fn(|| self.machine.take_message()).map(|message| message.data).collect()
    }

    fn features(&mut self) -> u64 {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                self.set32(0, half);
                u64::from(self.get32(4))
            })
            .collect();
        halves[1] << 32 | halves[0]
    }

    fn accept(&mut self, features: u64) {
        for (half, value) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.set32(8, half);
            self.set32(0xc, value);
        }
    }

    /// `vp_modern_probe`'s and `virtio_dev_probe`'s steps up to `FEATURES_OK`; what the status is then.
    fn negotiate(&mut self, features: u64) -> u8 {
        self.set_command(7);
        self.set8(STATUS, 0);
        self.set8(STATUS, ACKNOWLEDGE);
        self.set8(STATUS, ACKNOWLEDGE | DRIVER);
        self.accept(features);
        self.set8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.get8(STATUS)
    }

    /// `setup_vq`'s steps, with rings at addresses that tell the queue.
    fn set_up_queue(&mut self, queue: u16, vector: u16) {
        self.set16(QUEUE_SELECT, queue);
        self.set16(QUEUE_SIZE, 64);
        for (offset, address) in [(0x20, 0x10_0000), (0x28, 0x10_1000), (0x30, 0x10_2000)] {
            self.set32(offset, address + (u32::from(queue & 0xff) << 16));
            self.set32(offset + 4, 1);
        }
        self.set16(QUEUE_VECTOR, vector);
    }

    /// As Linux sets MSI-X up: enabled and masked, the table filled, then unmasked. Vector N sends `0x4040 + N`.
    fn set_up_interrupts(&mut self) {
        self.set_config(0x40, 0xc000_0000);
        for vector in 0..3u32 {
            let entry = TABLE + 16 * u64::from(vector);
            self.set32(entry + 12, 1);
            self.set32(entry, 0xfee0_0000);
            self.set32(entry + 4, 0);
            self.set32(entry + 8, 0x4040 + vector);
        }
        self.set_config(0x40, 0x8000_0000);
        for vector in 0..3 {
            self.set32(TABLE + 16 * vector + 12, 0);
        }
    }

    /// All that a driver does until its device works: vector 0 is that of the configuration.
    fn drive(&mut self) {
        self.drive_with(VERSION_1 | RING_RESET | model::FEATURES);
    }

    fn drive_with(&mut self, features: u64) {
        assert_eq!(self.negotiate(features), ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.set_up_interrupts();
        self.set16(CONFIG_VECTOR, 0);
        for queue in 0..2 {
            self.set_up_queue(queue, queue + 1);
            self.set16(QUEUE_ENABLE, 1);
        }
        self.set8(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        self.model.take_calls();
    }
}
