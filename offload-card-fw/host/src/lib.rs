//! The offload card's firmware as a process on Linux: a vhost-user back end for QEMU and other front ends.
//!
//! - `machine`: the machine file. `cli`, `journal`: the command line, the log.
//! - `card`: all devices of a machine file, and the threads that serve them.
//! - `worker`, `poller`, `serve`: a thread that polls rings while there is work, and sleeps when there is none.
//! - `port`, `inbox`: a device's socket and the client that calls there.
//! - `platform`, `shared_memory`: what a session needs of Linux; the latter has the only `unsafe`.
//! - `disk`, `ring`, `image`, `key`: virtio-blk, its rings, disks in files and their keys.
//! - `net`: virtio-net, and the switch between its devices.
//!
//! What the devices do is in crates that know no operating system: `dragonfly-virtqueue`, `dragonfly-storage`,
//! `dragonfly-vswitch` and the protocol, `dragonfly-vhost-user`.

pub mod card;
pub mod cli;
pub mod disk;
pub mod image;
pub mod inbox;
pub mod journal;
pub mod key;
pub mod machine;
pub mod net;
pub mod platform;
pub mod poller;
pub mod port;
pub mod ring;
pub mod serve;
pub mod shared_memory;
pub mod worker;
