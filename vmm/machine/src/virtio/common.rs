//! Common configuration (virtio 1.2, 4.1.4.3): the registers as the driver reads and writes them.

use super::VirtioPci;
use super::feature::{self, RING_PACKED, RING_RESET};
use super::registers::{NO_VECTOR, Queue, Status};
use crate::pci::{read_words, write_words};

/// Bytes of the structure, up to `queue_reset`.
pub(super) const SIZE: u32 = 0x3c;

// Offsets of its double words, by their first fields.
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
/// With the number of queues.
const CONFIG_VECTOR: u64 = 0x10;
/// With the configuration's generation and the selected queue.
const STATUS: u64 = 0x14;
/// With the queue's vector.
const QUEUE_SIZE: u64 = 0x18;
/// With the place of its doorbell.
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_DESCRIPTORS: u64 = 0x20;
/// Before the address of the device area.
const QUEUE_DRIVER: u64 = 0x28;
/// What doorbells are rung with, which is not offered, with the queue's reset.
const QUEUE_NOTIFY_DATA: u64 = 0x38;

/// The upper of two fields in a double word.
const UPPER: u32 = 0xffff_0000;
/// The lower one.
const LOWER: u32 = 0xffff;

impl VirtioPci {
    pub(super) fn read_common(&self, offset: u64, data: &mut [u8]) {
        read_words(offset, data, |offset| self.common_word(offset));
    }

    pub(super) fn write_common(&mut self, offset: u64, data: &[u8]) {
        write_words(offset, data, |offset, value, mask| {
            let value = self.common_word(offset) & !mask | value & mask;
            self.write_common_word(offset, value, mask);
            self.settle();
        });
    }

    fn common_word(&self, offset: u64) -> u32 {
        let registers = &self.registers;
        // A queue that is not there has the size 0.
        let queue = registers.selected().copied().unwrap_or(Queue::new(0));
        let number = if registers.selected().is_some() { registers.queue_select } else { 0 };
        match offset {
            DEVICE_FEATURE_SELECT => registers.device_feature_select,
            DEVICE_FEATURE => half(self.offered_features(), registers.device_feature_select),
            DRIVER_FEATURE_SELECT => registers.driver_feature_select,
            DRIVER_FEATURE => half(registers.driver_features, registers.driver_feature_select),
            CONFIG_VECTOR => pair(registers.config_vector, registers.queues.len() as u16),
            STATUS => {
                let status = u16::from_le_bytes([registers.status.bits(), registers.config_generation]);
                pair(status, registers.queue_select)
            }
            QUEUE_SIZE => pair(queue.size, queue.vector),
            QUEUE_ENABLE => pair(queue.is_enabled.into(), number),
            QUEUE_DESCRIPTORS..QUEUE_NOTIFY_DATA => {
                let address = match offset & !7 {
                    QUEUE_DESCRIPTORS => queue.descriptors,
                    QUEUE_DRIVER => queue.driver_area,
                    _ => queue.device_area,
                };
                half(address, u32::from(offset & 4 != 0))
            }
            // A queue's reset is over when its write is.
            _ => 0,
        }
    }

    /// `value` is the whole double word as it is to be, `mask` says which bits of it were written.
    fn write_common_word(&mut self, offset: u64, value: u32, mask: u32) {
        let (lower, upper) = (value as u16, (value >> 16) as u16);
        match offset {
            DEVICE_FEATURE_SELECT => self.registers.device_feature_select = value,
            DRIVER_FEATURE_SELECT => self.registers.driver_feature_select = value,
            DRIVER_FEATURE if !self.registers.status.contains(Status::FEATURES_OK) => {
                let select = self.registers.driver_feature_select;
                set_half(&mut self.registers.driver_features, select, value);
            }
            CONFIG_VECTOR if mask & LOWER != 0 => self.registers.config_vector = self.vector(lower),
            STATUS => {
                if mask & UPPER != 0 {
                    self.registers.queue_select = upper;
                }
                if mask & 0xff != 0 {
                    self.write_status(value as u8);
                }
            }
            QUEUE_SIZE => {
                if mask & LOWER != 0 {
                    self.write_queue_size(lower);
                }
                if mask & UPPER != 0 {
                    let vector = self.vector(upper);
                    if let Some(queue) = self.registers.selected_mut() {
                        queue.vector = vector;
                    }
                }
            }
            QUEUE_ENABLE if mask & LOWER != 0 && lower == 1 => self.enable_queue(),
            QUEUE_DESCRIPTORS..QUEUE_NOTIFY_DATA => {
                let Some(queue) = self.registers.selected_mut().filter(|queue| !queue.is_enabled) else { return };
                let address = match offset & !7 {
                    QUEUE_DESCRIPTORS => &mut queue.descriptors,
                    QUEUE_DRIVER => &mut queue.driver_area,
                    _ => &mut queue.device_area,
                };
                set_half(address, u32::from(offset & 4 != 0), value);
            }
            QUEUE_NOTIFY_DATA if mask & UPPER != 0 && upper == 1 => self.reset_queue(),
            _ => {}
        }
    }

    /// A vector that the driver gives: one that is not there reads back as none, which tells it (4.1.5.1.2).
    fn vector(&self, vector: u16) -> u16 {
        if vector < self.msix.vectors() { vector } else { NO_VECTOR }
    }

    /// A size that the queue cannot have is not taken.
    fn write_queue_size(&mut self, size: u16) {
        let is_packed = self.registers.driver_features & RING_PACKED != 0;
        let is_possible = size.is_power_of_two() || is_packed && size != 0;
        let size_max = self.description.queue_size_max;
        if let Some(queue) = self.registers.selected_mut().filter(|queue| !queue.is_enabled)
            && is_possible
            && size <= size_max
        {
            queue.size = size;
        }
    }

    fn enable_queue(&mut self) {
        /// Both wrap counters of a packed ring start with 1 (virtio 1.2, 2.8.1).
        const PACKED_BASE: u32 = 0x8000_8000;
        let is_packed = self.registers.driver_features & RING_PACKED != 0;
        let is_negotiated = self.registers.status.contains(Status::FEATURES_OK);
        if let Some(queue) = self.registers.selected_mut().filter(|queue| !queue.is_enabled)
            && is_negotiated
        {
            queue.base = if is_packed { PACKED_BASE } else { 0 };
            queue.is_enabled = true;
        }
    }

    /// Resets one queue (virtio 1.2, 2.6.1).
    fn reset_queue(&mut self) {
        let is_accepted = self.registers.driver_features & RING_RESET != 0;
        let size_max = self.description.queue_size_max;
        if let Some(queue) = self.registers.selected_mut().filter(|queue| queue.is_enabled)
            && is_accepted
        {
            *queue = Queue::new(size_max);
        }
    }

    /// What the driver is offered.
    pub(super) fn offered_features(&self) -> u64 {
        feature::offered(self.backend.features())
    }
}

fn pair(lower: u16, upper: u16) -> u32 {
    u32::from(upper) << 16 | u32::from(lower)
}

/// Bits 31:0 or 63:32, as a select register says; there are no others.
const fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, select: u32, half: u32) {
    match select {
        0 => *value = *value & !0xffff_ffff | u64::from(half),
        1 => *value = *value & 0xffff_ffff | u64::from(half) << 32,
        _ => {}
    }
}
