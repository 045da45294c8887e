//! One port's filter: its rules, connections and fragments.

use super::{
    connection::{self, Connection, ConnectionKey, State, Timeouts},
    fragments::FragmentTable,
    rules::{Action, Direction, Question, RuleRef, RuleSet},
};
use crate::{
    address::Family,
    counters::DropReason,
    packet::{FlowKey, Packet, ethertype, icmp, icmp::Message, protocol},
    tables::{BoundedTable, CachedConnection, Hasher, Slot},
};

/// Places that a new connection may look at for one to give up.
const PLACES_LOOKED_AT: u32 = 32;

/// How long TCP connections are picked up after a start under running guests: a sender that is not answered tries again six times
/// in that time (RFC 6298: after a second, then after twice as long each time).
const PICK_UP_NS: u64 = 120_000_000_000;

/// How a port's filter remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilterConfig {
    /// The most connections at a time. Memory for all of them is taken at once: 128 bytes each.
    pub connections: u32,
    /// How long each is kept.
    pub timeouts: Timeouts,
}

impl Default for FilterConfig {
    fn default() -> Self {
        Self { connections: 16_384, timeouts: Timeouts::default() }
    }
}

/// How a packet passes a filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// The connection that it belongs to, and the rule that lets it pass.
    pub connection: CachedConnection,
    /// Whether the next packet of the same flow passes likewise, while the connection lives and no rule changes.
    pub is_repeatable: bool,
}

impl Passage {
    /// Packets pass without being looked at.
    pub const FREE: Self = Self { connection: CachedConnection::NONE, is_repeatable: true };

    const fn once(rule: RuleRef) -> Self {
        Self { connection: CachedConnection { rule, ..CachedConnection::NONE }, is_repeatable: false }
    }
}

/// A packet with what the switch knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// Its headers.
    pub packet: &'a Packet,
    /// Its first bytes.
    pub head: &'a [u8],
    /// Which way it goes.
    pub direction: Direction,
    /// The VLAN it goes in.
    pub vlan: u16,
    /// Now.
    pub now_ns: u64,
}

/// Why a packet does not pass, and the rule that denies it if it was one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// By which rule.
    pub rule: RuleRef,
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Self { reason, rule: RuleRef::NONE }
    }
}

/// Judges what a guest sends and receives.
pub struct Filter {
    rules: RuleSet,
    /// Of the rules: never the same for two sets of rules.
    generation: u64,
    connections: BoundedTable<ConnectionKey, Connection>,
    fragments: FragmentTable,
    config: FilterConfig,
    hasher: Hasher,
    last_id: u64,
    hand: u32,
    /// Until then TCP connections are picked up.
    picks_up_until_ns: u64,
}

impl Filter {
    /// A filter that denies everything, with no connections.
    #[must_use]
    pub fn new(config: FilterConfig, hasher: Hasher) -> Self {
        Self {
            rules: RuleSet::default(),
            generation: 0,
            connections: BoundedTable::new(config.connections),
            fragments: FragmentTable::new(),
            config,
            hasher,
            last_id: 0,
            hand: 0,
            picks_up_until_ns: 0,
        }
    }

    /// For [`PICK_UP_NS`] from now on a TCP connection whose opening was not seen counts as one that a rule may allow.
    pub const fn pick_up_connections(&mut self, now_ns: u64) {
        self.picks_up_until_ns = now_ns.saturating_add(PICK_UP_NS);
    }

    /// Replaces the rules. Connections are judged anew when their next packet comes.
    pub fn set_rules(&mut self, rules: RuleSet, generation: u64) {
        self.rules = rules;
        self.generation = generation;
    }

    /// The states of the connections that live at `now_ns`.
    pub fn states(&self, now_ns: u64) -> impl Iterator<Item = State> {
        self.connections.iter().filter(move |(.., connection)| now_ns < connection.expires_ns).map(|(.., c)| c.state)
    }

    /// Judges a packet the long way, and notes it in its connection.
    ///
    /// # Errors
    /// Says why the packet must be dropped.
    pub fn judge(&mut self, judged: &Judged<'_>) -> Result<Passage, Refusal> {
        let Judged { packet, direction, vlan, now_ns, .. } = *judged;
        let Some(family) = packet.family() else {
            return match packet.key.ethertype() {
                ethertype::ARP | ethertype::RARP => Ok(Passage::once(RuleRef::NONE)),
                _ => Err(DropReason::NotIp.into()),
            };
        };
        let mut flow = packet.key;
        match packet.fragment {
            Some(fragment) if !fragment.is_first => {
                let ports = self.fragments.ports(packet, fragment, (direction, vlan), now_ns);
                let (source, destination) = ports.ok_or(DropReason::UnknownFragment)?;
                flow = flow.with_ports(source, destination);
            }
            _ => {}
        }
        let passage = match Message::of_packet(packet).filter(|_| flow == packet.key) {
            Some(message) if message.is_echo() => self.judge_tracked(judged, &flow, family)?,
            Some(message) => self.judge_message(judged, message, family)?,
            None => self.judge_tracked(judged, &flow, family)?,
        };
        if let Some(fragment) = packet.fragment.filter(|fragment| fragment.is_first) {
            self.fragments.remember(packet, fragment, (direction, vlan), now_ns);
        }
        let is_repeatable = passage.is_repeatable && packet.fragment.is_none();
        Ok(Passage { is_repeatable, ..passage })
    }

