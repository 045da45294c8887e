//! What is to be done with a frame: as with the last one of its flow, or found out anew.

use super::{Arrival, Switch};
use crate::{
    counters::DropReason,
    frame::Output,
    packet::{Packet, ethertype, icmp::Message},
    policy::{Direction, Judged, Passage, Refusal, RuleRef},
    port::{PortId, Role},
    switch::deliver::Delivery,
    tables::{CachedConnection, CachedFlow, Learned, Sighting, Slot},
    tunnel::Tunnel,
    vlan::TagEdit,
};

/// What is done with a frame whose flow is known.
#[derive(Clone, Copy)]
pub(super) struct Verdict {
    delivery: Delivery,
    /// The rule that let it leave its sender.
    rule: RuleRef,
    /// A connection has to see each frame. If not, this holds for the next frame, too, if that is of the same flow.
    pub is_tracked: bool,
}

impl Switch {
    /// Finds what was done with the flow's last frame. `None` if that does not hold any more, or the frame needs a closer look;
    /// nothing has been done then that does harm when it is done again.
    #[inline]
    pub(super) fn look_up(&mut self, arrival: &Arrival, now_ns: u64) -> Option<Verdict> {
        let packet = &arrival.packet;
        let source = self.ports.get_mut(arrival.source.index()).and_then(Option::as_deref_mut)?;
        let flow = source.cache.entry(arrival.place?)?;
        if flow.key != packet.key || flow.source_generation != source.generation {
            return None;
        }
        let CachedFlow { destination, destination_generation, source_connection, destination_connection, .. } = *flow;
        let CachedFlow { source_station, destination_station, vlan, tag, .. } = *flow;
        let passes = |filter: Option<&mut crate::policy::Filter>, connection: &CachedConnection, direction| {
            connection.id == 0 || filter.is_some_and(|filter| filter.pass_again(connection, packet, direction, now_ns))
        };
        if !passes(source.filter.as_mut(), &source_connection, Direction::Egress) {
            return None;
        }
        let sender = self.stations.at_mut(source_station)?;
        if sender.port != arrival.source || !sender.is(packet.key.source_mac(), vlan, now_ns) {
            return None;
        }
        sender.refresh(now_ns.saturating_add(self.station_lifetime_ns));
        let station = self.stations.at(destination_station)?;
        let is_there = station.port == destination && station.is(packet.key.destination_mac(), vlan, now_ns);
        let receiver = self.ports.get_mut(destination.index()).and_then(Option::as_deref_mut)?;
        let holds = is_there
            && receiver.generation == destination_generation
            && passes(receiver.filter.as_mut(), &destination_connection, Direction::Ingress);
        holds.then_some(Verdict {
            delivery: Delivery { port: destination, tag, passage: destination_connection, is_cached: true },
            rule: source_connection.rule,
            is_tracked: source_connection.id != 0 || destination_connection.id != 0,
        })
    }

    /// Does what was found out.
    #[inline]
    pub(super) fn carry_out(
        &mut self,
        verdict: &Verdict,
        arrival: &Arrival,
        head: &[u8],
        now_ns: u64,
        out: &mut impl Output,
    ) {
        self.groups.count(verdict.rule, arrival.length as usize);
        self.deliver(arrival, head, &verdict.delivery, now_ns, out);
    }

    /// Finds out what is to be done with a frame, and does it.
    #[cold]
    #[inline(never)]
    pub(super) fn decide(&mut self, arrival: &Arrival, head: &[u8], now_ns: u64, out: &mut impl Output) {
        if let Err(Refusal { reason, rule }) = self.try_decide(arrival, head, now_ns, out) {
            self.groups.count(rule, arrival.length as usize);
            self.count_drop(arrival.source, reason);
        }
    }

    fn try_decide(
        &mut self,
        arrival: &Arrival,
        head: &[u8],
        now_ns: u64,
        out: &mut impl Output,
    ) -> Result<(), Refusal> {
        let packet = &arrival.packet;
        let (vlan, source_station) = self.admit(arrival, head, now_ns)?;
        let judged = Judged { packet, head, direction: Direction::Egress, vlan, now_ns };
        let passage = self.judge(arrival.source, &judged)?;
        self.groups.count(passage.connection.rule, arrival.length as usize);
        let destination_mac = packet.key.destination_mac();
        let known = if destination_mac.is_group() { None } else { self.stations.find(destination_mac, vlan, now_ns) };
        let Some((destination_station, station)) = known else {
            return self.flood(arrival, head, vlan, now_ns, out);
        };
        if !self.may_pass(arrival.source, station.port, vlan) {
            return Err(DropReason::NoWay.into());
        }
        let Some((connection, is_repeatable, tag)) = self.judge_ingress(arrival, head, station.port, vlan, now_ns)
        else {
            return Ok(());
        };
        let stations = (source_station, destination_station);
        if passage.is_repeatable && is_repeatable && is_cacheable(packet) {
            self.remember(arrival, (station.port, tag, vlan), stations, (passage.connection, connection));
        }
        let delivery = Delivery { port: station.port, tag, passage: connection, is_cached: false };
        self.deliver(arrival, head, &delivery, now_ns, out);
        Ok(())
    }

