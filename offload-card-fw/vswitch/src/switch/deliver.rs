//! The last steps for each port that gets a frame: length, limits, counters, capture, tunnel.

use super::{Arrival, Switch};
use crate::{
    counters::DropReason,
    frame::{Edit, Output, SegmentKind},
    packet::{Packet, ethertype},
    port::{Passing, PortId, capture},
    tables::CachedConnection,
    too_big::{self, MAX_ANSWER},
    tunnel::Tunnel,
    vlan::TagEdit,
};

/// A frame's way to one port.
#[derive(Clone, Copy)]
pub struct Delivery {
    pub port: PortId,
    pub tag: TagEdit,
    /// How it passed that port's filter.
    pub passage: CachedConnection,
    /// Whether the flow cache knew it.
    pub is_cached: bool,
}

impl Switch {
    #[inline(always)]
    pub(super) fn deliver(
        &mut self,
        arrival: &Arrival,
        head: &[u8],
        delivery: &Delivery,
        now_ns: u64,
        out: &mut impl Output,
    ) {
        let length = arrival.length as usize;
        let id = delivery.port;
        let Some(port) = self.ports.get_mut(id.index()).and_then(Option::as_deref_mut) else { return };
        // Cheap and right for all frames that fit as a whole.
        if length > port.longest_packet + usize::from(arrival.packet.network)
            && packet_length(arrival, head) > port.longest_packet
        {
            return self.refuse_length(arrival, head, id, now_ns, out);
        }
        port.receive_policer.refill(now_ns);
        if !port.receive_policer.admit(arrival.offload.packets(length), length) {
            return port.counters.add_drop(DropReason::ReceiveLimit);
        }
        port.counters.sent.add(length);
        port.counters.cached += u64::from(delivery.is_cached);
        self.groups.count(delivery.passage.rule, length);
        if let Some(config) = &port.capture {
            capture((id, config), Passing::Sent, Some(&arrival.packet), (head, length), now_ns, out);
        }
        let tunnel = port.tunnel();
        let edit = Edit { strip: arrival.strip, tag: delivery.tag, tunnel, flow_hash: arrival.hash };
        match tunnel.map(|tunnel| tunnel.uplink) {
            None => out.forward(arrival.frame, id, &edit),
            Some(uplink) => {
                out.forward(arrival.frame, uplink, &edit);
                let overhead = tunnel.map_or(0, Tunnel::header_length);
                if let Some(uplink) = self.port_mut(uplink) {
                    uplink.counters.sent.add(length + overhead);
                }
            }
        }
    }

    /// Drops a frame that is too long for a port, and tells its sender.
    #[cold]
    fn refuse_length(&mut self, arrival: &Arrival, head: &[u8], port: PortId, now_ns: u64, out: &mut impl Output) {
        // Configured MTUs have 16 bits.
        let mtu = self.port(port).map_or(0, |port| port.longest_packet as u16);
        self.count_drop(port, DropReason::TooLong);
        let Some(source) = self.port_mut(arrival.source) else { return };
        source.error_policer.refill(now_ns);
        // Who is outside learns it from the routers on the way; a tunnel's sender knows what fits.
        if source.config.role.is_outside() || !source.error_policer.admit(1, 0) {
            return;
        }
        let mut answer = [0; MAX_ANSWER];
        let written = too_big::write_answer(&arrival.packet, head, mtu, &mut answer);
        if let Some(answer) = written.and_then(|length| answer.get(..length)) {
            source.counters.sent.add(answer.len());
            out.originate(arrival.source, answer);
        }
    }
}

/// Bytes of the IP packet that a frame carries, or of each one into which it will be cut.
fn packet_length(arrival: &Arrival, head: &[u8]) -> usize {
    let packet = &arrival.packet;
    let whole = match packet.key.ethertype() {
        ethertype::IPV4 | ethertype::IPV6 => ip_length(packet, head),
        _ => (arrival.length as usize).saturating_sub(usize::from(packet.network)),
    };
    let Some(cut) = arrival.offload.segmentation else { return whole };
    let transport = usize::from(packet.transport);
    let header = match cut.kind {
        SegmentKind::Tcp => crate::bytes::get_u8(head, transport + 12).map_or(0, |byte| usize::from(byte >> 4) * 4),
        SegmentKind::Udp => 8,
    };
    whole.min(transport - usize::from(packet.network) + header + usize::from(cut.size))
}

/// The length that the IP header tells; what is behind it in the frame is padding.
fn ip_length(packet: &Packet, head: &[u8]) -> usize {
    let network = usize::from(packet.network);
    let field = |offset| crate::bytes::get_u16(head, network + offset).map_or(usize::MAX, usize::from);
    match packet.key.ethertype() {
        ethertype::IPV4 => field(2),
        _ => field(4).saturating_add(40),
    }
}
