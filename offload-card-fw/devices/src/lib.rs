//! The card's devices, of which the process on Linux and the domain of the hypervisor are made.
//!
//! - `tables`: the devices that a machine file describes.
//! - `connection`: a client that uses a device: its session, and rounds over its rings. `serve`: what that needs of a device.
//! - `ring`: rings as sessions describe them, made into queues.
//! - `disk`: virtio-blk over any disk. `remote`: virtio-blk over a disk at a server. `contents`, `pools`, `key`: the layers that a disk is made of.
//! - `net`: virtio-net, and the switch between its devices.
//! - `groups`: security groups whose rules change while their switch runs.
//! - `kept`: what a device has been told, for the card after this one.
//! - `rng`: virtio's entropy device. `console`: consoles, and other ports for bytes. `vsock`: sockets between
//!   guests, and with the host.
//!
//! Who opens files, maps memory, waits and tells the time is not known here. That is [`GuestAccess`], and whoever calls
//! [`Connection`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod connection;
mod console;
mod contents;
mod disk;
mod groups;
pub mod kept;
mod key;
mod net;
mod pools;
mod remote;
mod ring;
mod rng;
mod serve;
pub mod tables;
pub mod vsock;

pub use connection::{Connection, ConnectionError, GuestAccess, MAX_LINES, Round};
pub use console::{Cables, ConsoleDevice, HostPort, PORT_BYTES, PortTaken};
pub use contents::{Contents, ContentsError, SharedDisk, Store, encrypt, open_store};
pub use disk::DiskDevice;
pub use groups::{Change, Groups};
pub use key::{KeyFileError, parse_key};
pub use net::{Control, Fabric, NetDevice, PortError, Unfinished};
pub use pools::Pools;
pub use remote::{RemoteDisk, Token as RemoteToken};
pub use rng::{AnyEntropy, Entropy, RngDevice};
pub use serve::{Serve, Service};
pub use vsock::{SOCKET_BYTES, SocketError, SocketGuest, SocketHub, VsockDevice};
