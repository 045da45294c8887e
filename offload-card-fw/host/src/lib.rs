//! The offload card's firmware as a process on Linux: a vhost-user back end for QEMU and other front ends.
//!
//! - `machine`: the machine file. `cli`, `journal`: the command line, the log.
//! - `card`: all devices of a machine file, and the threads that serve them.
//! - `worker`, `poller`, `orders`: a thread that polls rings while there is work, sleeps when there is none, and takes orders.
//! - `rules`: security groups that change while the card runs.
//! - `port`, `inbox`, `socket`: a device's socket and the client that calls there.
//! - `platform`, `shared_memory`: what a session needs of Linux; the latter has `unsafe`.
//! - `disk`, `image`: disks in files. `remote`: the connection to a disk at a server. `uplink`: the network's way out; its `link` has the other `unsafe`.
//! - `entropy`: random numbers. `sockets`, `consoles`: programs of the host, connected with guests.
//! - `tool`, `snapshots`: what the command line does to disks beside serving them. `control`: the same while guests use them.
//!
//! What the devices do is in crates that know no operating system: `dragonfly-card-devices`, and what that uses.

pub mod card;
pub mod cli;
pub mod consoles;
pub mod control;
pub mod disk;
pub mod entropy;
pub mod image;
pub mod inbox;
pub mod journal;
pub mod machine;
pub mod orders;
pub mod platform;
pub mod poller;
pub mod port;
pub mod remote;
pub mod rules;
pub mod shared_memory;
pub mod snapshots;
pub mod socket;
pub mod sockets;
pub mod tool;
pub mod uplink;
pub mod worker;
