//! The station: what becomes of each frame.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        DHCP_SERVER_PORT, DnsRcode, EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv4Repr,
        UdpPacket, UdpRepr,
    },
};

use crate::{
    arp,
    config::{Config, ConfigError, Net, Source},
    dhcp,
    dns::{self, Forwarder, Hop, Query, Question, Verdict, Zone},
    frame::{Station, udp},
    icmp,
};

/// What the services need from who runs them.
pub trait Environment {
    /// Sends a frame into the services' port of the switch.
    fn send(&mut self, frame: &[u8]);

    /// A number that guests and the world outside cannot guess.
    fn random(&mut self) -> u64;
}

/// The card's own station on its switch.
pub struct Services {
    config: Config,
    nets: Vec<Net>,
    own: Station,
    zone: Zone,
    forwarder: Option<Forwarder>,
}

/// A packet for the station, and who sent it.
struct Packet<'a> {
    source: Source,
    from: Station,
    to: Ipv4Addr,
    bytes: Ipv4Packet<&'a [u8]>,
}

impl Services {
    /// The services for a network with these nets.
    ///
    /// # Errors
    /// Names what cannot be as it is described.
    pub fn new(config: Config, nets: Vec<Net>) -> Result<Self, ConfigError> {
        config.check(&nets)?;
        let own = Station { mac: EthernetAddress(config.mac.0), address: config.address };
        let zone = Zone::new(&config, &nets)?;
        let next_hop = |resolver| if config.contains(resolver) { Some(resolver) } else { config.router };
        let forwarder = config.resolver.and_then(|resolver| {
            let address = next_hop(resolver)?;
            Some(Forwarder::new(own, Hop { address, resolver }))
        });
        Ok(Self { config, nets, own, zone, forwarder })
    }

    /// Takes a frame that the switch sent to the services. `now_ns` counts nanoseconds from any moment on.
    pub fn receive(&mut self, source: Source, frame: &[u8], now_ns: u64, environment: &mut impl Environment) {
        let Ok(frame) = EthernetFrame::new_checked(frame) else { return };
        let sender = frame.src_addr();
        let is_own_mac = match source {
            Source::Net(net) => self.nets.get(net).is_some_and(|net| net.mac.0 == sender.0),
            Source::Outside => sender.is_unicast(),
        };
        let is_for_station = frame.dst_addr() == self.own.mac || frame.dst_addr().is_broadcast();
        if !is_own_mac || !is_for_station {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.receive_arp(source, sender, frame.payload(), now_ns, environment),
            EthernetProtocol::Ipv4 => {
                if let Some(packet) = self.read_ipv4(source, sender, frame.payload()) {
                    self.receive_ipv4(&packet, now_ns, environment);
                }
            }
            _ => {}
        }
    }

    fn receive_arp(
        &mut self,
        source: Source,
        sender: EthernetAddress,
        packet: &[u8],
        now_ns: u64,
        environment: &mut impl Environment,
    ) {
        match arp::parse(packet) {
            Some(arp::Message::Request { sender: asker, target }) if target == self.own.address => {
                environment.send(&arp::reply(self.own, Station { mac: sender, ..asker }));
            }
            // Guests do not say where the way out is.
            Some(arp::Message::Reply(station)) if source == Source::Outside => {
                if let Some(forwarder) = &mut self.forwarder {
                    forwarder.learn(station, now_ns, environment);
                }
            }
            _ => {}
        }
    }

