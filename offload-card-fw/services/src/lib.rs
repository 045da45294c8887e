//! The card's own station on its switch: what guests find at one address of their network.
//!
//! [`Services::receive`] takes a frame that the switch sent to the port of the services, and sends answers back into that
//! port. Behind the address are
//!
//! - ARP (RFC 826) and echo (RFC 792), so that it can be found and pinged;
//! - a DHCP server (RFC 2131, RFC 2132) that gives each guest's network device the one address that was set for it;
//! - a DNS server (RFC 1035) that knows the machines by name and by address, and asks a resolver outside for the rest.
//!
//! [`Neighbours`] is another station, in the physical network: where tunnels end that the switch makes.
//!
//! All nets are in one network of IPv4, without VLAN tags. Frames need whole checksums: a guest's partial ones are
//! completed by the switch for receivers without offloads (`dragonfly_vswitch::offload`).
//!
//! What comes from guests and from outside is hostile. A frame causes at most two frames and no more work than its
//! length, except that the address of the next hop sends what waited for it; queries under way have places of their
//! guest's own, [`QUERIES_PER_NET`] each. The crate knows neither time nor chance: both come from the caller.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod arp;
mod config;
mod dhcp;
mod dns;
mod frame;
mod icmp;
mod neighbours;
mod services;

pub use self::{
    config::{Config, ConfigError, Net, Source, host_label},
    dhcp::is_dhcp,
    dns::QUERIES_PER_NET,
    neighbours::{Neighbours, Resolution},
    services::{Environment, Services},
};
