//! From what the driver has set to what the back end does: device status, and which queues run, with which doorbells and
//! messages.

use core::ops::Range;

use dragonfly_guest_boot::GuestPhys;
use log::debug;

use super::backend::{Failed, QueueSetup};
use super::registers::{Isr, NO_VECTOR, Queue, Registers, Status};
use super::window::DOORBELL_SIZE;
use super::{VirtioPci, feature};
use crate::message::Message;
use crate::pci::{Command, Window};

/// What the back end was told of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Told {
    pub is_running: bool,
    doorbell: Option<u16>,
    message: Option<Message>,
}

impl VirtioPci {
    /// Takes the status that the driver writes: bits that it sets; zero resets the device.
    pub(super) fn write_status(&mut self, value: u8) {
        const DRIVERS: Status = Status::all().difference(Status::NEEDS_RESET);
        if value == 0 {
            self.reset();
            return;
        }
        let mut new = (Status::from_bits_truncate(value) & DRIVERS) - self.registers.status;
        if new.contains(Status::FEATURES_OK) && !self.negotiate() {
            new -= Status::FEATURES_OK;
        }
        self.registers.status |= new;
        // A driver that has not negotiated cannot drive.
        if !self.registers.status.contains(Status::FEATURES_OK) {
            self.registers.status -= Status::DRIVER_OK;
        }
    }

    /// Whether the back end works with the features that the driver has accepted.
    pub(super) fn negotiate(&mut self) -> bool {
        let accepted = self.registers.driver_features;
        if self.registers.status.contains(Status::NEEDS_RESET)
            || !feature::may_accept(self.offered_features(), accepted)
        {
            return false;
        }
        self.is_touched = true;
        self.backend.negotiate(accepted & self.backend.features()).is_ok()
    }

    /// The driver resets the device.
    fn reset(&mut self) {
        // Drivers may read the generation before and after.
        let config_generation = self.registers.config_generation;
        self.registers = Registers { config_generation, ..Registers::new(&self.description) };
        self.take_doorbells_away();
        self.tell_messages();
        self.msix.forget_pending();
        if self.is_touched {
            self.backend.reset();
            self.is_touched = false;
        }
        self.told.iter_mut().for_each(|told| told.is_running = false);
    }

    /// The device cannot go on (virtio 1.2, 2.1.2).
    pub(super) fn fail(&mut self) {
        if self.registers.status.contains(Status::NEEDS_RESET) {
            return;
        }
        self.registers.status |= Status::NEEDS_RESET;
        if self.registers.status.contains(Status::DRIVER_OK) {
            debug!("a virtio device has failed: its driver is told to reset it");
            self.config_changed();
        }
        self.settle();
    }

    /// The driver is told that the configuration, or that part of the status, has changed.
    pub(super) fn config_changed(&mut self) {
        let registers = &mut self.registers;
        registers.config_generation = registers.config_generation.wrapping_add(1);
        registers.isr |= Isr::CONFIG;
        self.msix.raise(registers.config_vector);
    }

    /// Makes the back end do what the registers say, after each change to one.
    pub(super) fn settle(&mut self) {
        if self.settle_queues().is_err() {
            // Comes back here with all queues stopped.
            self.fail();
        }
    }

    fn settle_queues(&mut self) -> Result<(), Failed> {
        // A doorbell may get the port that was another's: none is set before all others are away.
        self.take_doorbells_away();
        self.stop_queues()?;
        self.tell_messages();
        self.start_queues()?;
        self.set_doorbells();
        Ok(())
    }

    fn take_doorbells_away(&mut self) {
        for number in self.numbers() {
            let port = self.doorbell(number);
            let Some(told) = self.told.get_mut(usize::from(number)) else { continue };
            if told.doorbell.is_some() && told.doorbell != port {
                told.doorbell = None;
                self.backend.set_doorbell(number, None);
            }
        }
    }

    fn stop_queues(&mut self) -> Result<(), Failed> {
        let mut result = Ok(());
        for number in self.numbers() {
            let runs = self.runs(number);
            let index = usize::from(number);
            let (Some(told), Some(queue)) = (self.told.get_mut(index), self.registers.queues.get_mut(index)) else {
                continue;
            };
            if told.is_running && !runs {
                told.is_running = false;
                match self.backend.stop_queue(number) {
                    Ok(base) => queue.base = base,
                    Err(failed) => result = Err(failed),
                }
            }
        }
        result
    }