    /// Notes a packet of a flow that passed before; `false` if it must be judged the long way.
    #[inline]
    pub fn pass_again(
        &mut self,
        cached: &CachedConnection,
        packet: &Packet,
        direction: Direction,
        now_ns: u64,
    ) -> bool {
        self.connections.value_mut(cached.slot).is_some_and(|connection| {
            connection.id == cached.id && connection.track_common(packet, direction, &self.config.timeouts, now_ns)
        })
    }

    /// Whether a cached connection is still in its place. Calling this for a batch of packets first
    /// lets the CPU fetch all of them at once.
    #[inline]
    #[must_use]
    pub fn is_there(&self, cached: &CachedConnection) -> bool {
        self.connections.value(cached.slot).is_some_and(|connection| connection.id == cached.id)
    }

    /// Looks at some places and forgets the connections in them that are over.
    pub fn expire(&mut self, now_ns: u64, places: u32) {
        for slot in self.connections.sweep(&mut self.hand, places) {
            if self.connections.value(slot).is_some_and(|connection| connection.expires_ns <= now_ns) {
                self.connections.remove(slot);
            }
        }
    }

    /// ICMP messages other than echoes: they open nothing.
    fn judge_message(&mut self, judged: &Judged<'_>, message: Message, family: Family) -> Result<Passage, Refusal> {
        let Judged { packet, head, direction, vlan, now_ns } = *judged;
        let [kind, _] = packet.key.source_port().to_be_bytes();
        match message {
            // IPv6 does not work at all without these; who may say what is the anti-spoofing's business.
            Message::Neighbour => return Ok(Passage::once(RuleRef::NONE)),
            Message::Router if family == Family::V6 && direction == Direction::Ingress => {
                return Ok(Passage::once(RuleRef::NONE));
            }
            Message::Error => {
                // The packet that it quotes went the other way.
                let quoted = icmp::quoted_flow(packet, head);
                let key = quoted.map(|flow| ConnectionKey::new(&flow, family, direction.opposite(), vlan));
                if let Some(key) = key
                    && let Some(slot) = self.find(&key)
                    && self.connections.value(slot).is_some_and(|connection| now_ns < connection.expires_ns)
                    && self.is_allowed_still(slot, &key)
                {
                    let rule = self.connections.value(slot).map_or(RuleRef::NONE, |connection| connection.rule);
                    return Ok(Passage::once(rule));
                }
            }
            _ => {}
        }
        let (_, rule) =
            self.ask(direction, family, (remote(&packet.key, direction), packet.key.protocol(), kind.into()))?;
        Ok(Passage::once(rule))
    }

    /// Packets that belong to a connection or open one.
    fn judge_tracked(&mut self, judged: &Judged<'_>, flow: &FlowKey, family: Family) -> Result<Passage, Refusal> {
        let Judged { packet, head, direction, vlan, now_ns } = *judged;
        let key = ConnectionKey::new(flow, family, direction, vlan);
        let service = service(flow);
        if self.rules.has_stateless(direction)
            && let Ok((Action::AllowStateless, rule)) =
                self.ask(direction, family, (key.remote(), key.protocol(), service))
        {
            let connection = CachedConnection { rule, ..CachedConnection::NONE };
            return Ok(Passage { connection, is_repeatable: true });
        }
        if let Some(slot) = self.find(&key) {
            if self.is_live(slot, packet, now_ns) && self.is_allowed_still(slot, &key) {
                return self.note(slot, judged);
            }
            self.connections.remove(slot);
        }
        let is_tcp = key.protocol() == protocol::TCP;
        let is_picked_up = is_tcp && self.picks_up(packet, now_ns);
        let rule = match self.ask(direction, family, (key.remote(), key.protocol(), service)) {
            Ok((_, rule)) => rule,
            // Nothing is remembered of what may be an answer only: what the other side then says shows whether it was one.
            Err(refusal) if is_picked_up => {
                let asked = (key.remote(), key.protocol(), flow.source_port());
                return match self.ask(direction.opposite(), family, asked) {
                    Ok((Action::Allow, rule)) => Ok(Passage::once(rule)),
                    _ => Err(refusal),
                };
            }
            Err(refusal) => return Err(refusal),
        };
        if is_tcp && !is_picked_up && !connection::opens(&packet.tcp) {
            return Err(DropReason::NotOpening.into());
        }
        self.make_room(now_ns);
        self.last_id += 1;
        let mut connection = Connection::open(packet, head, direction, &self.config.timeouts, now_ns);
        connection.id = self.last_id;
        connection.generation = self.generation;
        connection.rule = rule;
        connection.service = service;
        let slot = self.connections.insert(self.hasher.connection(key.words()), key, connection);
        let slot = slot.ok_or(DropReason::ConnectionsFull)?;
        Ok(Passage { connection: CachedConnection { id: self.last_id, slot, rule }, is_repeatable: true })
    }

