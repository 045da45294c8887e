//! Sockets of guests (virtio 1.2 5.10): streams between guests of one card.
//!
//! - `device`: [`VsockDevice`], a guest's queues. `packet`: what travels in them.
//! - `hub`: [`SocketHub`], which connections there are, and which may be. `connection`: one of them.
//!
//! Two guests are connected only if each names the other. The card is in between: see `connection` for what that is good for.
//! The host may have an end, too, [`HOST_CID`]: whoever drives it speaks with the hub in packets, as a guest's driver does.

mod connection;
mod device;
mod hub;
mod packet;
#[cfg(test)]
mod tests;

/// Memory of the card's, in bytes, for each connection that a guest may have: the other half is charged to its peer.
pub const SOCKET_BYTES: u64 = connection::ROOM as u64;

pub use self::{
    device::VsockDevice,
    hub::{HOST_CID, SocketError, SocketGuest, SocketHub},
    packet::{Header, Operation, STREAM, Shutdown},
};
