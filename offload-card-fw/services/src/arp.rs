//! Address resolution (RFC 826): the station's own address, and the next hop's.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol};

use crate::frame::{Station, ethernet};

/// What a packet of ARP means to the services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// Somebody asks who has an address.
    Request {
        /// Who asks. The address is all zeros in a probe (RFC 5227 1.1).
        sender: Station,
        /// What is asked for.
        target: Ipv4Addr,
    },
    /// Somebody says who it is.
    Reply(Station),
}

/// Reads a packet; `None` if it is of other networks than IPv4 on Ethernet, or too short.
pub fn parse(packet: &[u8]) -> Option<Message> {
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: address,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    let sender = Station { mac, address };
    match operation {
        ArpOperation::Request => Some(Message::Request { sender, target }),
        ArpOperation::Reply => Some(Message::Reply(sender)),
        ArpOperation::Unknown(_) => None,
    }
}

/// The answer of a station to one that asked for it.
pub fn reply(from: Station, to: Station) -> Vec<u8> {
    write(from, to, to.mac, ArpOperation::Reply)
}

/// The question of a station, to all, who has an address.
pub fn request(from: Station, target: Ipv4Addr) -> Vec<u8> {
    let unknown = Station { mac: EthernetAddress([0; 6]), address: target };
    write(from, unknown, EthernetAddress::BROADCAST, ArpOperation::Request)
}

fn write(from: Station, to: Station, destination: EthernetAddress, operation: ArpOperation) -> Vec<u8> {
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: from.mac,
        source_protocol_addr: from.address,
        target_hardware_addr: to.mac,
        target_protocol_addr: to.address,
    };
    ethernet(from.mac, destination, EthernetProtocol::Arp, packet.buffer_len(), |bytes| {
        packet.emit(&mut ArpPacket::new_unchecked(bytes));
    })
}
