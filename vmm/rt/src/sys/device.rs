//! Devices: I/O ports and interrupts. Device memory is [`Memory`](super::Memory).

use dragonfly_abi::{Call, Handle, Status};

use super::handle::define_object;
use super::{Notification, Object, call};

define_object! {
    /// A range of I/O ports.
    Ports
}

define_object! {
    /// An interrupt line, or a message-signalled interrupt.
    Interrupt
}

/// What a device writes for a message-signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptMessage {
    /// Where: a physical address.
    pub address: u64,
    /// What.
    pub data: u32,
}

/// What on an interrupt line is an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A change of the line's level.
    Edge,
    /// The level itself, for as long as it lasts.
    Level,
}

/// Which level of an interrupt line means that the device wants attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// High, as ISA devices have it.
    ActiveHigh,
    /// Low, as PCI devices have it.
    ActiveLow,
}

impl Ports {
    /// Reads a port of the range, `width` bytes: 1, 2 or 4.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without READ, [`Status::BadArgument`] outside
    /// the range or for another width.
    pub fn read(self, port: u16, width: usize) -> Result<u32, Status> {
        call(Call::PortRead, [self.word(), port.into(), width as u64]).map(|words| words[0] as u32)
    }

    /// Writes a port of the range, `width` bytes: 1, 2 or 4.
    ///
    /// # Errors
    /// As [`Ports::read`], with WRITE in place of READ.
    pub fn write(self, port: u16, width: usize, value: u32) -> Result<(), Status> {
        call(Call::PortWrite, [self.word(), port.into(), width as u64, value.into()]).map(drop)
    }
}

impl Interrupt {
    /// Lets the interrupt set bits of a notification, handled on that CPU.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE or, of the notification, SEND,
    /// [`Status::BadCpu`].
    pub fn bind(self, notification: Notification, bits: u64, cpu: u32) -> Result<(), Status> {
        let arguments = [self.word(), notification.handle().0.into(), bits, cpu.into()];
        call(Call::InterruptBind, arguments).map(drop)
    }

    /// As [`Interrupt::bind`], of a message-signalled interrupt: gives what the device is to write, which is another with
    /// another CPU. There is nothing to acknowledge.
    ///
    /// # Errors
    /// As [`Interrupt::bind`]; [`Status::NotSupported`] if no device reaches that CPU, and [`Status::BadArgument`], with
    /// the binding made, for a line.
    pub fn bind_message(self, notification: Notification, bits: u64, cpu: u32) -> Result<InterruptMessage, Status> {
        let arguments = [self.word(), notification.handle().0.into(), bits, cpu.into()];
        let [address, data, ..] = call(Call::InterruptBind, arguments)?;
        if address == 0 { Err(Status::BadArgument) } else { Ok(InterruptMessage { address, data: data as u32 }) }
    }

    /// Lets the interrupt set nothing any more.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE.
    pub fn unbind(self) -> Result<(), Status> {
        call(Call::InterruptBind, [self.word(), Handle::NULL.0.into(), 0, 0]).map(drop)
    }

    /// Lets the next interrupt come.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE.
    pub fn acknowledge(self) -> Result<(), Status> {
        call(Call::InterruptAcknowledge, [self.word()]).map(drop)
    }
}
