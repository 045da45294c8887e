//! Tunnels: frames of a virtual network inside UDP packets between hosts.
//!
//! A tunnel is a port like others: what the switch sends there gets outer headers and leaves through an uplink
//! ([`Tunnel::write_header`]); what the uplink brings for it loses them and comes from the tunnel's port. VXLAN (RFC
//! 7348) and Geneve (RFC 8926) differ in eight bytes.

mod decapsulate;
mod encapsulate;

use core::net::IpAddr;

pub(crate) use self::decapsulate::{has_right_checksum, open};
use crate::{
    address::{Family, MacAddress, address_bits},
    port::PortId,
};

/// The longest run of outer headers: Ethernet with a tag, IPv6, UDP, and VXLAN or Geneve without options.
pub const MAX_HEADER: usize = 18 + 40 + UDP + SHIM;

const UDP: usize = 8;
/// The header of VXLAN, or of Geneve without options.
const SHIM: usize = 8;
/// An inner frame's Ethernet header.
const INNER_ETHERNET: usize = 14;

/// How frames are wrapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TunnelProtocol {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

impl TunnelProtocol {
    /// The UDP port that packets are sent to, assigned by IANA.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Vxlan => 4789,
            Self::Geneve => 6081,
        }
    }

    pub(crate) const fn of_port(port: u16) -> Option<Self> {
        match port {
            4789 => Some(Self::Vxlan),
            6081 => Some(Self::Geneve),
            _ => None,
        }
    }
}

/// One virtual network's tunnel to one other host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunnel {
    /// How frames are wrapped.
    pub protocol: TunnelProtocol,
    /// The virtual network's number; 24 bits.
    pub network: u32,
    /// This host's address in the physical network.
    pub local: IpAddr,
    /// The other host's, of the same family.
    pub remote: IpAddr,
    /// This host's Ethernet address there.
    pub local_mac: MacAddress,
    /// That of the other host or of the router on the way. Whoever manages the card finds it by ARP or neighbour
    /// discovery. All zeros while it is not known: nothing goes into the tunnel then.
    pub next_hop_mac: MacAddress,
    /// The VLAN tag of outer frames, if they have one.
    pub vlan: Option<u16>,
    /// The port that outer frames go to and come from.
    pub uplink: PortId,
    /// Whether the outer UDP header gets a checksum. Without one, the inner packet's guards what matters (RFC 6935).
    pub has_checksum: bool,
}

/// What tells a tunnel from others when a packet comes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TunnelName {
    pub protocol: TunnelProtocol,
    pub network: u32,
    pub local: IpAddr,
    pub remote: IpAddr,
}

impl Tunnel {
    pub(crate) const fn name(&self) -> TunnelName {
        let Self { protocol, network, local, remote, .. } = *self;
        TunnelName { protocol, network, local, remote }
    }

    /// Whether it is known who takes its packets.
    pub(crate) fn has_next_hop(&self) -> bool {
        self.next_hop_mac != MacAddress([0; 6])
    }

    /// Whether its parts fit together: addresses of one family, numbers in range.
    pub(crate) fn is_consistent(&self) -> bool {
        address_bits(self.local).0 == address_bits(self.remote).0
            && self.network < 1 << 24
            && self.vlan.is_none_or(|vlan| vlan < 4095)
    }

    /// Bytes that the tunnel puts before a frame.
    #[must_use]
    pub const fn header_length(&self) -> usize {
        self.ip_offset() + self.ip_length() + UDP + SHIM
    }

    /// The longest inner IP packet whose outer one has at most `mtu` bytes.
    pub(crate) const fn longest_packet(&self, mtu: u16) -> usize {
        (mtu as usize).saturating_sub(self.ip_length() + UDP + SHIM + INNER_ETHERNET)
    }

    const fn family(&self) -> Family {
        match self.local {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    const fn ip_offset(&self) -> usize {
        if self.vlan.is_some() { 18 } else { 14 }
    }

    const fn ip_length(&self) -> usize {
        match self.family() {
            Family::V4 => 20,
            Family::V6 => 40,
        }
    }
}