    /// Reads a packet that is whole and for the station: its own, or DHCP's, whose clients know nobody's address.
    fn read_ipv4<'a>(&self, source: Source, mac: EthernetAddress, bytes: &'a [u8]) -> Option<Packet<'a>> {
        let bytes = Ipv4Packet::new_checked(bytes).ok()?;
        let header = Ipv4Repr::parse(&bytes, &ChecksumCapabilities::default()).ok()?;
        let is_for_station = [self.own.address, Ipv4Addr::BROADCAST].contains(&header.dst_addr);
        let from = Station { mac, address: header.src_addr };
        is_for_station.then_some(Packet { source, from, to: header.dst_addr, bytes })
    }

    fn receive_ipv4(&mut self, packet: &Packet<'_>, now_ns: u64, environment: &mut impl Environment) {
        let payload = packet.bytes.payload();
        match packet.bytes.next_header() {
            IpProtocol::Udp => self.receive_udp(packet, payload, now_ns, environment),
            _ if !self.may_answer(packet) => {}
            IpProtocol::Icmp => {
                if let Some(frame) = icmp::answer(self.own, packet.from, payload) {
                    environment.send(&frame);
                }
            }
            IpProtocol::Tcp => self.refuse(packet, environment),
            _ => {}
        }
    }

    /// Whether a packet is for the station alone and from somebody whom an answer reaches.
    fn may_answer(&self, packet: &Packet<'_>) -> bool {
        let from = packet.from.address;
        packet.to == self.own.address
            && from != self.own.address
            && !(from.is_unspecified() || from.is_broadcast() || from.is_multicast() || from.is_loopback())
    }

    /// Tells a guest that there is no such service.
    fn refuse(&self, packet: &Packet<'_>, environment: &mut impl Environment) {
        if matches!(packet.source, Source::Net(_)) {
            environment.send(&icmp::port_unreachable(self.own, packet.from, &packet.bytes));
        }
    }

    fn receive_udp(&mut self, packet: &Packet<'_>, bytes: &[u8], now_ns: u64, environment: &mut impl Environment) {
        let Ok(datagram) = UdpPacket::new_checked(bytes) else { return };
        let (from, to) = (packet.from.address.into(), packet.to.into());
        let Ok(ports) = UdpRepr::parse(&datagram, &from, &to, &ChecksumCapabilities::default()) else { return };
        let message = datagram.payload();
        match (packet.source, ports.dst_port) {
            (Source::Net(net), DHCP_SERVER_PORT) => {
                let answer = self.nets.get(net).and_then(|net| dhcp::answer(&self.config, net, message));
                if let Some(frame) = answer {
                    environment.send(&frame);
                }
            }
            _ if !self.may_answer(packet) => {}
            (Source::Net(net), dns::PORT) => {
                let query = Query { net, client: packet.from, port: ports.src_port };
                if let Some(answer) = self.resolve(query, message, now_ns, environment) {
                    self.send_answer(query, &answer, environment);
                }
            }
            (Source::Net(_), _) => self.refuse(packet, environment),
            (Source::Outside, port) => {
                let from = (packet.from.address, ports.src_port);
                let forwarder = self.forwarder.as_mut();
                if let Some((query, answer)) = forwarder.and_then(|it| it.answer(from, port, message, now_ns)) {
                    self.send_answer(query, &answer, environment);
                }
            }
        }
    }

    /// Answers a query, or sends it on.
    fn resolve(
        &mut self,
        query: Query,
        message: &[u8],
        now_ns: u64,
        environment: &mut impl Environment,
    ) -> Option<Vec<u8>> {
        let question = match Question::parse(message) {
            Ok(question) => question,
            Err(code) => return dns::refuse_unreadable(message, code?),
        };
        let is_recursive = self.forwarder.is_some();
        let verdict = self.zone.answer(&question);
        if verdict != Verdict::Elsewhere {
            return dns::records(&question, &self.zone, verdict, is_recursive);
        }
        let Some(forwarder) = &mut self.forwarder else {
            return Some(dns::error(&question, DnsRcode::Refused, is_recursive));
        };
        let is_under_way = forwarder.ask(query, &question, message, now_ns, environment);
        (!is_under_way).then(|| dns::error(&question, DnsRcode::ServFail, is_recursive))
    }

    fn send_answer(&self, query: Query, message: &[u8], environment: &mut impl Environment) {
        environment.send(&udp((self.own, dns::PORT), (query.client, query.port), message));
    }
}
