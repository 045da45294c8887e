//! A connection that a filter remembers.

use super::{
    rules::{Direction, RuleRef},
    tcp::{self, Side},
};
use crate::{
    address::Family,
    packet::{FlowKey, Packet, TcpHeader, icmp, protocol, tcp_flags},
};

const SECOND_NS: u64 = 1_000_000_000;

/// How far a connection has come. TCP's states are those of RFC 9293 3.3.2 as a bystander sees them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum State {
    /// There is none: a free place.
    #[default]
    Free,
    /// UDP, ICMP echo and others: no answer yet.
    New,
    /// UDP, ICMP echo and others: packets went both ways.
    Answered,
    /// TCP: opened by one side.
    SynSent,
    /// TCP: accepted by the other side.
    SynReceived,
    /// TCP: open already when its first segment was seen, and the other side has not been heard yet.
    PickedUp,
    /// TCP: open.
    Established,
    /// TCP: one side has no more data.
    FinWait,
    /// TCP: neither has, and the last acknowledgement is due.
    LastAck,
    /// TCP: over, late packets may come.
    TimeWait,
    /// TCP: ended by a reset.
    Reset,
}

impl State {
    /// Whether packets of both sides have shown that it is wanted: such connections are never given up for new ones.
    #[must_use]
    pub const fn is_assured(self) -> bool {
        matches!(self, Self::Answered | Self::Established | Self::FinWait)
    }

    /// Whether the same addresses and ports may begin anew.
    const fn is_over(self) -> bool {
        matches!(self, Self::LastAck | Self::TimeWait | Self::Reset)
    }
}

/// How long a connection is remembered without packets, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// [`State::New`].
    pub new: u64,
    /// [`State::Answered`].
    pub answered: u64,
    /// [`State::SynSent`], [`State::SynReceived`] and [`State::PickedUp`].
    pub opening: u64,
    /// [`State::Established`]; RFC 5382 REQ-5 wants at least 2 hours and 4 minutes.
    pub established: u64,
    /// [`State::FinWait`] and [`State::TimeWait`].
    pub closing: u64,
    /// [`State::LastAck`].
    pub last_ack: u64,
    /// [`State::Reset`].
    pub reset: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            new: 30 * SECOND_NS,
            answered: 180 * SECOND_NS,
            opening: 60 * SECOND_NS,
            established: 7_440 * SECOND_NS,
            closing: 120 * SECOND_NS,
            last_ack: 30 * SECOND_NS,
            reset: 10 * SECOND_NS,
        }
    }
}

impl Timeouts {
    #[inline]
    const fn of(&self, state: State) -> u64 {
        match state {
            State::Free => 0,
            State::New => self.new,
            State::Answered => self.answered,
            State::SynSent | State::SynReceived | State::PickedUp => self.opening,
            State::Established => self.established,
            State::FinWait | State::TimeWait => self.closing,
            State::LastAck => self.last_ack,
            State::Reset => self.reset,
        }
    }
}

/// Both ends of a connection, as the guest sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConnectionKey([u64; 5]);

impl ConnectionKey {
    /// The connection that a packet of a flow belongs to.
    #[must_use]
    pub fn new(flow: &FlowKey, family: Family, direction: Direction, vlan: u16) -> Self {
        let source = (flow.source(), flow.source_port());
        let destination = (flow.destination(), flow.destination_port());
        let ((local, local_port), (remote, remote_port)) = match direction {
            Direction::Egress => (source, destination),
            Direction::Ingress => (destination, source),
        };
        let (first, second) = match flow.protocol() {
            protocol::TCP | protocol::UDP => (local_port, remote_port),
            protocol::ICMP | protocol::ICMPV6 => {
                let [kind, _] = flow.source_port().to_be_bytes();
                let asks = icmp::Message::of(flow.protocol(), kind) == icmp::Message::EchoRequest;
                // An echo is told by its identifier and by who asked.
                (flow.destination_port(), u16::from(asks == (direction == Direction::Egress)))
            }
            _ => (0, 0),
        };
        let ports = u64::from(first) << 48 | u64::from(second) << 32;
        let rest = u64::from(vlan) << 16 | (family as u64) << 8 | u64::from(flow.protocol());
        Self([(local >> 64) as u64, local as u64, (remote >> 64) as u64, remote as u64, ports | rest])
    }

