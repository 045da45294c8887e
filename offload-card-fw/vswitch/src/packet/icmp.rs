//! What kinds of ICMP messages there are, and the packet that an error message speaks of.

use super::{KeyFields, ip, protocol};
use crate::{
    address::Family,
    bytes,
    packet::{Packet, TcpHeader, key::FlowKey},
};

/// Kinds of messages that are treated alike (RFC 792, RFC 4443, RFC 4861).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// A question with an identifier.
    EchoRequest,
    /// Its answer.
    EchoReply,
    /// Tells a sender what became of its packet, a part of which it holds.
    Error,
    /// Asks for or tells a neighbour's address; stands in for ARP under IPv6.
    Neighbour,
    /// Tells hosts their router and prefix, or to use another one.
    Router,
    /// Whatever else.
    Other,
}

impl Message {
    /// The kind of a message by IP protocol and type.
    #[must_use]
    pub const fn of(protocol: u8, kind: u8) -> Self {
        match (protocol, kind) {
            (protocol::ICMP, 8) | (protocol::ICMPV6, 128) => Self::EchoRequest,
            (protocol::ICMP, 0) | (protocol::ICMPV6, 129) => Self::EchoReply,
            (protocol::ICMP, 3 | 11 | 12) | (protocol::ICMPV6, 1..=4) => Self::Error,
            (protocol::ICMPV6, 135 | 136) => Self::Neighbour,
            (protocol::ICMP, 5 | 9) | (protocol::ICMPV6, 134 | 137) => Self::Router,
            _ => Self::Other,
        }
    }

    /// Whether it carries an identifier.
    #[must_use]
    pub const fn is_echo(self) -> bool {
        matches!(self, Self::EchoRequest | Self::EchoReply)
    }

    /// The kind of a parsed packet; `None` if it is not ICMP.
    #[must_use]
    pub fn of_packet(packet: &Packet) -> Option<Self> {
        let [kind, _] = packet.key.source_port().to_be_bytes();
        match (packet.family()?, packet.key.protocol()) {
            (Family::V4, protocol::ICMP) | (Family::V6, protocol::ICMPV6) => {
                Some(Self::of(packet.key.protocol(), kind))
            }
            _ => None,
        }
    }
}

/// Type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// The address that a neighbour solicitation or advertisement is about (RFC 4861 4.3, 4.4).
#[must_use]
pub fn neighbour_target(packet: &Packet, head: &[u8]) -> Option<u128> {
    bytes::array(head, usize::from(packet.transport) + 8).map(|bytes| u128::from_be_bytes(*bytes))
}

/// The link-layer address option of a neighbour message, if its first option is one of type `kind` (RFC 4861 4.6.1).
#[must_use]
pub fn neighbour_link_address(packet: &Packet, head: &[u8], kind: u8) -> Option<[u8; 6]> {
    let at = usize::from(packet.transport) + 24;
    (bytes::array(head, at)? == &[kind, 1]).then(|| bytes::array(head, at + 2).copied())?
}

/// The flow that an error message is about, as its key would be in the direction in which the packet went: only
/// addresses, protocol and ports are set. `None` if the message holds too little of the packet.
#[must_use]
pub fn quoted_flow(packet: &Packet, head: &[u8]) -> Option<FlowKey> {
    let family = packet.family()?;
    let quote = usize::from(packet.transport) + 8;
    let mut fields = KeyFields { ethertype: packet.key.ethertype(), ..KeyFields::default() };
    let (protocol, transport) = match family {
        Family::V4 => {
            let header: &[u8; 20] = bytes::array(head, quote)?;
            let header_length = usize::from(header[0] & 0xf) * 4;
            let is_later_fragment = bytes::get_u16(header, 6)? & 0x1fff != 0;
            if header[0] >> 4 != 4 || header_length < header.len() || is_later_fragment {
                return None;
            }
            fields.source = u128::from(bytes::get_u32(header, 12)?);
            fields.destination = u128::from(bytes::get_u32(header, 16)?);
            (header[9], quote + header_length)
        }
        Family::V6 => {
            let mut quoted = Packet {
                key: FlowKey::default(),
                tcp: TcpHeader::default(),
                fragment: None,
                network: u16::try_from(quote).ok()?,
                transport: 0,
            };
            // The quote is cut short: its lengths are not held against the frame, and its transport header may end
            // early, behind the ports that are read here.
            let parsed = ip::parse_v6(&mut quoted, &mut fields, head, usize::MAX);
            let is_later_fragment = quoted.fragment.is_some_and(|fragment| !fragment.is_first);
            if is_later_fragment || quoted.transport == 0 && parsed.is_err() {
                return None;
            }
            (fields.protocol, usize::from(quoted.transport))
        }
    };
    fields.protocol = protocol;
    match protocol {
        protocol::TCP | protocol::UDP => {
            fields.source_port = bytes::get_u16(head, transport)?;
            fields.destination_port = bytes::get_u16(head, transport + 2)?;
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let kind = bytes::get_u8(head, transport)?;
            if !Message::of(protocol, kind).is_echo() {
                return None;
            }
            fields.source_port = u16::from_be_bytes([kind, 0]);
            fields.destination_port = bytes::get_u16(head, transport + 4)?;
        }
        _ => {}
    }
    Some(FlowKey::new(&fields))
}
