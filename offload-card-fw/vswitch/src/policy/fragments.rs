//! The ports of fragmented datagrams, told by their first fragments.

use crate::packet::{Fragment, Packet};

use super::rules::Direction;

/// Datagrams that are remembered at a time, the latest.
const PLACES: usize = 32;

/// How long the fragments of a datagram may take; a receiver gives up after 60 s (RFC 8200 4.5), yet in practice they
/// come back to back.
const LIFETIME_NS: u64 = 5_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Datagram {
    addresses: (u128, u128),
    identification: u32,
    vlan: u16,
    protocol: u8,
    direction: Direction,
}

#[derive(Clone, Copy)]
struct Place {
    datagram: Datagram,
    ports: (u16, u16),
    expires_ns: u64,
}

/// The first fragments that passed a filter lately.
pub struct FragmentTable {
    places: [Option<Place>; PLACES],
    next: usize,
}

impl FragmentTable {
    /// None yet.
    pub const fn new() -> Self {
        Self { places: [None; PLACES], next: 0 }
    }

    /// Remembers the ports of a first fragment, in place of the oldest.
    pub fn remember(&mut self, packet: &Packet, fragment: Fragment, (direction, vlan): (Direction, u16), now_ns: u64) {
        let datagram = datagram(packet, fragment, direction, vlan);
        let ports = (packet.key.source_port(), packet.key.destination_port());
        self.places[self.next] = Some(Place { datagram, ports, expires_ns: now_ns.saturating_add(LIFETIME_NS) });
        self.next = (self.next + 1) % PLACES;
    }

    /// The ports of a later fragment's datagram.
    pub fn ports(
        &self,
        packet: &Packet,
        fragment: Fragment,
        (direction, vlan): (Direction, u16),
        now_ns: u64,
    ) -> Option<(u16, u16)> {
        let datagram = datagram(packet, fragment, direction, vlan);
        let mut places = self.places.iter().flatten();
        places.find(|place| place.datagram == datagram && now_ns < place.expires_ns).map(|place| place.ports)
    }
}

const fn datagram(packet: &Packet, fragment: Fragment, direction: Direction, vlan: u16) -> Datagram {
    Datagram {
        addresses: (packet.key.source(), packet.key.destination()),
        identification: fragment.identification,
        vlan,
        protocol: packet.key.protocol(),
        direction,
    }
}
