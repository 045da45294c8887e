//! The way of a batch of frames.
//!
//! A lookup waits for memory, not for the CPU. So a batch is taken in passes: one reads headers, one finds out where
//! the cache may know each flow, one reads these places and the connections named there. Within a pass no frame
//! waits for another, and the CPU fetches many lines at a time; in the last pass, which does the work in order,
//! everything is near.

use super::{Arrival, Switch, decide::Verdict};
use crate::{
    counters::DropReason,
    frame::{Frame, Output},
    packet::Packet,
    port::{Passing, PortId, Role, capture},
    tunnel,
};

/// Frames in a pass.
pub const BATCH: usize = 32;

impl Switch {
    /// Takes frames that came from `port` and tells `out` where they go. Frames that go nowhere are only counted.
    ///
    /// `now_ns` must not run backwards. Frames from a port that does not exist are ignored.
    pub fn receive<F: Frame>(&mut self, port: PortId, frames: &[F], now_ns: u64, out: &mut impl Output) {
        let Some(sender) = self.port_mut(port) else { return };
        sender.send_policer.refill(now_ns);
        sender.flood_policer.refill(now_ns);
        let is_captured = sender.capture.is_some();
        let may_be_wrapped = sender.config.role == Role::Uplink && !self.tunnels.is_empty();
        let mut batch = core::mem::take(&mut self.batch);
        for (chunk, frames) in frames.chunks(BATCH).enumerate() {
            let first = chunk * BATCH;
            if is_captured {
                for frame in frames {
                    let (head, length) = (frame.head(), frame.length());
                    let packet = Packet::parse(head, length).ok();
                    self.capture_received(port, packet.as_ref(), (head, length), now_ns, out);
                }
            }
            let mut count = self.read(port, frames, &mut batch);
            if may_be_wrapped {
                count = self.unwrap_all(frames, &mut batch, count);
            }
            let batch = batch.get_mut(..count).unwrap_or_default();
            self.fetch(port, batch);
            let mut last = None;
            for arrival in batch {
                let Some(frame) = frames.get(arrival.frame) else { continue };
                let Some(head) = frame.head().get(usize::from(arrival.strip)..) else { continue };
                arrival.frame += first;
                if arrival.source != port {
                    let bytes = (head, arrival.length as usize);
                    self.capture_received(arrival.source, Some(&arrival.packet), bytes, now_ns, out);
                }
                let again = last.filter(|last: &Verdict| arrival.follows && !last.is_tracked);
                last = again.or_else(|| self.look_up(arrival, now_ns));
                match &last {
                    Some(verdict) => self.carry_out(verdict, arrival, head, now_ns, out),
                    None => self.decide(arrival, head, now_ns, out),
                }
            }
        }
        self.batch = batch;
    }

    /// Reads frames' headers, each to where it is looked at later, and says how many go on.
    #[inline]
    fn read<F: Frame>(&mut self, port: PortId, frames: &[F], batch: &mut [Arrival]) -> usize {
        let hasher = self.hasher;
        let mut count = 0;
        let Some(sender) = self.port_mut(port) else { return count };
        for (number, frame) in frames.iter().enumerate() {
            let (head, length, offload) = (frame.head(), frame.length(), frame.offload());
            sender.counters.received.add(length);
            if !sender.send_policer.admit(offload.packets(length), length) {
                sender.counters.add_drop(DropReason::SendLimit);
                continue;
            }
            let Some((before, [arrival, ..])) = batch.split_at_mut_checked(count) else { break };
            let (Ok(()), Ok(length)) = (arrival.packet.read(head, length), u32::try_from(length)) else {
                sender.counters.add_drop(DropReason::Malformed);
                continue;
            };
            if !offload.fits(&arrival.packet) {
                sender.counters.add_drop(DropReason::Offload);
                continue;
            }
            match before.last() {
                Some(last) if last.packet.key == arrival.packet.key => {
                    (arrival.hash, arrival.follows) = (last.hash, true)
                }
                _ => (arrival.hash, arrival.follows) = (hasher.flow(arrival.packet.key.words()), false),
            }
            (arrival.frame, arrival.source, arrival.strip) = (number, port, 0);
            (arrival.length, arrival.offload) = (length, offload);
            count += 1;
        }
        count
    }

    /// Takes tunnels' headers off the first `count`, and says how many are left.
    fn unwrap_all<F: Frame>(&mut self, frames: &[F], batch: &mut [Arrival], count: usize) -> usize {
        let mut left = 0;
        for number in 0..count {
            let Some(mut arrival) = batch.get(number).copied() else { break };
            let is_left =
                frames.get(arrival.frame).is_some_and(|frame| self.unwrap(&mut arrival, frame.head()).is_some());
            // What they carry is not looked at for that.
            arrival.follows = false;
            if is_left && let Some(place) = batch.get_mut(left) {
                *place = arrival;
                left += 1;
            }
        }
        left
    }

