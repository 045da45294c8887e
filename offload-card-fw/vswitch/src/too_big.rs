//! Answers to packets that are too long for where they go, so that path MTU discovery works (RFC 1191, RFC 8201).
//!
//! The switch has no address of its own in a guest's network: the answer comes from where the packet was going to.

use crate::{
    address::Family,
    bytes::{self, put},
    checksum::{self, Checksum},
    packet::{Packet, icmp::Message, protocol},
};

/// How much of the packet that was too long is quoted: its headers, and the ports behind them.
const QUOTED: usize = 128;

/// Room for the longest answer: Ethernet with two tags, IPv6, ICMPv6, the quote.
pub const MAX_ANSWER: usize = 22 + 40 + 8 + QUOTED;

/// IPv4's "fragmentation needed" (RFC 792, RFC 1191 4): type 3, code 4.
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
/// ICMPv6's "packet too big" (RFC 4443 3.2): type 2, code 0.
const PACKET_TOO_BIG: [u8; 2] = [2, 0];

/// Writes the answer to a packet that does not fit into `mtu` bytes; gives its length. `None` if there must be no
/// answer: to groups, to error messages, to later fragments, to packets that may be fragmented, and to what is not IP.
pub fn write_answer(packet: &Packet, head: &[u8], mtu: u16, answer: &mut [u8; MAX_ANSWER]) -> Option<usize> {
    let network = usize::from(packet.network);
    let is_answerable = !packet.key.destination_mac().is_group()
        && !packet.key.source_mac().is_group()
        && packet.fragment.is_none_or(|fragment| fragment.is_first)
        && Message::of_packet(packet) != Some(Message::Error);
    let family = packet.family().filter(|_| is_answerable)?;
    let quote = head.get(network..)?;
    let quote = &quote[..quote.len().min(QUOTED)];
    // Tags stay as they are: the answer goes back where the packet came from.
    put(answer, 0, head.get(..network)?)?;
    put(answer, 0, &packet.key.source_mac().0)?;
    put(answer, 6, &packet.key.destination_mac().0)?;
    let (icmp, kind, number) = match family {
        Family::V4 => (network + 20, FRAGMENTATION_NEEDED, protocol::ICMP),
        Family::V6 => (network + 40, PACKET_TOO_BIG, protocol::ICMPV6),
    };
    let length = icmp + 8 + quote.len();
    answer.get_mut(network..length)?.fill(0);
    put(answer, icmp, &kind)?;
    // IPv4's next-hop MTU is the low half of the field (RFC 1191 4), IPv6's the whole.
    put(answer, icmp + 6, &mtu.to_be_bytes())?;
    put(answer, icmp + 8, quote)?;
    let mut sum = Checksum::default();
    let (source, destination) = (packet.key.destination(), packet.key.source());
    let payload = length - network;
    match family {
        Family::V4 => {
            if bytes::get_u8(head, network + 6)? & 0x40 == 0 {
                return None;
            }
            put(answer, network, &[0x45])?;
            put(answer, network + 2, &u16::try_from(payload).ok()?.to_be_bytes())?;
            put(answer, network + 8, &[64, number])?;
            put(answer, network + 12, &(source as u32).to_be_bytes())?;
            put(answer, network + 16, &(destination as u32).to_be_bytes())?;
            let header = checksum::of(answer.get(network..icmp)?);
            put(answer, network + 10, &header.to_be_bytes())?;
        }
        Family::V6 => {
            put(answer, network, &[0x60])?;
            put(answer, network + 4, &u16::try_from(payload - 40).ok()?.to_be_bytes())?;
            put(answer, network + 6, &[number, 64])?;
            put(answer, network + 8, &source.to_be_bytes())?;
            put(answer, network + 24, &destination.to_be_bytes())?;
            sum.add_pseudo_header(family, (source, destination), number, length - icmp);
        }
    }
    sum.add(answer.get(icmp..length)?);
    put(answer, icmp + 2, &sum.finish().to_be_bytes())?;
    Some(length)
}
