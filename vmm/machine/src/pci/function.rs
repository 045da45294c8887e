//! What a PCI function is to the bus.

use bitflags::bitflags;

use super::Window;
use crate::message::Message;
use crate::state::{Decoder, Encoder, StateError};

bitflags! {
    /// Command register of a function (PCI Local Bus 3.0, 6.2.2): the bits that functions here have.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct Command: u16 {
        /// Ports are decoded.
        const IO = 1 << 0;
        /// Memory is decoded.
        const MEMORY = 1 << 1;
        /// The function may access memory, and interrupt by messages.
        const BUS_MASTER = 1 << 2;
        /// No wired interrupts; there are none.
        const INTERRUPT_DISABLE = 1 << 10;
    }
}

/// What the machine's owner tells a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// Its device's configuration has changed.
    ConfigChanged,
    /// Its device has failed.
    Failed,
    /// It is to do nothing by itself until [`Resume`](Self::Resume).
    Pause,
    /// It may go on.
    Resume,
}

/// A PCI function: its configuration space, and what is in its windows. What the guest writes is foreign.
pub(crate) trait PciFunction: Send {
    /// The double word at `offset`, a multiple of 4 below 4096. What is not there is zero.
    fn read_config(&mut self, offset: u16) -> u32;

    /// Writes those bytes of the double word at `offset` whose bits are set in `mask`.
    fn write_config(&mut self, offset: u16, value: u32, mask: u32);

    /// What is decoded for a base address register, as its configuration space says now.
    fn window(&self, _bar: u8) -> Option<Window> {
        None
    }

    /// Reads what is behind a base address register; the access is inside of its window.
    fn read_bar(&mut self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    /// Writes what is behind a base address register; the access is inside of its window.
    fn write_bar(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}

    /// The next interrupt to send.
    fn take_message(&mut self) -> Option<Message> {
        None
    }

    /// The owner tells something.
    fn notice(&mut self, _notice: Notice) {}

    /// Adds the function's state, if it has any, as a section.
    fn save(&self, _state: &mut Encoder) {}

    /// Takes the state that was saved, and does nothing by itself until it is told to go on.
    fn restore(&mut self, _state: &mut Decoder<'_>) -> Result<(), StateError> {
        Ok(())
    }
}
