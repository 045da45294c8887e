//! A vhost-user front end without a guest: it shares a piece of memory with a back end, and plays a driver in it that is
//! fast enough to load any of them (the card, DPDK, Open vSwitch, QEMU's storage daemon) in the same way.
//!
//! [`socket`] carries the protocol's messages, [`memory`] is what is shared, [`ring`] the driver's side of a queue; [`net`] sends
//! frames through a switch and counts what comes out.
#![deny(unsafe_code)]

pub mod memory;
pub mod net;
pub mod ring;
pub mod socket;
