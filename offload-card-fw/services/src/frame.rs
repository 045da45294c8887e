//! Frames that the services send.

use alloc::{vec, vec::Vec};
use core::net::Ipv4Addr;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IPV4_HEADER_LEN,
        IpProtocol, Ipv4Packet, Ipv4Repr, UDP_HEADER_LEN, UdpPacket, UdpRepr,
    },
};

/// How far the services' packets go.
const HOP_LIMIT: u8 = 64;

/// Where a packet comes from or goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Station {
    pub mac: EthernetAddress,
    pub address: Ipv4Addr,
}

/// The Ethernet header that goes from one station to another, and room for the payload, which `fill` writes.
pub fn ethernet(
    from: EthernetAddress,
    to: EthernetAddress,
    ethertype: EthernetProtocol,
    payload: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut frame = EthernetFrame::new_unchecked(vec![0; ETHERNET_HEADER_LEN.saturating_add(payload)]);
    EthernetRepr { src_addr: from, dst_addr: to, ethertype }.emit(&mut frame);
    fill(frame.payload_mut());
    frame.into_inner()
}

/// A packet of IPv4 whose payload of this many bytes `fill` writes.
pub fn ipv4(from: Station, to: Station, protocol: IpProtocol, payload: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let length = IPV4_HEADER_LEN.saturating_add(payload);
    ethernet(from.mac, to.mac, EthernetProtocol::Ipv4, length, |bytes| {
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        let header = Ipv4Repr {
            src_addr: from.address,
            dst_addr: to.address,
            next_header: protocol,
            payload_len: payload,
            hop_limit: HOP_LIMIT,
        };
        header.emit(&mut packet, &ChecksumCapabilities::default());
        fill(packet.payload_mut());
    })
}

/// A datagram of UDP from a port to a port.
pub fn udp(from: (Station, u16), to: (Station, u16), payload: &[u8]) -> Vec<u8> {
    let length = UDP_HEADER_LEN.saturating_add(payload.len());
    ipv4(from.0, to.0, IpProtocol::Udp, length, |bytes| {
        UdpRepr { src_port: from.1, dst_port: to.1 }.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &from.0.address.into(),
            &to.0.address.into(),
            payload.len(),
            |room| room.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}