    /// Checks and learns where a frame comes from: gives its VLAN and the sender's place in the table of stations.
    fn admit(&mut self, arrival: &Arrival, head: &[u8], now_ns: u64) -> Result<(u16, Slot), DropReason> {
        let packet = &arrival.packet;
        let port = self.port(arrival.source).ok_or(DropReason::NoWay)?;
        let vlan = port.config.vlan.classify(&packet.key).ok_or(DropReason::Vlan)?;
        let mac = packet.key.source_mac();
        if mac.is_group() {
            return Err(DropReason::SpoofedMac);
        }
        if let Some(identity) = &port.config.identity {
            identity.check(packet, head)?;
        }
        let expires_ns = now_ns.saturating_add(self.station_lifetime_ns);
        let seen = Sighting { port: arrival.source, is_bound: port.config.identity.is_some(), now_ns, expires_ns };
        match self.stations.learn(mac, vlan, seen) {
            Learned::At(slot) => Ok((vlan, slot)),
            Learned::NotRemembered => Ok((vlan, Slot::NONE)),
            Learned::BelongsElsewhere => Err(DropReason::StationElsewhere),
        }
    }

    fn judge(&mut self, port: PortId, judged: &Judged<'_>) -> Result<Passage, Refusal> {
        match self.port_mut(port).and_then(|port| port.filter.as_mut()) {
            Some(filter) => filter.judge(judged),
            None => Ok(Passage::FREE),
        }
    }

    /// Judges a frame at a port that would receive it. A refusal is counted there.
    fn judge_ingress(
        &mut self,
        arrival: &Arrival,
        head: &[u8],
        port: PortId,
        vlan: u16,
        now_ns: u64,
    ) -> Option<(CachedConnection, bool, TagEdit)> {
        let tag = self.port(port)?.config.vlan.edit(&arrival.packet.key, vlan);
        let judged = Judged { packet: &arrival.packet, head, direction: Direction::Ingress, vlan, now_ns };
        match self.judge(port, &judged) {
            Ok(passage) => Some((passage.connection, passage.is_repeatable, tag)),
            Err(Refusal { reason, rule }) => {
                self.groups.count(rule, arrival.length as usize);
                self.count_drop(port, reason);
                None
            }
        }
    }

    /// Whether frames of a VLAN may go from one port to another.
    fn may_pass(&self, source: PortId, destination: PortId, vlan: u16) -> bool {
        let (Some(from), Some(to)) = (self.port(source), self.port(destination)) else { return false };
        source != destination
            && to.config.vlan.is_in(vlan)
            && to.tunnel().is_none_or(Tunnel::has_next_hop)
            && !(from.config.role.is_outside() && to.config.role.is_outside())
    }

    /// Sends a frame to all ports of a VLAN where its receivers may be.
    fn flood(
        &mut self,
        arrival: &Arrival,
        head: &[u8],
        vlan: u16,
        now_ns: u64,
        out: &mut impl Output,
    ) -> Result<(), Refusal> {
        let source = self.port_mut(arrival.source).ok_or(DropReason::NoWay)?;
        if !source.flood_policer.admit(1, 0) {
            return Err(DropReason::Storm.into());
        }
        let is_for_group = arrival.packet.key.destination_mac().is_group();
        for index in 0..self.ports.len() {
            // Below the highest port number.
            let id = PortId(index as u16);
            let may_be_there = |switch: &Self| {
                switch.port(id).is_some_and(|port| {
                    is_for_group || !port.knows_its_stations() && port.config.role != Role::Management
                })
            };
            if !self.may_pass(arrival.source, id, vlan) || !may_be_there(self) {
                continue;
            }
            if let Some((passage, _, tag)) = self.judge_ingress(arrival, head, id, vlan, now_ns) {
                let delivery = Delivery { port: id, tag, passage, is_cached: false };
                self.deliver(arrival, head, &delivery, now_ns, out);
            }
        }
        Ok(())
    }

    fn remember(
        &mut self,
        arrival: &Arrival,
        (destination, tag, vlan): (PortId, TagEdit, u16),
        (source_station, destination_station): (Slot, Slot),
        (source_connection, destination_connection): (CachedConnection, CachedConnection),
    ) {
        let Some(destination_generation) = self.port(destination).map(|port| port.generation) else { return };
        let Some(source) = self.port_mut(arrival.source) else { return };
        let source_generation = source.generation;
        let Some(place) = source.cache.reserve(arrival.hash) else { return };
        *place = CachedFlow {
            key: arrival.packet.key,
            source_generation,
            destination_generation,
            source_connection,
            destination_connection,
            source_station,
            destination_station,
            destination,
            vlan,
            tag,
        };
    }
}

/// Whether the flow key says everything that the decision depends on. Address resolution and messages about other
/// packets are judged by their content.
fn is_cacheable(packet: &Packet) -> bool {
    packet.fragment.is_none()
        && packet.key.ethertype() != ethertype::ARP
        && Message::of_packet(packet).is_none_or(Message::is_echo)
}
