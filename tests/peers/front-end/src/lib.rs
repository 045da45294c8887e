//! A vhost-user front end without a guest: it shares a piece of memory with a back end, and plays a driver in it that is
//! fast enough to load any of them (the card, DPDK, Open vSwitch, QEMU's storage daemon) in the same way.
//!
//! [`socket`] carries the protocol's messages and [`connection`] the usual ones, [`memory`] is what is shared, [`ring`] the
//! driver's side of a queue; [`blk`] reads from a disk, [`net`] sends
//! frames through a switch and counts what comes out, [`percentiles`] says how long it took.
#![deny(unsafe_code)]

pub mod blk;
pub mod connection;
pub mod memory;
pub mod net;
pub mod percentiles;
pub mod ring;
pub mod socket;
