//! Messages of the control queues (virtio 1.2 5.3.6.2).

use alloc::vec::Vec;
use core::mem::offset_of;

use bitflags::bitflags;
use zerocopy::{
    FromBytes, Immutable, IntoBytes,
    little_endian::{U16, U32},
};

/// What the driver says.
pub const DEVICE_READY: u16 = 0;
pub const PORT_READY: u16 = 3;
/// What both say.
pub const PORT_OPEN: u16 = 6;
/// What the card says.
pub const PORT_ADD: u16 = 1;
pub const CONSOLE_PORT: u16 = 4;
pub const RESIZE: u16 = 5;
pub const PORT_NAME: u16 = 7;

/// `struct virtio_console_control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Message {
    pub port: U32,
    pub event: U16,
    pub value: U16,
}

const _: () = assert!(size_of::<Message>() == 8 && offset_of!(Message, value) == 6);

bitflags! {
    /// What the card is to tell the driver of a port, in the order in which it does: so much and no more, however often the
    /// driver asks.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Owed: u8 {
        const ADD = 1;
        const CONSOLE = 1 << 1;
        const NAME = 1 << 2;
        const SIZE = 1 << 3;
        const OPEN = 1 << 4;
    }
}

/// A port as messages tell of it.
#[derive(Debug)]
pub struct Told<'a> {
    pub number: u32,
    pub name: &'a str,
    pub columns: u16,
    pub rows: u16,
    pub is_connected: bool,
}

impl Owed {
    /// The first of those.
    pub fn first(self) -> Option<Self> {
        self.iter().next()
    }

    /// The message that tells it.
    pub fn message(self, port: &Told<'_>) -> Vec<u8> {
        let message = |event, value| {
            let message = Message { port: U32::new(port.number), event: U16::new(event), value: U16::new(value) };
            Vec::from(message.as_bytes())
        };
        match self {
            Self::ADD => message(PORT_ADD, 1),
            Self::CONSOLE => message(CONSOLE_PORT, 1),
            Self::NAME => [message(PORT_NAME, 1), port.name.as_bytes().into()].concat(),
            // The specification has columns first, but the drivers that there are, Linux's before all, read rows first.
            Self::SIZE => {
                [message(RESIZE, 0), port.rows.to_le_bytes().into(), port.columns.to_le_bytes().into()].concat()
            }
            _ => message(PORT_OPEN, port.is_connected.into()),
        }
    }
}
