//! Outer headers of packets that come in.

use super::{SHIM, TunnelName, TunnelProtocol, UDP, encapsulate::TRANSPARENT_ETHERNET};
use crate::{
    bytes,
    checksum::Checksum,
    counters::DropReason,
    frame::Offload,
    packet::{Packet, protocol},
};

/// An outer packet, opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// Which tunnel it says it belongs to.
    pub name: TunnelName,
    /// Where the inner frame begins.
    pub inner: usize,
}

/// Reads the outer headers of a packet to a tunnel's port; `None` if it is not one.
///
/// # Errors
/// When the tunnel's header is not one that this switch understands.
#[inline]
pub fn open(packet: &Packet, head: &[u8]) -> Option<Result<Envelope, DropReason>> {
    let protocol = TunnelProtocol::of_port(packet.key.destination_port())?;
    if packet.key.protocol() != protocol::UDP {
        return None;
    }
    let family = packet.family()?;
    let shim_at = usize::from(packet.transport) + UDP;
    let name = |network| TunnelName {
        protocol,
        network,
        local: family.address(packet.key.destination()),
        remote: family.address(packet.key.source()),
    };
    let envelope = |(network, length)| Envelope { name: name(network), inner: shim_at + length };
    if packet.fragment.is_some() {
        return Some(Err(DropReason::TunnelHeader));
    }
    Some(read_shim(protocol, head, shim_at).map(envelope).ok_or(DropReason::TunnelHeader))
}

/// The network's number and the header's length.
fn read_shim(protocol: TunnelProtocol, head: &[u8], at: usize) -> Option<(u32, usize)> {
    let shim: &[u8; SHIM] = bytes::array(head, at)?;
    let network = bytes::get_u32(shim, 4)? >> 8;
    match protocol {
        // Flags other than the one that must be set are ignored (RFC 7348 5).
        TunnelProtocol::Vxlan => (shim[0] & 0x08 != 0).then_some((network, SHIM)),
        TunnelProtocol::Geneve => {
            let options = usize::from(shim[0] & 0x3f) * 4;
            let is_version_0 = shim[0] & 0xc0 == 0;
            // Control packets, and options that must be understood, are for others (RFC 8926 3.4).
            let is_plain = shim[1] & 0xc0 == 0;
            let is_ethernet = bytes::get_u16(shim, 2)? == TRANSPARENT_ETHERNET;
            (is_version_0 && is_plain && is_ethernet).then_some((network, SHIM + options))
        }
    }
}

/// Whether the outer checksum is right, absent, or somebody else's business. `head` must be the whole frame for it to
/// be checked: of a longer frame, the receiver of the inner packet checks that one's.
pub fn has_right_checksum(packet: &Packet, head: &[u8], length: usize, offload: &Offload) -> bool {
    let at = usize::from(packet.transport);
    let Some((udp_length, sum)) = bytes::get_u16(head, at + 4).zip(bytes::get_u16(head, at + 6)) else { return false };
    if sum == 0 || offload.is_valid || offload.checksum.is_some() || head.len() < length {
        return true;
    }
    let (Some(datagram), Some(family)) = (head.get(at..at + usize::from(udp_length)), packet.family()) else {
        return false;
    };
    let mut sum = Checksum::default();
    sum.add_pseudo_header(family, (packet.key.source(), packet.key.destination()), protocol::UDP, udp_length.into());
    sum.add(datagram);
    sum.folded() == 0xffff
}
