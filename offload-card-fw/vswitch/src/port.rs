//! Ports: how they are set up, and what the switch keeps for each.

use alloc::vec::Vec;

use crate::{
    address::MacAddress,
    capture::{CaptureConfig, Record},
    counters::PortCounters,
    frame::Output,
    identity::Identity,
    limit::{Limits, Policer, Rate},
    packet::{Packet, protocol},
    policy::{Filter, FilterConfig, GroupId},
    tables::FlowCache,
    tunnel::Tunnel,
    vlan::VlanMode,
};

/// A port's number, chosen by whoever adds it; small numbers, since they index a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortId(pub u16);

impl PortId {
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is at a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A guest.
    Guest,
    /// The card's own services.
    Management,
    /// A physical network.
    Uplink,
    /// A virtual network's part on another host, reached through an uplink.
    Tunnel(Tunnel),
}

impl Role {
    /// Frames never go from one port of the outside world to another: this switch is no transit.
    pub(crate) const fn is_outside(&self) -> bool {
        matches!(self, Self::Uplink | Self::Tunnel(_))
    }
}

/// How a port is set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// What is there.
    pub role: Role,
    /// The VLANs that it is in.
    pub vlan: VlanMode,
    /// The longest IP packet that it takes, in bytes. For a tunnel, what fits into its uplink's packets counts too.
    pub mtu: u16,
    /// The addresses that it may use; `None` lets it use any.
    pub identity: Option<Identity>,
    /// Its security groups; `None` lets everything pass, an empty list nothing.
    pub groups: Option<Vec<GroupId>>,
    /// How its connections are remembered.
    pub filter: FilterConfig,
    /// What it may send.
    pub send_limits: Limits,
    /// What it may receive.
    pub receive_limits: Limits,
    /// Frames that it may send to groups and to unknown stations.
    pub flood_limit: Option<Rate>,
    /// The most stations that are learnt behind it.
    pub stations: u32,
    /// Places of its flow cache, 128 bytes each; rounded up to a power of two.
    pub flows: u32,
}

impl PortConfig {
    /// A port with nothing special, in VLAN 0.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self {
            role,
            vlan: VlanMode::Access(0),
            mtu: 1500,
            identity: None,
            groups: None,
            filter: FilterConfig::default(),
            send_limits: Limits::default(),
            receive_limits: Limits::default(),
            flood_limit: None,
            stations: 64,
            flows: 4096,
        }
    }
}

/// What the switch keeps for a port.
pub struct Port {
    pub config: PortConfig,
    /// Never the same for two set-ups, of this or another port.
    pub generation: u64,
    pub cache: FlowCache,
    pub filter: Option<Filter>,
    pub counters: PortCounters,
    pub send_policer: Policer,
    pub receive_policer: Policer,
    pub flood_policer: Policer,
    /// Limits the answers to frames that were too long.
    pub error_policer: Policer,
    pub capture: Option<CaptureConfig>,
    /// The longest IP packet that may go to the port.
    pub longest_packet: usize,
}

impl Port {
    /// Whether all stations behind the port are known beforehand, so that unknown ones cannot be there.
    pub fn knows_its_stations(&self) -> bool {
        self.config.identity.is_some()
    }

    /// The addresses that nobody else gets.
    pub fn bound_macs(&self) -> &[MacAddress] {
        self.config.identity.as_ref().map_or(&[], |identity| &identity.macs)
    }

    pub const fn tunnel(&self) -> Option<&Tunnel> {
        match &self.config.role {
            Role::Tunnel(tunnel) => Some(tunnel),
            _ => None,
        }
    }
}

/// Which way a frame passes a captured port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    Received,
    Sent,
}

/// Hands a frame to a capture, if it is one that is wanted.
pub fn capture(
    (id, config): (PortId, &CaptureConfig),
    passing: Passing,
    packet: Option<&Packet>,
    (head, length): (&[u8], usize),
    now_ns: u64,
    out: &mut impl Output,
) {
    let is_wanted = match passing {
        Passing::Received => config.received,
        Passing::Sent => config.sent,
    };
    let matches = config.transport_port.is_none_or(|port| {
        packet.is_some_and(|packet| {
            matches!(packet.key.protocol(), protocol::TCP | protocol::UDP)
                && [packet.key.source_port(), packet.key.destination_port()].contains(&port)
        })
    });
    if is_wanted && matches {
        out.captured(id, &Record::new(head, length, config.snap_length, now_ns));
    }
}
