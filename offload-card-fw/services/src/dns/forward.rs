//! Queries under way to the resolver outside.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::wire::{DnsFlags, DnsPacket, EthernetAddress};

use super::{PORT, Question};
use crate::{
    arp,
    frame::{Station, udp},
    services::Environment,
};

/// How many queries of one net may be under way.
pub const QUERIES_PER_NET: usize = 32;
/// How long an answer is waited for; resolvers' clients ask again after about that (resolv.conf(5)).
const TIMEOUT_NS: u64 = 5_000_000_000;
/// The longest query that is passed on: what each server takes (RFC 1035 2.3.4).
const MAX_QUERY: usize = 512;
/// How long the next hop's Ethernet address is used without asking again, and how long after a question the next may be.
const ADDRESS_LIFETIME_NS: u64 = 60_000_000_000;
const ADDRESS_RETRY_NS: u64 = 1_000_000_000;
/// The ports that queries go out from (RFC 6335 6).
const FIRST_PORT: u16 = 0xc000;
const PORTS: u16 = 0x4000;

/// A guest's query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    /// The net that asks.
    pub net: usize,
    /// Where the answer goes.
    pub client: Station,
    /// The client's port.
    pub port: u16,
}

/// A query that went out, or will.
struct Pending {
    query: Query,
    /// The id that the client chose.
    id: u16,
    /// The port that it goes out from. With the id it is what somebody who wants to forge an answer has to guess
    /// (RFC 5452 4.5).
    port: u16,
    deadline_ns: u64,
    /// The message as it goes out.
    message: Vec<u8>,
    /// Bytes of it up to the end of the question.
    head: usize,
    is_sent: bool,
}

/// Where the resolver is, as far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The station that takes packets for the resolver: itself, or the router.
    pub address: Ipv4Addr,
    /// The resolver.
    pub resolver: Ipv4Addr,
}

/// Passes queries on to the resolver and its answers back.
pub struct Forwarder {
    own: Station,
    hop: Hop,
    mac: Option<EthernetAddress>,
    /// When the address above was learnt, and when it was last asked for.
    learnt_ns: u64,
    asked_ns: Option<u64>,
    pending: Vec<Pending>,
}

impl Forwarder {
    /// A forwarder at a station.
    pub const fn new(own: Station, hop: Hop) -> Self {
        Self { own, hop, mac: None, learnt_ns: 0, asked_ns: None, pending: Vec::new() }
    }

    /// Sends a query on; `false` if there is no place for it.
    pub fn ask(
        &mut self,
        query: Query,
        question: &Question<'_>,
        message: &[u8],
        now_ns: u64,
        environment: &mut impl Environment,
    ) -> bool {
        self.pending.retain(|pending| pending.deadline_ns > now_ns);
        let under_way = self.pending.iter().filter(|pending| pending.query.net == query.net).count();
        let mut message = message.to_vec();
        if under_way >= QUERIES_PER_NET || message.len() > MAX_QUERY {
            return false;
        }
        let [a, b, c, d, ..] = environment.random().to_be_bytes();
        let port = FIRST_PORT + u16::from_be_bytes([c, d]) % PORTS;
        let mut packet = DnsPacket::new_unchecked(message.as_mut_slice());
        let id = packet.transaction_id();
        packet.set_transaction_id(u16::from_be_bytes([a, b]));
        let deadline_ns = now_ns.saturating_add(TIMEOUT_NS);
        let head = question.head.len();
        self.pending.push(Pending { query, id, port, deadline_ns, message, head, is_sent: false });
        if self.mac.is_none() || now_ns.saturating_sub(self.learnt_ns) > ADDRESS_LIFETIME_NS {
            self.ask_for_hop(now_ns, environment);
        }
        self.send(environment);
        true
    }

    fn ask_for_hop(&mut self, now_ns: u64, environment: &mut impl Environment) {
        if self.asked_ns.is_none_or(|asked_ns| now_ns.saturating_sub(asked_ns) >= ADDRESS_RETRY_NS) {
            self.asked_ns = Some(now_ns);
            environment.send(&arp::request(self.own, self.hop.address));
        }
    }

    /// Sends what was not sent yet, if it is known where to.
    fn send(&mut self, environment: &mut impl Environment) {
        let Some(mac) = self.mac else { return };
        let resolver = Station { mac, address: self.hop.resolver };
        for pending in self.pending.iter_mut().filter(|pending| !pending.is_sent) {
            pending.is_sent = true;
            environment.send(&udp((self.own, pending.port), (resolver, PORT), &pending.message));
        }
    }

    /// Hears of a station outside; if it is the next hop, what waited for it is sent.
    pub fn learn(&mut self, station: Station, now_ns: u64, environment: &mut impl Environment) {
        // Only what was asked for is heard, so that nobody redirects queries at will.
        let was_asked = self.asked_ns.is_some_and(|asked_ns| now_ns.saturating_sub(asked_ns) < ADDRESS_RETRY_NS);
        if was_asked && station.address == self.hop.address && station.mac.is_unicast() {
            (self.mac, self.learnt_ns) = (Some(station.mac), now_ns);
            self.pending.retain(|pending| pending.deadline_ns > now_ns);
            self.send(environment);
        }
    }

    /// Takes a datagram that came from outside; if it answers a query under way, gives the query and the message for it.
    pub fn answer(
        &mut self,
        from: (Ipv4Addr, u16),
        port: u16,
        message: &[u8],
        now_ns: u64,
    ) -> Option<(Query, Vec<u8>)> {
        let packet = DnsPacket::new_checked(message).ok()?;
        if from != (self.hop.resolver, PORT) || !packet.flags().contains(DnsFlags::RESPONSE) {
            return None;
        }
        let place = self.pending.iter().position(|pending| {
            pending.is_sent
                && pending.deadline_ns > now_ns
                && pending.port == port
                && pending.message.get(..2) == message.get(..2)
                && is_same_question(pending, message)
        })?;
        let pending = self.pending.swap_remove(place);
        let mut message = message.to_vec();
        DnsPacket::new_unchecked(message.as_mut_slice()).set_transaction_id(pending.id);
        Some((pending.query, message))
    }
}

/// Whether an answer repeats the question (RFC 5452 9.1), or has none, as errors may.
fn is_same_question(pending: &Pending, message: &[u8]) -> bool {
    const QUESTIONS: core::ops::Range<usize> = 4..6;
    let question = super::message::HEADER..pending.head;
    match message.get(QUESTIONS) {
        Some([0, 0]) => true,
        Some([0, 1]) => pending.message.get(question.clone()) == message.get(question),
        _ => false,
    }
}
