//! Consoles and other ports for bytes between guests (virtio 1.2 5.3).
//!
//! - `device`: [`ConsoleDevice`], a guest's ports and their queues. `control`: what guest and card tell each other of ports.
//! - `cables`: [`Cables`], which ports are connected, and what is under way between them.
//!
//! Ports of the same name are connected, two at most.

mod cables;
mod control;
mod device;

/// Memory of the card's, in bytes, for each port.
pub const PORT_BYTES: u64 = cables::ROOM as u64;

pub use self::{
    cables::{Cables, HostPort, PortTaken},
    device::ConsoleDevice,
};
