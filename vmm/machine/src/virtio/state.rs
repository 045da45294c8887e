//! The saved state of a virtio function: what its driver has set. What serves its queues is the same when it is restored, and
//! keeps its own state.

use super::registers::{Isr, NO_VECTOR, Queue, Registers, Status};
use super::{VirtioPci, feature};
use crate::pci::Command;
use crate::state::{Decoder, Encoder, SectionName, StateError};

const NAME: SectionName = *b"VPCI";
const VERSION: u16 = 1;

impl VirtioPci {
    pub(super) fn save_section(&self, state: &mut Encoder) {
        state.section(NAME, VERSION, |section| {
            section.u16(self.description.kind as u16);
            section.u16(self.command.bits());
            section.u8(self.interrupt_line);
            section.u64(self.doorbells.address());
            section.u64(self.structures.address());
            section.u8(self.access.bar);
            section.u32(self.access.offset);
            section.u32(self.access.length);
            self.msix.save(section);
            self.registers.save(section);
        });
    }

    /// Takes a saved state. The back end is told of it when the machine goes on.
    pub(super) fn restore_section(&mut self, state: &mut Decoder<'_>) -> Result<(), StateError> {
        state.section(NAME, VERSION, |section, _| {
            if section.u16()? != self.description.kind as u16 {
                return Err(StateError::OtherFunctions);
            }
            self.is_paused = true;
            self.command = Command::from_bits_truncate(section.u16()?);
            self.interrupt_line = section.u8()?;
            self.doorbells.place(section.u64()?);
            self.structures.place(section.u64()?);
            self.access.bar = section.u8()?;
            self.access.offset = section.u32()?;
            self.access.length = section.u32()?;
            self.msix.restore(section)?;
            self.registers.restore(section, self.description.queue_size_max, self.msix.vectors())?;
            let is_negotiated = self.registers.status.contains(Status::FEATURES_OK);
            if is_negotiated && !feature::may_accept(self.offered_features(), self.registers.driver_features) {
                return Err(StateError::OtherFunctions);
            }
            Ok(())
        })
    }

    /// The machine goes on, also after it was restored: then the back end is told all that the driver has set.
    pub(super) fn resume(&mut self) {
        self.is_paused = false;
        if self.registers.status.contains(Status::FEATURES_OK) && !self.is_touched && !self.negotiate() {
            self.fail();
        }
        self.settle();
    }
}

impl Registers {
    fn save(&self, section: &mut Encoder) {
        section.u32(self.device_feature_select);
        section.u32(self.driver_feature_select);
        section.u64(self.driver_features);
        section.u16(self.config_vector);
        section.u8(self.status.bits());
        section.u8(self.config_generation);
        section.u16(self.queue_select);
        section.u8(self.isr.bits());
        section.u16(self.queues.len() as u16);
        for queue in &self.queues {
            section.u16(queue.size);
            section.u16(queue.vector);
            section.u8(queue.is_enabled.into());
            section.u64(queue.descriptors);
            section.u64(queue.driver_area);
            section.u64(queue.device_area);
            section.u32(queue.base);
        }
    }

    fn restore(&mut self, section: &mut Decoder<'_>, size_max: u16, vectors: u16) -> Result<(), StateError> {
        let vector = |vector: u16| match vector {
            NO_VECTOR => Ok(NO_VECTOR),
            vector if vector < vectors => Ok(vector),
            _ => Err(StateError::Damaged),
        };
        self.device_feature_select = section.u32()?;
        self.driver_feature_select = section.u32()?;
        self.driver_features = section.u64()?;
        self.config_vector = vector(section.u16()?)?;
        self.status = Status::from_bits_truncate(section.u8()?);
        self.config_generation = section.u8()?;
        self.queue_select = section.u16()?;
        self.isr = Isr::from_bits_truncate(section.u8()?);
        if usize::from(section.u16()?) != self.queues.len() {
            return Err(StateError::OtherFunctions);
        }
        for queue in &mut self.queues {
            *queue = Queue {
                size: section.u16()?,
                vector: vector(section.u16()?)?,
                is_enabled: section.u8()? != 0,
                descriptors: section.u64()?,
                driver_area: section.u64()?,
                device_area: section.u64()?,
                base: section.u32()?,
            };
            if queue.size == 0 || queue.size > size_max {
                return Err(StateError::OtherFunctions);
            }
        }
        Ok(())
    }
}
