//! The DHCP server (RFC 2131): each net has one address for ever, so there is nothing to remember between messages.
//!
//! A lease runs out at the guest only, which then asks again and gets the same one. Hence a release changes nothing,
//! and the client's identifier decides nothing: the switch knows who the guest is.

use alloc::{vec, vec::Vec};
use core::net::Ipv4Addr;

use smoltcp::wire::{
    ArpHardware, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpPacket,
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, UdpPacket,
};

use crate::{
    config::{Config, Net, host_label},
    frame::{Station, udp},
};

/// Bytes in front of the options, and of the shortest message that all clients take (RFC 1542 2.1).
const HEADER: usize = 240;
const MIN_MESSAGE: usize = 300;
/// Begins the options (RFC 2131 3).
const MAGIC: u32 = 0x6382_5363;

/// Numbers of options (RFC 2132).
mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS_SERVERS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const MTU: u8 = 26;
    pub const BROADCAST_ADDRESS: u8 = 28;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const MESSAGE: u8 = 56;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const CLIENT: u8 = 61;
}

/// Whether a frame is a client's or a server's message of DHCP: such a frame is for the services or from them, and is to
/// pass neither to nor from the uplink, where another server may be.
#[must_use]
pub fn is_dhcp(frame: &[u8]) -> bool {
    ports(frame).is_some_and(|(from, to)| {
        (from, to) == (DHCP_CLIENT_PORT, DHCP_SERVER_PORT)
            || from == DHCP_SERVER_PORT && [DHCP_CLIENT_PORT, DHCP_SERVER_PORT].contains(&to)
    })
}

/// The ports of UDP over IPv4, of packets in one piece or the first piece.
fn ports(frame: &[u8]) -> Option<(u16, u16)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let is_udp = frame.ethertype() == EthernetProtocol::Ipv4
        && packet.next_header() == IpProtocol::Udp
        && packet.frag_offset() == 0;
    // The ports are there in a piece that is too short for the length that the datagram claims, too.
    let ports = packet.payload().first_chunk::<4>().filter(|_| is_udp)?;
    let datagram = UdpPacket::new_unchecked(ports);
    Some((datagram.src_port(), datagram.dst_port()))
}

/// What a client says, as far as it matters here.
struct Request<'a> {
    packet: DhcpPacket<&'a [u8]>,
    kind: DhcpMessageType,
    /// The server that it has chosen.
    server: Option<Ipv4Addr>,
    requested: Option<Ipv4Addr>,
    client: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Reads a message; `None` if it is not a client's on this network.
    fn parse(message: &'a [u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let is_request = packet.opcode() == DhcpOpCode::Request
            && (packet.hardware_type(), packet.hardware_len()) == (ArpHardware::Ethernet, 6)
            && packet.magic_number() == MAGIC
            // There are no relays here.
            && packet.relay_agent_ip().is_unspecified();
        let options = message.get(HEADER..).filter(|_| is_request)?;
        let kind = find(options, option::MESSAGE_TYPE)?.first().copied()?;
        let address = |number| find(options, number).and_then(|data| data.try_into().ok()).map(<[u8; 4]>::into);
        Some(Self {
            packet,
            kind: kind.into(),
            server: address(option::SERVER),
            requested: address(option::REQUESTED_ADDRESS),
            client: find(options, option::CLIENT),
        })
    }
}

/// The data of an option, if it is there.
fn find(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    // Padding and the end have no length (RFC 2132 3.1, 3.2).
    const PAD: u8 = 0;
    const END: u8 = 255;
    loop {
        options = match *options {
            [PAD, ref rest @ ..] => rest,
            [] | [END, ..] | [_] => return None,
            [number, length, ref rest @ ..] => {
                let (data, rest) = rest.split_at_checked(length.into())?;
                if number == wanted {
                    return Some(data);
                }
                rest
            }
        };
    }
}

