//! The client's side of the NBD protocol, by which a disk is at a server: bytes in, bytes out, and the time.
//!
//! - `address`: where a server is, and which of its exports is meant, as a URI says it.
//! - `handshake`: fixed newstyle negotiation with `NBD_OPT_GO`: [`Export`].
//! - `client`: [`Client`], which has several commands under way, and sends them anew when the connection was lost.
//! - `wire`: the numbers of the protocol. `error`: [`NbdError`].
//!
//! Source: the NBD project's `doc/proto.md` and `doc/uri.md`. Replies are simple ones; TLS is not there. A server is not
//! believed: what it says is checked, and the first thing that cannot be is the end of the disk, with that reason.

mod address;
mod client;
mod error;
mod handshake;
mod wire;

pub use address::{Address, AddressError, DEFAULT_PORT, Place};
pub use client::{Client, Command, Done, MAX_DATA_BYTES};
pub use error::NbdError;
pub use handshake::Export;
pub use wire::TransmissionFlags;
