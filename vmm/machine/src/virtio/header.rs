//! Configuration space of the function: identification, windows, and the capabilities by which its driver finds the parts of
//! the device (virtio 1.2, 4.1.2 to 4.1.4).

use super::backend::DeviceKind;
use super::window::{COMMON, DEVICE_CONFIG, DOORBELL_SIZE, ISR, MSIX_PENDING, MSIX_TABLE};
use super::{VirtioPci, common};
use crate::pci::Command;

/// Vendor of all virtio devices (4.1.2).
const VENDOR: u32 = 0x1af4;
/// Added to the number of the kind of device (4.1.2.1).
const DEVICE_BASE: u32 = 0x1040;
/// Of a device that is not a legacy one: at least 1 (4.1.2.1).
const REVISION: u32 = 1;
/// The vendor again, with a number of at least 0x40 (4.1.2.1).
const SUBSYSTEM: u32 = 0x1100 << 16 | VENDOR;
/// Status register: there are capabilities (PCI Local Bus 3.0, 6.2.3).
const STATUS_CAPABILITIES: u32 = 1 << 4 << 16;

// Registers (PCI Local Bus 3.0, 6.1).
const ID_OFFSET: u16 = 0x00;
const COMMAND_OFFSET: u16 = 0x04;
const CLASS_OFFSET: u16 = 0x08;
const BAR_OFFSET: u16 = 0x10;
const BAR_END: u16 = 0x28;
const SUBSYSTEM_OFFSET: u16 = 0x2c;
const CAPABILITIES_OFFSET: u16 = 0x34;
const INTERRUPT_OFFSET: u16 = 0x3c;

/// Identifiers of capabilities (PCI Code and ID Assignment 1.11, 2).
const ID_VENDOR: u32 = 0x09;
const ID_MSIX: u32 = 0x11;

// Where the capabilities are; each names the next one.
const MSIX_CAP: u16 = 0x40;
const COMMON_CAP: u16 = 0x4c;
const NOTIFY_CAP: u16 = 0x5c;
const ISR_CAP: u16 = 0x70;
const DEVICE_CAP: u16 = 0x80;
const ACCESS_CAP: u16 = 0x90;
const CAPABILITIES_END: u16 = ACCESS_CAP + 20;

// Double words of capabilities.
const MSIX_TABLE_OFFSET: u16 = MSIX_CAP + 4;
const ACCESS_BAR: u16 = ACCESS_CAP + 4;
const ACCESS_OFFSET: u16 = ACCESS_CAP + 8;
const ACCESS_LENGTH: u16 = ACCESS_CAP + 12;
const ACCESS_DATA: u16 = ACCESS_CAP + 16;

/// Types of virtio's capabilities (4.1.4).
const TYPE_COMMON: u32 = 1;
const TYPE_NOTIFY: u32 = 2;
const TYPE_ISR: u32 = 3;
const TYPE_DEVICE: u32 = 4;
const TYPE_ACCESS: u32 = 5;

/// Bytes of a capability of virtio, and of one with a further double word.
const CAP_SIZE: u32 = 16;
const CAP_SIZE_LONG: u32 = 20;

/// What the driver has set of the capability by which windows are accessed through configuration space (4.1.4.9).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Access {
    pub bar: u8,
    pub offset: u32,
    pub length: u32,
}

/// A capability of virtio: where in which window a part of the device is.
struct Part {
    at: u16,
    next: u16,
    size: u32,
    kind: u32,
    bar: u8,
    offset: u64,
    length: u32,
}

impl Part {
    /// A double word of it.
    fn word(&self, offset: u16) -> u32 {
        match offset {
            0 => self.kind << 24 | self.size << 16 | u32::from(self.next) << 8 | ID_VENDOR,
            4 => self.bar.into(),
            8 => self.offset as u32,
            12 => self.length,
            16 if self.kind == TYPE_NOTIFY => DOORBELL_SIZE as u32,
            _ => 0,
        }
    }
}

impl VirtioPci {
    pub(super) fn header_word(&mut self, offset: u16) -> u32 {
        match offset {
            ID_OFFSET => (DEVICE_BASE + self.description.kind as u32) << 16 | VENDOR,
            COMMAND_OFFSET => STATUS_CAPABILITIES | u32::from(self.command.bits()),
            CLASS_OFFSET => class(self.description.kind) << 8 | REVISION,
            BAR_OFFSET..BAR_END => {
                let number = bar_number(offset);
                self.doorbells.read(number).or_else(|| self.structures.read(number)).unwrap_or(0)
            }
            SUBSYSTEM_OFFSET => SUBSYSTEM,
            CAPABILITIES_OFFSET => MSIX_CAP.into(),
            INTERRUPT_OFFSET => self.interrupt_line.into(),
            ACCESS_DATA => self.read_access(),
            MSIX_CAP..CAPABILITIES_END => self.capability_word(offset),
            _ => 0,
        }
    }

