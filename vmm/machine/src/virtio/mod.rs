//! virtio over PCI (virtio 1.2, 4.1): the function that a guest's driver finds, without what serves its queues, which is a
//! [`Backend`].
//!
//! [`VirtioPci`] has the configuration space (`header`), two windows (`window`) with the common configuration (`common`) in
//! one of them, and the registers behind that (`registers`). After each change to one, `settle` makes the back end do what
//! the registers say now: so it does not matter in which order a driver, or a saved state, sets them.

mod backend;
mod common;
mod feature;
mod header;
mod registers;
mod settle;
mod state;
#[cfg(test)]
mod tests;
mod window;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

pub use backend::{Backend, Description, DeviceKind, Failed, MAX_QUEUES, QueueSetup};

use crate::message::Message;
use crate::pci::{Bar, Command, MsiX, Notice, PciFunction, Window};
use crate::state::{Decoder, Encoder, StateError};
use header::Access;
use registers::Registers;
use settle::Told;

/// A virtio device as PCI function.
pub struct VirtioPci {
    description: Description,
    backend: Box<dyn Backend>,
    // What the driver has set.
    command: Command,
    interrupt_line: u8,
    doorbells: Bar,
    structures: Bar,
    access: Access,
    msix: MsiX,
    registers: Registers,
    // What the back end was told.
    told: Vec<Told>,
    /// The back end was told something that a reset takes back.
    is_touched: bool,
    /// The owner wants no queue to run.
    is_paused: bool,
}

impl VirtioPci {
    /// A device that was just switched on. More queues, or more configuration space, than a device can have are cut off.
    #[must_use]
    pub fn new(description: Description, backend: Box<dyn Backend>) -> Self {
        let description = description.bounded();
        Self {
            description,
            backend,
            // As firmware leaves it: kernels need not place or enable anything.
            command: Command::IO | Command::MEMORY,
            interrupt_line: 0,
            doorbells: window::doorbells(),
            structures: window::structures(),
            access: Access::default(),
            // One for each queue and one for the configuration.
            msix: MsiX::new(description.queues + 1),
            registers: Registers::new(&description),
            told: vec![Told::default(); description.queues.into()],
            is_touched: false,
            is_paused: false,
        }
    }
}

impl PciFunction for VirtioPci {
    fn read_config(&mut self, offset: u16) -> u32 {
        self.header_word(offset)
    }

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) {
        self.write_header_word(offset, value, mask);
    }

    fn window(&self, bar: u8) -> Option<Window> {
        [&self.doorbells, &self.structures].into_iter().find(|window| window.number() == bar)?.window(self.command)
    }

    fn read_bar(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.read_window(bar, offset, data);
    }

    fn write_bar(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.write_window(bar, offset, data);
    }

    fn take_message(&mut self) -> Option<Message> {
        self.command.contains(Command::BUS_MASTER).then(|| self.msix.take_message()).flatten()
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::ConfigChanged => self.config_changed(),
            Notice::Failed => self.fail(),
            Notice::Pause => {
                self.is_paused = true;
                self.settle();
            }
            Notice::Resume => self.resume(),
        }
    }

    fn save(&self, state: &mut Encoder) {
        self.save_section(state);
    }

    fn restore(&mut self, state: &mut Decoder<'_>) -> Result<(), StateError> {
        self.restore_section(state)
    }
}
