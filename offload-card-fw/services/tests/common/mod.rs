//! A network of three devices, and frames as their systems send them.
#![expect(dead_code, reason = "each test file uses its part")]

use std::net::Ipv4Addr;

use dragonfly_card_services::{Config, Environment, Net, Services, Source};
use dragonfly_random::Random;
use dragonfly_vswitch::MacAddress;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol,
        Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
    },
};

pub const CARD_MAC: [u8; 6] = [0x52, 0x54, 0, 0xdf, 0xff, 4];
pub const CARD: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 4);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub const ROUTER_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
pub const RESOLVER_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 3];
pub const BROADCAST: [u8; 6] = [0xff; 6];
pub const MACHINES: [&str; 3] = ["web", "db", "db"];

pub const fn mac(net: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0xdf, net as u8, 0]
}

pub const fn address(net: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, 15 + net as u8)
}

pub fn config() -> Config {
    Config {
        mac: MacAddress(CARD_MAC),
        address: CARD,
        prefix: 24,
        router: Some(ROUTER),
        resolver: Some(RESOLVER),
        name: "card".into(),
        domain: "dragonfly".into(),
        lease_seconds: 3600,
        mtu: 1500,
    }
}

pub fn nets() -> Vec<Net> {
    let net = |(net, machine): (usize, &&str)| Net {
        mac: MacAddress(mac(net)),
        address: address(net),
        machine: machine.to_string(),
    };
    MACHINES.iter().enumerate().map(net).collect()
}

/// The services, their clock and what they send.
pub struct Bench {
    pub services: Services,
    pub now_ns: u64,
    port: Port,
}

struct Port {
    sent: Vec<Vec<u8>>,
    random: Random,
}

impl Environment for Port {
    fn send(&mut self, frame: &[u8]) {
        self.sent.push(frame.to_vec());
    }

    fn random(&mut self) -> u64 {
        self.random.number()
    }
}

impl Bench {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        let services = Services::new(config, nets()).expect("the description is right");
        Self { services, now_ns: 1_000_000_000, port: Port { sent: Vec::new(), random: Random::new(7) } }
    }

    /// What is sent when a frame comes.
    pub fn receive(&mut self, source: Source, frame: &[u8]) -> Vec<Vec<u8>> {
        self.services.receive(source, frame, self.now_ns, &mut self.port);
        std::mem::take(&mut self.port.sent)
    }

    /// The one frame that is sent when a frame comes from a net.
    pub fn ask(&mut self, net: usize, frame: &[u8]) -> Vec<u8> {
        let mut sent = self.receive(Source::Net(net), frame);
        assert_eq!(sent.len(), 1, "one answer");
        sent.remove(0)
    }
}

pub fn ethernet(from: [u8; 6], to: [u8; 6], ethertype: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut frame = EthernetFrame::new_unchecked(vec![0; 14 + payload.len()]);
    EthernetRepr { src_addr: EthernetAddress(from), dst_addr: EthernetAddress(to), ethertype }.emit(&mut frame);
    frame.payload_mut().copy_from_slice(payload);
    frame.into_inner()
}

pub fn ipv4(
    (from_mac, from): ([u8; 6], Ipv4Addr),
    (to_mac, to): ([u8; 6], Ipv4Addr),
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = Ipv4Packet::new_unchecked(vec![0; 20 + payload.len()]);
    let header =
        Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: payload.len(), hop_limit: 64 };
    header.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    ethernet(from_mac, to_mac, EthernetProtocol::Ipv4, &packet.into_inner())
}

pub fn udp(from: ([u8; 6], Ipv4Addr, u16), to: ([u8; 6], Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8 + payload.len()];
    UdpRepr { src_port: from.2, dst_port: to.2 }.emit(
        &mut UdpPacket::new_unchecked(bytes.as_mut_slice()),
        &from.1.into(),
        &to.1.into(),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ipv4((from.0, from.1), (to.0, to.1), IpProtocol::Udp, &bytes)
}

pub fn arp(from: ([u8; 6], Ipv4Addr), to: ([u8; 6], Ipv4Addr), operation: ArpOperation) -> Vec<u8> {
    let packet = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from.0),
        source_protocol_addr: from.1,
        target_hardware_addr: EthernetAddress(to.0),
        target_protocol_addr: to.1,
    };
    let mut bytes = [0; 28];
    packet.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    ethernet(from.0, to.0, EthernetProtocol::Arp, &bytes)
}

/// A datagram that was sent, with its checksums verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    pub to_mac: [u8; 6],
    pub from: (Ipv4Addr, u16),
    pub to: (Ipv4Addr, u16),
    pub payload: Vec<u8>,
}

/// Reads an IPv4 packet that the card sent: where to, the packet's header, its payload.
pub fn read_ipv4(frame: &[u8]) -> ([u8; 6], Ipv4Repr, Vec<u8>) {
    let frame = EthernetFrame::new_checked(frame).expect("a whole frame");
    assert_eq!((frame.src_addr().0, frame.ethertype()), (CARD_MAC, EthernetProtocol::Ipv4));
    let packet = Ipv4Packet::new_checked(frame.payload()).expect("a whole packet");
    let header = Ipv4Repr::parse(&packet, &ChecksumCapabilities::default()).expect("a right packet");
    (frame.dst_addr().0, header, packet.payload().to_vec())
}

pub fn read_udp(frame: &[u8]) -> Datagram {
    let (to_mac, header, bytes) = read_ipv4(frame);
    let datagram = UdpPacket::new_checked(bytes.as_slice()).expect("a whole datagram");
    let (from, to) = (header.src_addr, header.dst_addr);
    let ports = UdpRepr::parse(&datagram, &from.into(), &to.into(), &ChecksumCapabilities::default());
    let ports = ports.expect("a right datagram");
    Datagram { to_mac, from: (from, ports.src_port), to: (to, ports.dst_port), payload: datagram.payload().to_vec() }
}

/// A net's query to the card.
pub fn query_frame(net: usize, port: u16, message: &[u8]) -> Vec<u8> {
    udp((mac(net), address(net), port), (CARD_MAC, CARD, 53), message)
}

/// A query as systems send it.
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend([kind.to_be_bytes(), [0, 1]].concat());
    message
}

/// Options of a message: numbers and data.
pub type Options<'a> = &'a [(u8, &'a [u8])];

/// A client's message: fixed part, then options, padded as `pad` says.
pub struct DhcpMessage<'a> {
    pub kind: u8,
    pub mac: [u8; 6],
    pub is_broadcast: bool,
    pub claimed: Ipv4Addr,
    pub options: Options<'a>,
    pub pad: usize,
}

impl DhcpMessage<'_> {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0xaa, 0xbb, 0xcc, 0xdd, 0, 3, u8::from(self.is_broadcast) << 7, 0];
        bytes.extend(self.claimed.octets());
        bytes.resize(28, 0);
        bytes.extend(self.mac);
        bytes.resize(236, 0);
        bytes.extend([99, 130, 83, 99, 53, 1, self.kind]);
        for (number, data) in self.options {
            bytes.extend([*number, data.len() as u8]);
            bytes.extend(*data);
        }
        bytes.push(255);
        bytes.resize(bytes.len().max(self.pad), 0);
        bytes
    }

    /// The message in a frame: to all, or to the server from the address that the client has.
    pub fn frame(&self) -> Vec<u8> {
        let (to_mac, to) =
            if self.claimed.is_unspecified() { (BROADCAST, Ipv4Addr::BROADCAST) } else { (CARD_MAC, CARD) };
        udp((self.mac, self.claimed, 68), (to_mac, to, 67), &self.bytes())
    }
}
