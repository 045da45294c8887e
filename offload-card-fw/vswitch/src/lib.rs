//! The card's switch: frames between guests, the card's own services and the world.
//!
//! [`Switch::receive`] takes a batch of frames from one port and names, for each, the ports that get it and how it is
//! changed on the way ([`Edit`]); the bytes are moved by the caller, once. What happens to a frame:
//!
//! 1. [`packet`] reads its headers into a flow key of fixed size; [`tunnel`] takes outer headers off.
//! 2. `tables::FlowCache` knows what was decided about the flow. If ports, stations and connections are as they were,
//!    that is done again, and this is all for most frames.
//! 3. Otherwise it is decided anew: VLAN ([`vlan`]), anti-spoofing ([`identity`]), learning (`tables::MacTable`), the
//!    sending guest's security groups ([`policy`]), the receiving port or ports, the receiving guest's security groups.
//! 4. Limits ([`limit`]), counters ([`counters`]), capture ([`capture`]), tags and tunnels apply to each port.
//!
//! All tables have fixed sizes and are divided among ports beforehand, so that nothing a guest sends takes room or time
//! slots from another guest's flows. Nothing is allocated while frames pass. Changes take `&mut self` and give the
//! ports that they touch a new generation: what was decided under an old one is not used again.
//!
//! The crate knows no rings, no operating system and no clock: time comes with each call, in nanoseconds from any
//! point on. [`offload`] completes checksums and cuts long frames for receivers that cannot.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
mod bytes;
pub mod capture;
pub mod checksum;
pub mod counters;
mod frame;
pub mod identity;
pub mod limit;
pub mod offload;
pub mod packet;
pub mod policy;
mod port;
mod switch;
mod tables;
mod too_big;
pub mod tunnel;
pub mod vlan;

pub use self::{
    address::{Family, MacAddress, Prefix},
    frame::{Edit, Frame, MAX_PREFIX, Offload, Output, PartialChecksum, SegmentKind, Segmentation, Splice},
    port::{PortConfig, PortId, Role},
    switch::{ConfigError, Switch, SwitchConfig},
};
