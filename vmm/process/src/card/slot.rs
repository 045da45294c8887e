//! A place of the guest's bus where a device of the card is.

use alloc::sync::Arc;

use dragonfly_machine::Message;
use dragonfly_machine::virtio::{Backend, Description, Failed, QueueSetup};

use super::Card;

/// A place of the guest's bus where a device of the card is: what its PCI function calls.
pub(crate) struct Slot {
    card: Arc<Card>,
    number: usize,
    /// What is there.
    pub(crate) description: Description,
}

impl Slot {
    /// The place of the device with this number.
    pub(super) const fn new(card: Arc<Card>, number: usize, description: Description) -> Self {
        Self { card, number, description }
    }
}

impl Backend for Slot {
    fn features(&self) -> u64 {
        self.card.with(self.number, |device| device.features()).unwrap_or(0)
    }

    fn negotiate(&mut self, features: u64) -> Result<(), Failed> {
        self.card.with(self.number, |device| device.negotiate(features)).unwrap_or(Err(Failed))
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.card.with(self.number, |device| device.read_config(offset, data));
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.card.with(self.number, |device| device.write_config(offset, data));
    }

    fn start_queue(&mut self, queue: u16, setup: &QueueSetup) -> Result<(), Failed> {
        self.card.with(self.number, |device| device.start_queue(queue, setup)).unwrap_or(Err(Failed))
    }

    fn stop_queue(&mut self, queue: u16) -> Result<u32, Failed> {
        self.card.with(self.number, |device| device.stop_queue(queue)).unwrap_or(Err(Failed))
    }

    fn notify(&mut self, _: u16) {
        self.card.with(self.number, |device| device.notify());
    }

    fn set_doorbell(&mut self, queue: u16, port: Option<u16>) {
        self.card.with(self.number, |device| device.set_doorbell(queue, port));
    }

    fn set_message(&mut self, queue: u16, message: Option<Message>) {
        self.card.with(self.number, |device| device.set_message(queue, message));
    }

    fn take_pending(&mut self, queue: u16) -> bool {
        self.card.with(self.number, |device| device.take_pending(queue)).unwrap_or(false)
    }

    fn reset(&mut self) {
        self.card.with(self.number, |device| device.reset());
    }
}
