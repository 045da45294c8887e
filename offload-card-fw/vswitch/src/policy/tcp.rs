//! TCP connections as a bystander sees them: states, and the windows in which resets count.
//!
//! Segments outside the window pass, since their receiver judges them better, but they change nothing here. A reset
//! must lie in the window (RFC 9293 3.10.7.4), so that nobody who does not see the connection can end it.

use super::{
    connection::{Connection, OutOfState, State},
    rules::Direction,
};
use crate::{
    bytes,
    packet::{Packet, TcpHeader, tcp_flags},
};

/// The largest window scale (RFC 7323 2.3), assumed where the opening was not seen.
const MAX_SCALE: u8 = 14;

/// What one side has sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Side {
    /// Behind the last byte that it sent.
    end: u32,
    /// The next byte that it expects.
    acknowledged: u32,
    /// How many bytes it takes from there.
    window: u32,
    /// By how many bits its windows are shifted.
    scale: u8,
    /// Whether it said that it has no more data.
    has_finished: bool,
}

/// The state after a first segment, which is a SYN unless connections may be picked up amid: then any window is possible.
pub fn open(sides: &mut [Side; 2], packet: &Packet, head: &[u8], from: Direction) -> State {
    let segment = &packet.tcp;
    let (sender, receiver) = both(sides, from);
    sender.end = segment.end();
    if segment.flags & tcp_flags::SYN != 0 {
        sender.scale = window_scale(packet, head);
        sender.window = u32::from(segment.window);
        return State::SynSent;
    }
    *receiver =
        Side { end: segment.acknowledgement, acknowledged: segment.sequence, scale: MAX_SCALE, ..Side::default() };
    receiver.window = u32::from(u16::MAX) << MAX_SCALE;
    sender.scale = MAX_SCALE;
    sender.acknowledged = segment.acknowledgement;
    sender.window = u32::from(segment.window) << MAX_SCALE;
    sender.has_finished = segment.flags & tcp_flags::FIN != 0;
    State::PickedUp
}

/// Notes a segment and moves to the next state.
pub fn track(connection: &mut Connection, packet: &Packet, head: &[u8], from: Direction) -> Result<(), OutOfState> {
    let segment = &packet.tcp;
    let is_set = |flag| segment.flags & flag != 0;
    if is_set(tcp_flags::RST) {
        return reset(connection, segment, from);
    }
    if is_set(tcp_flags::SYN) {
        return open_further(connection, packet, head, from);
    }
    if connection.state == State::SynSent && from == connection.initiator || connection.state == State::Reset {
        return Err(OutOfState);
    }
    note(&mut connection.sides, segment, from);
    let (sender, receiver) = both(&mut connection.sides, from);
    if is_set(tcp_flags::FIN) && sender.end == segment.end() {
        sender.has_finished = true;
    }
    let has_acknowledged_all = sender.acknowledged == receiver.end;
    connection.state = match (connection.state, sender.has_finished, receiver.has_finished) {
        (State::SynReceived, false, false) if from == connection.initiator && has_acknowledged_all => {
            State::Established
        }
        (State::PickedUp, ..) if from == connection.initiator => State::PickedUp,
        (State::PickedUp, false, false) => State::Established,
        (State::PickedUp, true, true) => State::LastAck,
        (State::PickedUp, ..) | (State::SynReceived | State::Established, true, false) => State::FinWait,
        (State::FinWait, true, true) => State::LastAck,
        (State::LastAck, true, true) if has_acknowledged_all && !is_set(tcp_flags::FIN) => State::TimeWait,
        (state, ..) => state,
    };
    Ok(())
}

/// Notes sequence numbers, as far as they lie in the window.
#[inline]
pub fn note(sides: &mut [Side; 2], segment: &TcpHeader, from: Direction) {
    let (sender, receiver) = both(sides, from);
    let end = segment.end();
    if is_after(end, sender.end) && is_within(end, receiver.acknowledged, receiver.window.max(1)) {
        sender.end = end;
    }
    if segment.flags & tcp_flags::ACK != 0
        && !is_after(segment.acknowledgement, receiver.end)
        && !is_after(sender.acknowledged, segment.acknowledgement)
    {
        sender.acknowledged = segment.acknowledgement;
        sender.window = u32::from(segment.window) << sender.scale;
    }
}

