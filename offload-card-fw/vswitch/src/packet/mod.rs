//! From a frame's bytes to a flow key.
//!
//! [`Packet::parse`] reads Ethernet with up to two VLAN tags, then IPv4 or IPv6 with their options and extension
//! headers, then TCP, UDP or ICMP. Every byte is an allegation of the sender's: lengths are checked against the frame,
//! chains of headers are bounded, and whatever does not fit is a [`ParseError`]. [`arp`] and [`icmp`] look further
//! into the few packets that need it.

pub mod arp;
pub mod icmp;
mod ip;
mod key;
mod plain;
mod transport;

pub use self::{
    ip::Fragment,
    key::{FlowKey, KeyFields},
    transport::{TcpHeader, tcp_flags},
};
use crate::{address::Family, bytes};

/// Numbers of the `EtherType` field.
pub mod ethertype {
    /// Internet Protocol version 4.
    pub const IPV4: u16 = 0x0800;
    /// Address Resolution Protocol.
    pub const ARP: u16 = 0x0806;
    /// Reverse ARP, which virtual machine monitors send to announce a moved guest.
    pub const RARP: u16 = 0x8035;
    /// A customer's VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Internet Protocol version 6.
    pub const IPV6: u16 = 0x86dd;
    /// A service provider's VLAN tag (IEEE 802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Numbers of the IP protocol field.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// Bytes of a frame that are enough to parse every frame this switch forwards by its inner headers: a tunnel's outer
/// headers, two Ethernet headers with tags, IP with options, TCP with options.
pub const HEAD: usize = 256;

/// Length of an Ethernet header without tags.
pub const ETHERNET_HEADER: usize = 14;

/// Why a frame is not forwarded: its sender's fault, always.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// The frame ends within a header, or a length in a header reaches beyond the frame.
    Truncated,
    /// A header contradicts itself: version, header length, or a fragment that overlaps a header (RFC 1858).
    Inconsistent,
    /// More than two VLAN tags, or a longer chain of IPv6 extension headers than is looked at.
    TooManyHeaders,
}

/// What the switch needs to know of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Identity of the flow.
    pub key: FlowKey,
    /// The TCP header's fields; zeros for other protocols and later fragments.
    pub tcp: TcpHeader,
    /// The fragment that this packet is, if it is one.
    pub fragment: Option<Fragment>,
    /// Where the IP header (or the `EtherType`'s payload) begins.
    pub network: u16,
    /// Where the transport header begins; where the IP payload begins for protocols that are not parsed.
    pub transport: u16,
}

impl Packet {
    /// Nothing, to be read.
    pub(crate) const EMPTY: Self =
        Self { key: FlowKey::EMPTY, tcp: TcpHeader::EMPTY, fragment: None, network: 0, transport: 0 };

    /// Reads a frame of `length` bytes of which the first are `head` ([`HEAD`] of them, or all).
    ///
    /// # Errors
    /// See [`ParseError`].
    #[inline]
    pub fn parse(head: &[u8], length: usize) -> Result<Self, ParseError> {
        let mut packet = Self::EMPTY;
        packet.read(head, length)?;
        Ok(packet)
    }

    /// As [`Self::parse`], but written where it is to be: a packet is large to be moved. After an error it means nothing.
    #[inline(always)]
    pub(crate) fn read(&mut self, head: &[u8], length: usize) -> Result<(), ParseError> {
        match plain::parse(self, head, length) {
            Some(()) => Ok(()),
            None => self.read_any(head, length),
        }
    }

    /// Reads frames of every kind.
    fn read_any(&mut self, head: &[u8], length: usize) -> Result<(), ParseError> {
        let ethernet: &[u8; ETHERNET_HEADER] = head.first_chunk().ok_or(ParseError::Truncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *ethernet;
        let mut fields = KeyFields {
            destination_mac: u64::from_be_bytes([0, 0, d0, d1, d2, d3, d4, d5]),
            source_mac: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            ethertype: u16::from_be_bytes([t0, t1]),
            ..KeyFields::default()
        };
        let mut network = ETHERNET_HEADER;
        if is_tag(fields.ethertype) {
            network = read_tags(head, &mut fields)?;
        }
        // At most 22: Ethernet with two tags.
        *self = Self { network: network as u16, transport: network as u16, ..Self::EMPTY };
        match fields.ethertype {
            ethertype::IPV4 => ip::parse_v4(self, &mut fields, head, length)?,
            ethertype::IPV6 => ip::parse_v6(self, &mut fields, head, length)?,
            _ => {}
        }
        self.key = FlowKey::new(&fields);
        Ok(())
    }

    /// IPv4, IPv6 or neither.
    #[inline]
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        match self.key.ethertype() {
            ethertype::IPV4 => Some(Family::V4),
            ethertype::IPV6 => Some(Family::V6),
            _ => None,
        }
    }
}

const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::SERVICE_VLAN)
}

/// Reads one or two tags; gives the offset of what is behind them.
fn read_tags(head: &[u8], fields: &mut KeyFields) -> Result<usize, ParseError> {
    let tag_at =
        |offset| bytes::get_u16(head, offset).zip(bytes::get_u16(head, offset + 2)).ok_or(ParseError::Truncated);
    let (outer, next) = tag_at(ETHERNET_HEADER)?;
    fields.outer_tag = key::tag(outer, fields.ethertype == ethertype::SERVICE_VLAN);
    fields.ethertype = next;
    let mut offset = ETHERNET_HEADER + 4;
    if is_tag(next) {
        let (inner, last) = tag_at(offset)?;
        fields.inner_tag = key::tag(inner, next == ethertype::SERVICE_VLAN);
        fields.ethertype = last;
        offset += 4;
    }
    if is_tag(fields.ethertype) { Err(ParseError::TooManyHeaders) } else { Ok(offset) }
}