    /// Whether a TCP segment of no connection may belong to one that was open before the switch was started.
    fn picks_up(&self, packet: &Packet, now_ns: u64) -> bool {
        now_ns < self.picks_up_until_ns
            && packet.fragment.is_none_or(|fragment| fragment.is_first)
            && connection::continues(&packet.tcp)
    }

    /// Whether a remembered connection is not over.
    fn is_live(&self, slot: Slot, packet: &Packet, now_ns: u64) -> bool {
        self.connections
            .value(slot)
            .is_some_and(|connection| now_ns < connection.expires_ns && !connection.is_reopened_by(&packet.tcp))
    }

    /// Asks the rules again if they have changed since a connection was allowed.
    fn is_allowed_still(&mut self, slot: Slot, key: &ConnectionKey) -> bool {
        let generation = self.generation;
        let Some(Connection { initiator, service, generation: allowed_in, .. }) = self.connections.value(slot).copied()
        else {
            return false;
        };
        if allowed_in == generation {
            return true;
        }
        let answer = self.ask(initiator, key.family(), (key.remote(), key.protocol(), service));
        let (Ok((Action::Allow, rule)), Some(connection)) = (answer, self.connections.value_mut(slot)) else {
            return false;
        };
        connection.rule = rule;
        connection.generation = generation;
        true
    }

    /// Notes a packet in its connection.
    fn note(&mut self, slot: Slot, judged: &Judged<'_>) -> Result<Passage, Refusal> {
        let Judged { packet, head, direction, now_ns, .. } = *judged;
        let connection = self.connections.value_mut(slot).ok_or(DropReason::OutOfState)?;
        let tracked = connection.track(packet, head, direction, &self.config.timeouts, now_ns);
        tracked.map_err(|connection::OutOfState| DropReason::OutOfState)?;
        let connection = CachedConnection { id: connection.id, slot, rule: connection.rule };
        Ok(Passage { connection, is_repeatable: true })
    }

    /// What the rules say about the remote address, protocol and service; no answer is a denial.
    fn ask(
        &self,
        direction: Direction,
        family: Family,
        (remote, protocol, service): (u128, u8, u16),
    ) -> Result<(Action, RuleRef), Refusal> {
        match self.rules.ask(&Question { direction, family, remote, protocol, service }) {
            Some((Action::Deny, rule)) => Err(Refusal { reason: DropReason::Denied, rule }),
            Some(answer) => Ok(answer),
            None => Err(DropReason::Denied.into()),
        }
    }

    /// If the table is full, gives up a connection that is over, or else one that nobody has answered. Established ones
    /// stay: who floods a guest with openings cannot end its connections.
    fn make_room(&mut self, now_ns: u64) {
        if !self.connections.is_full() {
            return;
        }
        let mut victim = None;
        for slot in self.connections.sweep(&mut self.hand, PLACES_LOOKED_AT) {
            let Some(connection) = self.connections.value(slot) else { continue };
            if connection.expires_ns <= now_ns {
                victim = Some((0, slot));
                break;
            }
            if !connection.state.is_assured() && victim.is_none_or(|(best, _)| connection.expires_ns < best) {
                victim = Some((connection.expires_ns, slot));
            }
        }
        if let Some((_, slot)) = victim {
            self.connections.remove(slot);
        }
    }

    fn find(&self, key: &ConnectionKey) -> Option<Slot> {
        self.connections.find(self.hasher.connection(key.words()), key)
    }
}

/// Who the guest talks with.
const fn remote(flow: &FlowKey, direction: Direction) -> u128 {
    match direction {
        Direction::Egress => flow.destination(),
        Direction::Ingress => flow.source(),
    }
}

/// What rules compare: a destination port, or the type of an ICMP message.
const fn service(flow: &FlowKey) -> u16 {
    match flow.protocol() {
        protocol::ICMP | protocol::ICMPV6 => flow.source_port() >> 8,
        _ => flow.destination_port(),
    }
}