    /// The packed words, for hashing.
    #[must_use]
    pub const fn words(&self) -> &[u64; 5] {
        &self.0
    }

    /// The address of who the guest talks with.
    #[must_use]
    pub const fn remote(&self) -> u128 {
        (self.0[2] as u128) << 64 | self.0[3] as u128
    }

    /// IP protocol.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.0[4] as u8
    }

    /// The family of its addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        if self.0[4] >> 8 & 0xff == Family::V4 as u64 { Family::V4 } else { Family::V6 }
    }
}

/// A packet does not fit its connection's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfState;

/// A connection: one cache line, which is all that a packet of a cached flow touches of it.
#[derive(Clone, Copy, Default, Debug)]
#[repr(align(64))]
pub struct Connection {
    /// Never given twice; 0 for a free place.
    pub id: u64,
    /// When it is forgotten if no packet comes.
    pub expires_ns: u64,
    /// The rules' generation under which it was allowed.
    pub generation: u64,
    /// What is known of each side's sequence numbers.
    pub(super) sides: [Side; 2],
    /// The rule that allows it.
    pub rule: RuleRef,
    /// Destination port of its first packet, or ICMP type.
    pub service: u16,
    /// How far it has come.
    pub state: State,
    /// Who opened it.
    pub initiator: Direction,
}

impl Connection {
    /// A connection that a packet opens. `head` is the packet's frame.
    #[must_use]
    pub fn open(packet: &Packet, head: &[u8], initiator: Direction, timeouts: &Timeouts, now_ns: u64) -> Self {
        let mut connection = Self { initiator, state: State::New, ..Self::default() };
        if packet.key.protocol() == protocol::TCP {
            connection.state = tcp::open(&mut connection.sides, packet, head, initiator);
        }
        connection.keep(timeouts, now_ns);
        connection
    }

    /// Whether a packet begins a connection anew where one has ended.
    #[must_use]
    pub const fn is_reopened_by(&self, packet: &TcpHeader) -> bool {
        self.state.is_over() && opens(packet)
    }

    /// Notes a packet that goes `direction`.
    ///
    /// # Errors
    /// When TCP's state forbids the segment; nothing is noted then.
    pub fn track(
        &mut self,
        packet: &Packet,
        head: &[u8],
        direction: Direction,
        timeouts: &Timeouts,
        now_ns: u64,
    ) -> Result<(), OutOfState> {
        if packet.fragment.is_some_and(|fragment| !fragment.is_first) {
            return Ok(());
        }
        if packet.key.protocol() == protocol::TCP {
            tcp::track(self, packet, head, direction)?;
        } else if direction != self.initiator {
            self.state = State::Answered;
        }
        self.keep(timeouts, now_ns);
        Ok(())
    }

    /// Notes a packet of a connection in its most common states; `false` if that takes [`Self::track`].
    #[inline]
    pub fn track_common(&mut self, packet: &Packet, direction: Direction, timeouts: &Timeouts, now_ns: u64) -> bool {
        if now_ns >= self.expires_ns {
            return false;
        }
        let timeout_ns = match self.state {
            State::Established => {
                if packet.tcp.flags & (tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST) != 0 {
                    return false;
                }
                tcp::note(&mut self.sides, &packet.tcp, direction);
                timeouts.established
            }
            State::Answered => timeouts.answered,
            State::New if direction == self.initiator => timeouts.new,
            _ => return false,
        };
        self.expires_ns = now_ns.saturating_add(timeout_ns);
        true
    }

    const fn keep(&mut self, timeouts: &Timeouts, now_ns: u64) {
        self.expires_ns = now_ns.saturating_add(timeouts.of(self.state));
    }
}

/// Whether a TCP segment asks to open a connection.
#[must_use]
pub const fn opens(segment: &TcpHeader) -> bool {
    segment.flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN) == tcp_flags::SYN
}

/// Whether a TCP segment can belong to a connection that is open.
#[must_use]
pub const fn continues(segment: &TcpHeader) -> bool {
    segment.flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST) == tcp_flags::ACK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_one_cache_line() {
        assert_eq!(size_of::<Connection>(), 64);
    }
}