    pub(super) fn write_header_word(&mut self, offset: u16, value: u32, mask: u32) {
        let merged = |old: u32| old & !mask | value & mask;
        match offset {
            COMMAND_OFFSET => {
                self.command = Command::from_bits_truncate(merged(self.command.bits().into()) as u16);
                self.settle();
            }
            BAR_OFFSET..BAR_END => {
                self.doorbells.write(bar_number(offset), value, mask);
                self.structures.write(bar_number(offset), value, mask);
                self.settle();
            }
            INTERRUPT_OFFSET => self.interrupt_line = merged(self.interrupt_line.into()) as u8,
            MSIX_CAP => {
                self.msix.write_control((value >> 16) as u16, (mask >> 16) as u16);
                self.settle();
            }
            ACCESS_BAR => self.access.bar = merged(self.access.bar.into()) as u8,
            ACCESS_OFFSET => self.access.offset = merged(self.access.offset),
            ACCESS_LENGTH => self.access.length = merged(self.access.length),
            ACCESS_DATA => self.write_access(value),
            _ => {}
        }
    }

    fn capability_word(&self, offset: u16) -> u32 {
        let Access { bar, offset: access_offset, length } = self.access;
        let doorbells = self.registers.queues.len() as u32 * DOORBELL_SIZE as u32;
        let registers = |at, next, kind, offset, length| Part {
            at,
            next,
            size: CAP_SIZE,
            kind,
            bar: self.structures.number(),
            offset,
            length,
        };
        // Drivers do not take an empty part (Linux's virtio_pci does not).
        let behind_isr = if self.description.config_size == 0 { ACCESS_CAP } else { DEVICE_CAP };
        let parts = [
            registers(COMMON_CAP, NOTIFY_CAP, TYPE_COMMON, COMMON, common::SIZE),
            Part {
                at: NOTIFY_CAP,
                next: ISR_CAP,
                size: CAP_SIZE_LONG,
                kind: TYPE_NOTIFY,
                bar: self.doorbells.number(),
                offset: 0,
                length: doorbells,
            },
            registers(ISR_CAP, behind_isr, TYPE_ISR, ISR, 1),
            registers(DEVICE_CAP, ACCESS_CAP, TYPE_DEVICE, DEVICE_CONFIG, self.description.config_size.into()),
            Part {
                at: ACCESS_CAP,
                next: 0,
                size: CAP_SIZE_LONG,
                kind: TYPE_ACCESS,
                bar,
                offset: access_offset.into(),
                length,
            },
        ];
        match parts.iter().rev().find(|part| part.at <= offset) {
            Some(part) => part.word(offset - part.at),
            None => self.msix_word(offset),
        }
    }

    /// PCI Local Bus 3.0, 6.8.2.
    fn msix_word(&self, offset: u16) -> u32 {
        let bar = u32::from(self.structures.number());
        match offset {
            MSIX_CAP => u32::from(self.msix.control()) << 16 | u32::from(COMMON_CAP) << 8 | ID_MSIX,
            MSIX_TABLE_OFFSET => MSIX_TABLE as u32 | bar,
            _ => MSIX_PENDING as u32 | bar,
        }
    }

    /// Reads a window through configuration space.
    fn read_access(&mut self) -> u32 {
        let mut data = [0; 4];
        if let Some(bytes) = self.accessed().and_then(|length| data.get_mut(..length)) {
            self.read_window(self.access.bar, self.access.offset.into(), bytes);
        }
        u32::from_le_bytes(data)
    }

    /// Writes a window through configuration space.
    fn write_access(&mut self, value: u32) {
        let Access { bar, offset, .. } = self.access;
        let data = value.to_le_bytes();
        if let Some(bytes) = self.accessed().and_then(|length| data.get(..length)) {
            self.write_window(bar, offset.into(), bytes);
        }
    }

    /// Bytes of an access that is possible: 1, 2 or 4, aligned (4.1.4.9.1).
    fn accessed(&self) -> Option<usize> {
        let Access { offset, length, .. } = self.access;
        (matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length)).then_some(length as usize)
    }
}

/// Class, subclass and interface (PCI Code and ID Assignment 1.11, 1).
const fn class(kind: DeviceKind) -> u32 {
    match kind {
        // Ethernet.
        DeviceKind::Network => 0x02_0000,
        // Other mass storage.
        DeviceKind::Block => 0x01_8000,
        // No class that is defined.
        DeviceKind::Entropy => 0xff_0000,
        // Other communication devices.
        DeviceKind::Socket | DeviceKind::Console => 0x07_8000,
    }
}

/// The number of the base address register at an offset.
const fn bar_number(offset: u16) -> u8 {
    ((offset - BAR_OFFSET) / 4) as u8
}
