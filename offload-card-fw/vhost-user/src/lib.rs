//! The card's control protocol: a front end (QEMU, Cloud Hypervisor, DPDK, Dragonfly's VMM) tells the card where a guest's
//! memory and rings are, and how to signal both ways.
//!
//! The messages are those of QEMU's `docs/interop/vhost-user.rst`, whose names are used here. What carries them is not
//! known here: a UNIX socket on Linux, a gate in the hypervisor. Nor is what comes along with them (file descriptors there,
//! handles here), which is a type parameter of [`Platform`].
//!
//! [`Header`] and [`wire`] read single messages. A [`Session`] holds what a front end has said so far, checks each new
//! message against it, and drives two traits: the [`Device`], which serves the rings, and the [`Platform`], which maps
//! memory and listens for kicks. Each byte of a message is an allegation: what contradicts the protocol, the device or what
//! was said before is a [`SessionError`], after which the session is to be closed with [`Session::close`].
//!
//! A [`FrontEnd`] is the other side: it makes the messages, and a [`Transport`] carries them.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod device;
mod error;
mod feature;
mod front_end;
mod header;
mod memory_table;
mod platform;
mod reply;
mod request;
mod session;
mod vring;
pub mod wire;

#[cfg(test)]
mod tests;

pub use device::{ConfigError, Device, RingConfig};
pub use error::{MessageError, SessionError};
pub use feature::{F_PROTOCOL_FEATURES, ProtocolFeatures};
pub use front_end::{FrontEnd, FrontEndError, MAX_MESSAGE, Transport};
pub use header::{HEADER_LEN, Header, MAX_PAYLOAD};
pub use memory_table::{MAX_REGIONS, Region};
pub use platform::{Inflight, MAX_RESOURCES, Platform};
pub use reply::Reply;
pub use request::Request;
pub use session::{Received, Session};
pub use vring::MAX_QUEUES;
