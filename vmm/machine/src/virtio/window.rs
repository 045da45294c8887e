//! What is in the function's windows: doorbells in ports, all else in memory.

use super::VirtioPci;
use crate::pci::Bar;
use crate::platform::{PCI_IO_WINDOW, PCI_WINDOW};

/// Ports of the doorbells: as many as a function may have, room for those of all queues.
const DOORBELLS_SIZE: u16 = 0x100;
/// Bytes from one queue's doorbell to the next.
pub(super) const DOORBELL_SIZE: u64 = 4;

// Places in the memory window, with a page for each, as kernels may map them in different ways.
pub(super) const COMMON: u64 = 0;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE_CONFIG: u64 = 0x2000;
pub(super) const MSIX_TABLE: u64 = 0x3000;
pub(super) const MSIX_PENDING: u64 = 0x3800;
const STRUCTURES_SIZE: u32 = 0x4000;

/// Ports for doorbells, placed nowhere.
pub(super) const fn doorbells() -> Bar {
    Bar::io(0, DOORBELLS_SIZE)
}

/// Memory for all else, placed nowhere.
pub(super) const fn structures() -> Bar {
    Bar::memory(2, STRUCTURES_SIZE)
}

impl VirtioPci {
    /// Puts the windows to where they are before the guest's kernel moves them: each device of the bus has its own places.
    pub(crate) fn place(&mut self, device: u8) {
        self.doorbells.place(PCI_IO_WINDOW.start + u64::from(device) * u64::from(DOORBELLS_SIZE));
        self.structures.place(PCI_WINDOW.start + u64::from(device) * u64::from(STRUCTURES_SIZE));
    }

    /// Reads what is behind a base address register.
    pub(super) fn read_window(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if bar != self.structures.number() {
            return;
        }
        match offset {
            COMMON..ISR => self.read_common(offset - COMMON, data),
            ISR => {
                if let Some(status) = data.first_mut() {
                    *status = self.take_isr().bits();
                }
            }
            DEVICE_CONFIG..MSIX_TABLE => {
                let offset = offset - DEVICE_CONFIG;
                if let Some((offset, length)) = self.device_config(offset, data.len()) {
                    self.backend.read_config(offset, data.get_mut(..length).unwrap_or_default());
                }
            }
            MSIX_TABLE..MSIX_PENDING => self.msix.read_table(offset - MSIX_TABLE, data),
            MSIX_PENDING.. => {
                self.collect_pending();
                self.msix.read_pending(offset - MSIX_PENDING, data);
            }
            _ => {}
        }
    }

    /// Writes what is behind a base address register.
    pub(super) fn write_window(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar == self.doorbells.number() {
            self.ring(offset / DOORBELL_SIZE);
            return;
        }
        if bar != self.structures.number() {
            return;
        }
        match offset {
            COMMON..ISR => self.write_common(offset - COMMON, data),
            DEVICE_CONFIG..MSIX_TABLE => {
                if let Some((offset, length)) = self.device_config(offset - DEVICE_CONFIG, data.len()) {
                    self.is_touched = true;
                    self.backend.write_config(offset, data.get(..length).unwrap_or_default());
                }
            }
            MSIX_TABLE..MSIX_PENDING => {
                self.msix.write_table(offset - MSIX_TABLE, data);
                self.settle();
            }
            _ => {}
        }
    }

    /// That part of an access to the device's configuration space that is inside of it, if there is one.
    fn device_config(&self, offset: u64, length: usize) -> Option<(u16, usize)> {
        let offset = u16::try_from(offset).ok()?;
        let inside = self.description.config_size.checked_sub(offset).filter(|inside| *inside != 0)?;
        Some((offset, length.min(inside.into())))
    }
}
