//! IPv4 (RFC 791) with options and fragments, IPv6 (RFC 8200) with a bounded chain of extension headers.

use super::{KeyFields, Packet, ParseError, protocol, transport};
use crate::bytes;

/// Extension headers that are followed; stock senders use three at the most.
const MAX_EXTENSION_HEADERS: usize = 8;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// A part of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// The number that the parts of a datagram share.
    pub identification: u32,
    /// Whether it holds the datagram's begin, hence the transport header.
    pub is_first: bool,
}

#[inline]
pub fn parse_v4(packet: &mut Packet, fields: &mut KeyFields, head: &[u8], length: usize) -> Result<(), ParseError> {
    let start = usize::from(packet.network);
    let header: &[u8; IPV4_HEADER] = bytes::array(head, start).ok_or(ParseError::Truncated)?;
    let [version, _, l0, l1, i0, i1, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_length = usize::from(version & 0xf) * 4;
    let total_length = usize::from(u16::from_be_bytes([l0, l1]));
    if version >> 4 != 4 || header_length < IPV4_HEADER || total_length < header_length {
        return Err(ParseError::Inconsistent);
    }
    if start + total_length > length || start + header_length > head.len() {
        return Err(ParseError::Truncated);
    }
    fields.source = u128::from(u32::from_be_bytes([s0, s1, s2, s3]));
    fields.destination = u128::from(u32::from_be_bytes([d0, d1, d2, d3]));
    fields.protocol = protocol;
    let fragment = u16::from_be_bytes([f0, f1]);
    let offset = fragment & 0x1fff;
    // More fragments follow, or this is not the first.
    if fragment & 0x3fff != 0 {
        let identification = u32::from(u16::from_be_bytes([i0, i1]));
        packet.fragment = Some(Fragment { identification, is_first: offset == 0 });
        check_fragment(protocol, offset)?;
    }
    // The frame holds it, so it fits.
    packet.transport = (start + header_length) as u16;
    transport::parse(packet, fields, head, start + total_length)
}

pub fn parse_v6(packet: &mut Packet, fields: &mut KeyFields, head: &[u8], length: usize) -> Result<(), ParseError> {
    let start = usize::from(packet.network);
    let header: &[u8; IPV6_HEADER] = bytes::array(head, start).ok_or(ParseError::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(ParseError::Inconsistent);
    }
    let payload_length = bytes::get_u16(header, 4).map_or(0, usize::from);
    let end = start + IPV6_HEADER + payload_length;
    if end > length {
        return Err(ParseError::Truncated);
    }
    fields.source = bytes::array(header, 8).map_or(0, |bytes| u128::from_be_bytes(*bytes));
    fields.destination = bytes::array(header, 24).map_or(0, |bytes| u128::from_be_bytes(*bytes));
    let mut next = header[6];
    let mut at = start + IPV6_HEADER;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let Some(kind) = ExtensionHeader::of(next) else {
            fields.protocol = next;
            // The head holds it, so it fits.
            packet.transport = at as u16;
            return transport::parse(packet, fields, head, end);
        };
        let extension: &[u8; 8] = bytes::array(head, at).ok_or(ParseError::Truncated)?;
        next = extension[0];
        at += kind.length(extension);
        if at > end {
            return Err(ParseError::Truncated);
        }
        if kind == ExtensionHeader::Fragment {
            let [_, _, o0, o1, i0, i1, i2, i3] = *extension;
            let offset = u16::from_be_bytes([o0, o1]) >> 3;
            let is_whole = offset == 0 && o1 & 1 == 0;
            if !is_whole {
                let identification = u32::from_be_bytes([i0, i1, i2, i3]);
                packet.fragment = Some(Fragment { identification, is_first: offset == 0 });
                check_fragment(next, offset)?;
            }
            if offset != 0 {
                // What follows is data, whatever the header says.
                fields.protocol = next;
                packet.transport = at as u16;
                return Ok(());
            }
        }
    }
    Err(ParseError::TooManyHeaders)
}

/// A fragment at eight bytes could overwrite the flags of a TCP header that was already judged (RFC 1858 4.2).
const fn check_fragment(protocol: u8, offset: u16) -> Result<(), ParseError> {
    if protocol == protocol::TCP && offset == 1 { Err(ParseError::Inconsistent) } else { Ok(()) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ExtensionHeader {
    Options,
    Fragment,
    Authentication,
}

impl ExtensionHeader {
    /// Hop-by-hop, routing, destination options and mobility share a layout; fragment and authentication differ.
    const fn of(next: u8) -> Option<Self> {
        match next {
            0 | 43 | 60 | 135 => Some(Self::Options),
            44 => Some(Self::Fragment),
            51 => Some(Self::Authentication),
            _ => None,
        }
    }

    fn length(self, header: &[u8; 8]) -> usize {
        match self {
            Self::Options => (usize::from(header[1]) + 1) * 8,
            Self::Fragment => 8,
            // RFC 4302 2.2: in words of 32 bits, minus 2.
            Self::Authentication => (usize::from(header[1]) + 2) * 4,
        }
    }
}
