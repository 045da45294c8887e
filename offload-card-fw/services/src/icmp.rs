//! Echo, and the word that nobody listens at a port (RFC 792).

use alloc::vec::Vec;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet},
};

use crate::frame::{Station, ipv4};

/// Bytes of an ICMP header.
const HEADER: usize = 8;
/// Bytes of a packet's payload that an error message quotes: the ports of UDP and TCP are in them.
const QUOTED: usize = 8;

/// The answer to a message, if it is an echo request.
pub fn answer(from: Station, to: Station, message: &[u8]) -> Option<Vec<u8>> {
    let checksums = ChecksumCapabilities::default();
    let packet = Icmpv4Packet::new_checked(message).ok()?;
    let Ok(Icmpv4Repr::EchoRequest { ident, seq_no, data }) = Icmpv4Repr::parse(&packet, &checksums) else {
        return None;
    };
    let reply = Icmpv4Repr::EchoReply { ident, seq_no, data };
    Some(ipv4(from, to, IpProtocol::Icmp, reply.buffer_len(), |bytes| {
        reply.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
    }))
}

/// Tells the sender of a packet that nobody listens at the port that it was for.
pub fn port_unreachable(from: Station, to: Station, packet: &Ipv4Packet<&[u8]>) -> Vec<u8> {
    let quoted = usize::from(packet.header_len()).saturating_add(packet.payload().len().min(QUOTED));
    let quote = packet.as_ref().get(..quoted).unwrap_or_default();
    ipv4(from, to, IpProtocol::Icmp, HEADER.saturating_add(quote.len()), |bytes| {
        let mut message = Icmpv4Packet::new_unchecked(bytes);
        message.set_msg_type(Icmpv4Message::DstUnreachable);
        message.set_msg_code(Icmpv4DstUnreachable::PortUnreachable.into());
        message.data_mut().copy_from_slice(quote);
        message.fill_checksum();
    })
}
