//! TCP (RFC 9293), UDP (RFC 768), and the first fields of ICMP (RFC 792, RFC 4443).

use super::{KeyFields, Packet, ParseError, icmp, protocol};
use crate::bytes;

/// Bits of a TCP header's flags.
pub mod tcp_flags {
    /// The sender has no more data.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// The fields of a TCP header that connection tracking uses.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TcpHeader {
    /// Number of the first byte of data.
    pub sequence: u32,
    /// Number of the next byte that the sender expects.
    pub acknowledgement: u32,
    /// Bytes of data; more than a segment's if the card is to cut it (TSO).
    pub data_length: u16,
    /// As in the header, not scaled.
    pub window: u16,
    /// [`tcp_flags`].
    pub flags: u8,
}

impl TcpHeader {
    /// That of what is no TCP.
    pub(crate) const EMPTY: Self = Self { sequence: 0, acknowledgement: 0, data_length: 0, window: 0, flags: 0 };

    /// The number behind the last byte: SYN and FIN count as one each.
    #[must_use]
    pub const fn end(&self) -> u32 {
        let control = (self.flags & tcp_flags::SYN != 0) as u32 + (self.flags & tcp_flags::FIN != 0) as u32;
        self.sequence.wrapping_add(self.data_length as u32).wrapping_add(control)
    }
}

/// Reads the transport header of a whole packet or a first fragment; `end` is where the IP payload ends.
#[inline]
pub fn parse(packet: &mut Packet, fields: &mut KeyFields, head: &[u8], end: usize) -> Result<(), ParseError> {
    if packet.fragment.is_some_and(|fragment| !fragment.is_first) {
        return Ok(());
    }
    let at = usize::from(packet.transport);
    match fields.protocol {
        protocol::TCP => {
            let header: &[u8; TCP_HEADER] = bytes::array(head, at).ok_or(ParseError::Truncated)?;
            let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *header;
            let header_length = usize::from(offset >> 4) * 4;
            if header_length < TCP_HEADER {
                return Err(ParseError::Inconsistent);
            }
            let data_length = end.checked_sub(at + header_length).ok_or(ParseError::Truncated)?;
            fields.source_port = u16::from_be_bytes([s0, s1]);
            fields.destination_port = u16::from_be_bytes([d0, d1]);
            packet.tcp = TcpHeader {
                sequence: u32::from_be_bytes([q0, q1, q2, q3]),
                acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
                // An IP packet's length has 16 bits.
                data_length: data_length as u16,
                window: u16::from_be_bytes([w0, w1]),
                flags,
            };
        }
        protocol::UDP => {
            let header: &[u8; UDP_HEADER] = bytes::array(head, at).ok_or(ParseError::Truncated)?;
            let [s0, s1, d0, d1, l0, l1, ..] = *header;
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            if length < UDP_HEADER {
                return Err(ParseError::Inconsistent);
            }
            // A datagram's length counts all its fragments.
            let here = if packet.fragment.is_some() { UDP_HEADER } else { length };
            if at + here > end {
                return Err(ParseError::Truncated);
            }
            fields.source_port = u16::from_be_bytes([s0, s1]);
            fields.destination_port = u16::from_be_bytes([d0, d1]);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let header: &[u8; 8] = bytes::array(head, at).ok_or(ParseError::Truncated)?;
            if at + header.len() > end {
                return Err(ParseError::Truncated);
            }
            let [kind, code, _, _, id0, id1, ..] = *header;
            fields.source_port = u16::from_be_bytes([kind, code]);
            if icmp::Message::of(fields.protocol, kind).is_echo() {
                fields.destination_port = u16::from_be_bytes([id0, id1]);
            }
        }
        _ => {}
    }
    Ok(())
}