    /// Takes a tunnel's headers off, if the frame is for one of this switch's tunnels. `None` drops the frame.
    fn unwrap(&mut self, arrival: &mut Arrival, head: &[u8]) -> Option<()> {
        let outer = arrival.packet;
        let Some(opened) = tunnel::open(&outer, head) else { return Some(()) };
        let is_addressed = |id: &PortId| {
            let tunnel = self.port(*id).and_then(|port| port.tunnel());
            tunnel.is_some_and(|tunnel| tunnel.local_mac == outer.key.destination_mac())
        };
        let known = opened.ok().and_then(|envelope| self.tunnels.get(&envelope.name)).copied().filter(is_addressed);
        if known.is_none() && !self.ends_tunnels(arrival.source, &outer) {
            return Some(());
        }
        let result = opened.and_then(|envelope| {
            let length = arrival.length as usize;
            let id = known.ok_or(DropReason::TunnelUnknown)?;
            let tunnel = self.port(id).and_then(|port| port.tunnel()).ok_or(DropReason::TunnelUnknown)?;
            let vlan = outer.key.outer_vlan().filter(|vlan| *vlan != 0);
            if tunnel.uplink != arrival.source || tunnel.vlan != vlan {
                return Err(DropReason::TunnelUnknown);
            }
            if !tunnel::has_right_checksum(&outer, head, length, &arrival.offload) {
                return Err(DropReason::TunnelChecksum);
            }
            let inner_head = head.get(envelope.inner..).ok_or(DropReason::TunnelHeader)?;
            let inner_length = length.checked_sub(envelope.inner).ok_or(DropReason::TunnelHeader)?;
            let packet = Packet::parse(inner_head, inner_length).map_err(|_| DropReason::Malformed)?;
            let offload = arrival.offload.inner(envelope.inner);
            if offload.fits(&packet) {
                Ok((id, packet, envelope.inner, inner_length, offload))
            } else {
                Err(DropReason::Offload)
            }
        });
        match result {
            Ok((id, packet, inner, inner_length, offload)) => {
                // A head is not longer than 2^16, and the frame was not longer than 2^32.
                arrival.strip = inner as u16;
                arrival.length = inner_length as u32;
                arrival.packet = packet;
                arrival.source = id;
                arrival.offload = offload;
                arrival.hash = self.hasher.flow(packet.key.words());
                self.port_mut(id)?.counters.received.add(inner_length);
                Some(())
            }
            Err(reason) => {
                self.count_drop(arrival.source, reason);
                None
            }
        }
    }

    /// Whether a frame from an uplink is for this host's end of tunnels: others' pass through like any frame.
    fn ends_tunnels(&self, uplink: PortId, outer: &Packet) -> bool {
        self.tunnels.values().any(|id| {
            self.port(*id)
                .and_then(|port| port.tunnel())
                .is_some_and(|tunnel| tunnel.local_mac == outer.key.destination_mac() && tunnel.uplink == uplink)
        })
    }

    /// Reads what the last pass will need, and drops places that turn out to be other flows'.
    #[inline]
    fn fetch(&self, port: PortId, batch: &mut [Arrival]) {
        let Some(sender) = self.port(port) else { return };
        let source_of =
            |arrival: &Arrival| if arrival.source == port { Some(sender) } else { self.port(arrival.source) };
        for arrival in batch.iter_mut().filter(|arrival| !arrival.follows) {
            arrival.place = source_of(arrival).and_then(|source| source.cache.probe(arrival.hash));
        }
        let mut last = None;
        for arrival in batch {
            if arrival.follows {
                arrival.place = last;
                continue;
            }
            let is_there = |place| {
                let source = source_of(arrival)?;
                let entry = source.cache.entry(place)?;
                // Reads from both lines of the entry.
                let is_same = entry.key.words()[6] == arrival.packet.key.words()[6];
                let at_source =
                    entry.source_connection.id == 0 || source.filter.as_ref()?.is_there(&entry.source_connection);
                let at_destination = entry.destination_connection.id == 0
                    || self.port(entry.destination)?.filter.as_ref()?.is_there(&entry.destination_connection);
                (is_same & at_source & at_destination).then_some(place)
            };
            arrival.place = arrival.place.and_then(is_there);
            last = arrival.place;
        }
    }

    fn capture_received(
        &self,
        port: PortId,
        packet: Option<&Packet>,
        (head, length): (&[u8], usize),
        now_ns: u64,
        out: &mut impl Output,
    ) {
        if let Some(config) = self.port(port).and_then(|port| port.capture.as_ref()) {
            capture((port, config), Passing::Received, packet, (head, length), now_ns, out);
        }
    }

    pub(super) fn count_drop(&mut self, port: PortId, reason: DropReason) {
        if let Some(port) = self.port_mut(port) {
            port.counters.add_drop(reason);
        }
    }
}