/// A segment with SYN in a connection that is known.
fn open_further(connection: &mut Connection, packet: &Packet, head: &[u8], from: Direction) -> Result<(), OutOfState> {
    let segment = &packet.tcp;
    let has_ack = segment.flags & tcp_flags::ACK != 0;
    let is_initiator = from == connection.initiator;
    let (sender, receiver) = both(&mut connection.sides, from);
    let is_repeated = sender.end == segment.end();
    match (connection.state, has_ack, is_initiator) {
        // A new attempt with another number, or the same once more.
        (State::SynSent, false, true) => sender.end = segment.end(),
        // An answer, or the other side opens at the same time (RFC 9293 3.5).
        (State::SynSent, _, false) => {
            if has_ack && segment.acknowledgement != receiver.end {
                return Err(OutOfState);
            }
            *sender = Side {
                end: segment.end(),
                acknowledged: receiver.end,
                window: u32::from(segment.window),
                scale: window_scale(packet, head),
                has_finished: false,
            };
            receiver.acknowledged = segment.sequence;
            if !scales(packet, head) {
                receiver.scale = 0;
            }
            connection.state = State::SynReceived;
        }
        (State::SynReceived, ..) if is_repeated => {}
        // The last acknowledgement of the opening was lost, or a duplicate is late.
        (State::Established, true, false) if is_repeated => {}
        _ => return Err(OutOfState),
    }
    Ok(())
}

/// A reset counts if it lies where its receiver expects data, or answers the SYN (RFC 9293 3.10.7.3).
fn reset(connection: &mut Connection, segment: &TcpHeader, from: Direction) -> Result<(), OutOfState> {
    let is_initiator = from == connection.initiator;
    let (sender, receiver) = both(&mut connection.sides, from);
    let counts = if connection.state == State::SynSent {
        is_initiator && segment.sequence == sender.end
            || !is_initiator && segment.flags & tcp_flags::ACK != 0 && segment.acknowledgement == receiver.end
    } else {
        let window = receiver.window.max(sender.end.wrapping_sub(receiver.acknowledged).min(i32::MAX as u32)).max(1);
        is_within(segment.sequence, receiver.acknowledged, window)
    };
    if !counts {
        return Err(OutOfState);
    }
    connection.state = State::Reset;
    Ok(())
}

/// Sender and receiver of a segment.
#[inline]
const fn both(sides: &mut [Side; 2], from: Direction) -> (&mut Side, &mut Side) {
    let [local, remote] = sides;
    match from {
        Direction::Egress => (local, remote),
        Direction::Ingress => (remote, local),
    }
}

/// Whether `number` comes after `other` in sequence space (RFC 9293 3.4).
#[inline]
const fn is_after(number: u32, other: u32) -> bool {
    other.wrapping_sub(number).cast_signed() < 0
}

/// Whether `number` is one of `from` to `from + length`.
#[inline]
const fn is_within(number: u32, from: u32, length: u32) -> bool {
    number.wrapping_sub(from) <= length
}

fn scales(packet: &Packet, head: &[u8]) -> bool {
    scale_option(packet, head).is_some()
}

fn window_scale(packet: &Packet, head: &[u8]) -> u8 {
    scale_option(packet, head).unwrap_or(0).min(MAX_SCALE)
}

/// The window scale option (RFC 7323 2.2) of a SYN.
fn scale_option(packet: &Packet, head: &[u8]) -> Option<u8> {
    let start = usize::from(packet.transport);
    let length = usize::from(bytes::get_u8(head, start + 12)? >> 4) * 4;
    let mut options = head.get(start + 20..start + length)?;
    loop {
        options = match *options {
            [3, 3, scale, ..] => return Some(scale),
            [1, ref rest @ ..] => rest,
            [kind, length, ..] if kind != 0 && length >= 2 => options.get(usize::from(length)..)?,
            _ => return None,
        };
    }
}