/// The answer to a message from a net, as a whole frame; `None` if there is none to give.
pub fn answer(config: &Config, net: &Net, message: &[u8]) -> Option<Vec<u8>> {
    let request = Request::parse(message)?;
    if request.packet.client_hardware_address().0 != net.mac.0 {
        return None;
    }
    let claimed = request.packet.client_ip();
    let kind = match request.kind {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        // RFC 2131 4.3.2: to one that chooses, to one that starts again with an address it remembers, to one that renews.
        DhcpMessageType::Request => match (request.server, request.requested) {
            (Some(server), _) if server != config.address => return None,
            (_, Some(requested)) if requested == net.address => DhcpMessageType::Ack,
            (_, None) if claimed == net.address => DhcpMessageType::Ack,
            _ => DhcpMessageType::Nak,
        },
        // It has an address and wants the rest (RFC 2131 4.3.5).
        DhcpMessageType::Inform if claimed == net.address => DhcpMessageType::Ack,
        _ => return None,
    };
    let reply = write(config, net, &request, kind);
    // RFC 2131 4.1: to the address that a client has, or to all, if it has none and cannot take packets without one. On
    // Ethernet it goes to the client alone in every case, so that other guests do not see it.
    let is_broadcast = kind == DhcpMessageType::Nak || request.packet.flags().contains(DhcpFlags::BROADCAST);
    let address = match claimed {
        claimed if claimed == net.address && kind != DhcpMessageType::Nak => claimed,
        _ if is_broadcast => Ipv4Addr::BROADCAST,
        _ => net.address,
    };
    let server = Station { mac: EthernetAddress(config.mac.0), address: config.address };
    let client = Station { mac: EthernetAddress(net.mac.0), address };
    Some(udp((server, DHCP_SERVER_PORT), (client, DHCP_CLIENT_PORT), &reply))
}

/// A reply with all that the server has to say: clients skip what they did not ask for.
fn write(config: &Config, net: &Net, request: &Request<'_>, kind: DhcpMessageType) -> Vec<u8> {
    let mut packet = DhcpPacket::new_unchecked(vec![0; HEADER]);
    packet.set_opcode(DhcpOpCode::Reply);
    packet.set_hardware_type(ArpHardware::Ethernet);
    packet.set_hardware_len(6);
    packet.set_transaction_id(request.packet.transaction_id());
    packet.set_flags(request.packet.flags());
    packet.set_client_hardware_address(EthernetAddress(net.mac.0));
    packet.set_magic_number(MAGIC);
    let has_lease = request.kind != DhcpMessageType::Inform && kind != DhcpMessageType::Nak;
    if has_lease {
        packet.set_your_ip(net.address);
    }
    if kind == DhcpMessageType::Ack {
        packet.set_client_ip(request.packet.client_ip());
    }
    let mut reply = packet.into_inner();
    let mut put = |kind, data: &[u8]| {
        // No option is longer than the length's byte: names are labels or were checked, a client's identifier was one.
        if let Ok(length) = u8::try_from(data.len()) {
            reply.extend([kind, length]);
            reply.extend(data);
        }
    };
    put(option::MESSAGE_TYPE, &[kind.into()]);
    put(option::SERVER, &config.address.octets());
    if kind == DhcpMessageType::Nak {
        put(option::MESSAGE, b"another address is set for this device");
    } else {
        put_settings(config, net, &mut put);
    }
    if has_lease {
        let lease = config.lease_seconds;
        put(option::LEASE_TIME, &lease.to_be_bytes());
        // The defaults of RFC 2131 4.4.5.
        put(option::RENEWAL_TIME, &(lease / 2).to_be_bytes());
        put(option::REBINDING_TIME, &(lease - lease / 8).to_be_bytes());
    }
    // Told back, so that a client knows its own (RFC 6842 3).
    if let Some(client) = request.client {
        put(option::CLIENT, client);
    }
    reply.push(255);
    reply.resize(reply.len().max(MIN_MESSAGE), 0);
    reply
}

fn put_settings(config: &Config, net: &Net, put: &mut impl FnMut(u8, &[u8])) {
    put(option::MASK, &config.mask().octets());
    put(option::BROADCAST_ADDRESS, &(net.address | !config.mask()).octets());
    if let Some(router) = config.router {
        put(option::ROUTER, &router.octets());
    }
    put(option::DNS_SERVERS, &config.address.octets());
    if let Some(label) = host_label(&net.machine) {
        put(option::HOST_NAME, label.as_bytes());
    }
    put(option::DOMAIN_NAME, config.domain.as_bytes());
    put(option::MTU, &config.mtu.to_be_bytes());
}
