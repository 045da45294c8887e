//! Anti-spoofing: who a guest may say it is.

use alloc::vec::Vec;

use crate::{
    address::{Family, MacAddress, Prefix},
    counters::DropReason,
    packet::{Packet, arp, ethertype, icmp, icmp::Message, protocol},
};

/// The addresses that a port may use as its own.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Ethernet addresses. No other port can take them over.
    pub macs: Vec<MacAddress>,
    /// Internet addresses. The link-local ones that derive from [`Self::macs`] (RFC 4291 2.5.6) are understood.
    pub addresses: Vec<Prefix>,
}

/// Ports of DHCP's client and server (RFC 2131 4.1).
const DHCP: (u16, u16) = (68, 67);

/// ICMPv6 types that a host sends before it has an address: solicitations (RFC 4861, RFC 4862) and listener reports
/// (RFC 3810).
const UNADDRESSED: [u8; 3] = [133, 135, 143];

impl Identity {
    /// Checks what a frame says about its sender.
    ///
    /// # Errors
    /// Names what is not the port's own.
    pub fn check(&self, packet: &Packet, head: &[u8]) -> Result<(), DropReason> {
        if !self.macs.contains(&packet.key.source_mac()) {
            return Err(DropReason::SpoofedMac);
        }
        let is_own = match packet.family() {
            None => packet.key.ethertype() != ethertype::ARP || self.is_own_arp(packet, head),
            Some(Family::V4) => self.is_own_v4(packet),
            Some(Family::V6) => self.is_own_v6(packet, head),
        };
        // Redirects and router advertisements change where others send.
        if is_own && Message::of_packet(packet) != Some(Message::Router) {
            Ok(())
        } else {
            Err(DropReason::SpoofedAddress)
        }
    }

    fn is_own_arp(&self, packet: &Packet, head: &[u8]) -> bool {
        arp::sender(head, usize::from(packet.network)).is_some_and(|sender| {
            sender.mac == packet.key.source_mac()
                && (sender.address == 0 || self.owns(Family::V4, sender.address.into()))
        })
    }

    fn is_own_v4(&self, packet: &Packet) -> bool {
        let key = &packet.key;
        let asks_for_address = key.source() == 0
            && key.protocol() == protocol::UDP
            && packet.fragment.is_none()
            && (key.source_port(), key.destination_port()) == DHCP;
        asks_for_address || self.owns(Family::V4, key.source())
    }

    fn is_own_v6(&self, packet: &Packet, head: &[u8]) -> bool {
        let key = &packet.key;
        let [kind, _] = key.source_port().to_be_bytes();
        let is_unaddressed = key.source() == 0 && key.protocol() == protocol::ICMPV6 && UNADDRESSED.contains(&kind);
        if !is_unaddressed && !self.owns(Family::V6, key.source()) {
            return false;
        }
        if Message::of_packet(packet) != Some(Message::Neighbour) {
            return true;
        }
        let advertises = kind == icmp::NEIGHBOUR_ADVERTISEMENT;
        // Option 1 tells the sender's link-layer address, option 2 the target's (RFC 4861 4.6.1).
        let link_address = icmp::neighbour_link_address(packet, head, 1 + u8::from(advertises));
        let target = icmp::neighbour_target(packet, head);
        link_address.is_none_or(|mac| self.macs.contains(&MacAddress(mac)))
            && target.is_some_and(|target| !advertises || self.owns(Family::V6, target))
    }

    fn owns(&self, family: Family, address: u128) -> bool {
        self.addresses.iter().any(|prefix| prefix.contains(family, address))
            || family == Family::V6 && self.macs.iter().any(|mac| link_local(*mac) == address)
    }
}

/// The link-local address that a host makes of its Ethernet address.
fn link_local(mac: MacAddress) -> u128 {
    let [a, b, c, d, e, f] = mac.0;
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    0xfe80 << 112 | u128::from(interface)
}