    fn tell_messages(&mut self) {
        for number in self.numbers() {
            let vector = self.registers.queues.get(usize::from(number)).map_or(NO_VECTOR, |queue| queue.vector);
            let message = self.message(vector);
            let Some(told) = self.told.get_mut(usize::from(number)) else { continue };
            if told.message != message {
                told.message = message;
                self.backend.set_message(number, message);
                // What came while there was no message is sent with the new one.
                if message.is_some() && self.backend.take_pending(number) {
                    self.msix.raise(vector);
                }
            }
        }
    }

    fn start_queues(&mut self) -> Result<(), Failed> {
        for number in self.numbers() {
            let runs = self.runs(number);
            let index = usize::from(number);
            let (Some(told), Some(queue)) = (self.told.get_mut(index), self.registers.queues.get(index)) else {
                continue;
            };
            if runs && !told.is_running {
                self.is_touched = true;
                self.backend.start_queue(number, &queue.setup())?;
                told.is_running = true;
            }
        }
        Ok(())
    }

    fn set_doorbells(&mut self) {
        for number in self.numbers() {
            let port = self.doorbell(number);
            let Some(told) = self.told.get_mut(usize::from(number)) else { continue };
            if told.doorbell != port {
                told.doorbell = port;
                self.backend.set_doorbell(number, port);
            }
        }
    }

    /// The queues' pending bits are set that interrupted while their vectors were masked.
    pub(super) fn collect_pending(&mut self) {
        for number in self.numbers() {
            let index = usize::from(number);
            let (Some(told), Some(queue)) = (self.told.get(index), self.registers.queues.get(index)) else { continue };
            if queue.vector != NO_VECTOR && told.message.is_none() && self.backend.take_pending(number) {
                self.msix.raise(queue.vector);
            }
        }
    }

    /// ISR status, which is zero when it was read. There is no wired interrupt that it would tell of: it is for drivers that
    /// look by themselves.
    pub(super) fn take_isr(&mut self) -> Isr {
        let mut isr = core::mem::replace(&mut self.registers.isr, Isr::empty());
        if !self.msix.is_enabled() {
            for number in self.numbers() {
                if self.backend.take_pending(number) {
                    isr |= Isr::QUEUE;
                }
            }
        }
        isr
    }

    /// The driver rings for a queue, and the ring has come here.
    pub(super) fn ring(&mut self, number: u64) {
        if let Ok(number) = u16::try_from(number)
            && self.told.get(usize::from(number)).is_some_and(|told| told.is_running)
        {
            self.backend.notify(number);
        }
    }

    fn numbers(&self) -> Range<u16> {
        0..self.told.len() as u16
    }

    /// Whether a queue is to run.
    fn runs(&self, number: u16) -> bool {
        let status = self.registers.status;
        !self.is_paused
            && self.command.contains(Command::BUS_MASTER)
            && status.contains(Status::DRIVER_OK)
            && !status.intersects(Status::FAILED | Status::NEEDS_RESET)
            && self.registers.queues.get(usize::from(number)).is_some_and(|queue| queue.is_enabled)
    }

    /// The port that a queue is to be rung for by.
    fn doorbell(&self, number: u16) -> Option<u16> {
        let Some(Window::Io(ports)) = self.doorbells.window(self.command) else { return None };
        let port = ports.start + u64::from(number) * DOORBELL_SIZE;
        self.runs(number).then(|| u16::try_from(port).ok()).flatten()
    }

    /// What a vector sends now.
    fn message(&self, vector: u16) -> Option<Message> {
        self.command.contains(Command::BUS_MASTER).then(|| self.msix.message(vector)).flatten()
    }
}

impl Queue {
    const fn setup(&self) -> QueueSetup {
        QueueSetup {
            size: self.size,
            base: self.base,
            descriptors: GuestPhys(self.descriptors),
            driver_area: GuestPhys(self.driver_area),
            device_area: GuestPhys(self.device_area),
        }
    }
}
