//! A connection between two ends, each of which speaks with the card only.
//!
//! The card takes each end's data into a pipe of bounded size, gives it credit for the room there, and sends it to the other
//! end as that one's credit allows. So no end can make another wait for anything but itself, and what an end claims about its
//! own credit is its own affair.

use alloc::collections::VecDeque;

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};

use super::packet::{Header, Operation, STREAM, Shutdown};

/// Bytes that wait in each direction of a connection, at most.
pub(super) const ROOM: u32 = 32 << 10;
/// How much room an end must have got back to be told by a packet of its own.
const WORTH_TELLING: u32 = ROOM / 4;

bitflags! {
    /// What is to be said to an end when it next takes a packet.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Owed: u8 {
        const REQUEST = 1;
        const RESPONSE = 1 << 1;
        const RESET = 1 << 2;
        const CREDIT = 1 << 3;
    }
}

/// One of the two ends: who asked for the connection is [`CALLER`].
pub(super) type Side = usize;
pub(super) const CALLER: Side = 0;
pub(super) const CALLED: Side = 1;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    ends: [End; 2],
    /// Whether the called end has answered.
    is_open: bool,
}

/// An end, with the pipe for what it sends.
#[derive(Debug)]
pub(super) struct End {
    /// The guest at this end.
    pub guest: usize,
    pub cid: u64,
    pub port: u32,
    owed: Owed,
    /// Among those of its guest that have something to take.
    pub is_queued: bool,
    /// Nothing comes from there any more, and nothing goes there.
    is_gone: bool,
    pipe: VecDeque<u8>,
    /// Bytes taken out of the pipe, and how many it was told of; 2^32 is 0 again.
    taken: u32,
    told_taken: u32,
    /// It sends no more; it receives no more.
    stopped: Shutdown,
    /// What it was told of the other end.
    told: Shutdown,
    /// Bytes sent to it; its own room, and how many bytes it has taken out of there.
    sent: u32,
    room: u32,
    forwarded: u32,
    /// It was asked for credit, and has not said anything since.
    is_asked: bool,
}

impl End {
    pub(super) const fn new(guest: usize, cid: u64, port: u32) -> Self {
        Self {
            guest,
            cid,
            port,
            owed: Owed::empty(),
            is_queued: false,
            is_gone: false,
            pipe: VecDeque::new(),
            taken: 0,
            told_taken: 0,
            stopped: Shutdown::empty(),
            told: Shutdown::empty(),
            sent: 0,
            room: 0,
            forwarded: 0,
            is_asked: false,
        }
    }

    /// Bytes that it can take. A driver that claims nonsense gets what its numbers say, but never more than it has room for
    /// by them.
    fn credit(&self) -> usize {
        self.room.saturating_sub(self.sent.wrapping_sub(self.forwarded)) as usize
    }
}

impl Connection {
    /// A connection that one end asks the other for; `header` is the packet by which it does.
    pub(super) fn new(caller: End, called: End, header: &Header) -> Self {
        let mut connection = Self { ends: [caller, called], is_open: false };
        connection.note_credit(CALLER, header);
        connection.end_mut(CALLED).owed = Owed::REQUEST;
        connection
    }

    /// One of the ends.
    pub(super) const fn end(&self, side: Side) -> &End {
        let [caller, called] = &self.ends;
        if side == CALLER { caller } else { called }
    }

    pub(super) const fn end_mut(&mut self, side: Side) -> &mut End {
        let [caller, called] = &mut self.ends;
        if side == CALLER { caller } else { called }
    }

    fn note_credit(&mut self, side: Side, header: &Header) {
        let end = self.end_mut(side);
        (end.room, end.forwarded, end.is_asked) = (header.room.get(), header.forwarded.get(), false);
    }

    /// Takes a packet of an end's, with its data.
    pub(super) fn receive(&mut self, side: Side, operation: Operation, header: &Header, data: &[u8]) {
        if self.end(side).is_gone {
            return;
        }
        self.note_credit(side, header);
        match operation {
            Operation::Response if side == CALLED && !self.is_open => {
                self.is_open = true;
                self.end_mut(CALLER).owed |= Owed::RESPONSE;
            }
            // Whoever asks twice, or answers what was not asked, has lost its way.
            Operation::Request | Operation::Response => self.abort(),
            Operation::Reset => self.leave(side),
            // Not before the answer.
            _ if !self.is_open => self.abort(),
            Operation::Data => self.take_in(side, data),
            Operation::Shutdown => self.stop(side, Shutdown::from_bits_truncate(header.flags.get())),
            Operation::CreditUpdate => {}
            Operation::CreditRequest => self.end_mut(side).owed |= Owed::CREDIT,
        }
    }

    fn take_in(&mut self, side: Side, data: &[u8]) {
        let is_heard = !self.end(other(side)).stopped.contains(Shutdown::RECEIVE) && !self.end(other(side)).is_gone;
        let end = self.end_mut(side);
        if end.stopped.contains(Shutdown::SEND) || data.len() > (ROOM as usize).saturating_sub(end.pipe.len()) {
            // More than it had credit for.
            self.abort();
        } else if is_heard {
            if end.pipe.capacity() == 0 {
                // All at once, as otherwise it might grow to more.
                end.pipe.reserve_exact(ROOM as usize);
            }
            end.pipe.extend(data);
        } else {
            end.taken = end.taken.wrapping_add(data.len() as u32);
        }
    }

    /// An end does some things no more.
    fn stop(&mut self, side: Side, what: Shutdown) {
        self.end_mut(side).stopped |= what;
        if what.contains(Shutdown::RECEIVE) {
            self.discard(other(side));
        }
        if self.end(side).stopped == Shutdown::all() {
            // It is done, and waits to be told so (5.10.6.5); what it has sent is in the pipe.
            self.end_mut(side).owed = Owed::RESET;
        }
    }

    /// What an end has sent is for nobody any more.
    fn discard(&mut self, side: Side) {
        let end = self.end_mut(side);
        end.taken = end.taken.wrapping_add(end.pipe.len() as u32);
        end.pipe = VecDeque::new();
    }

    /// An end is gone, in good order if it has said that it sends no more.
    pub(super) fn leave(&mut self, side: Side) {
        let is_orderly = self.end(side).stopped.contains(Shutdown::SEND);
        let end = self.end_mut(side);
        (end.is_gone, end.stopped, end.owed) = (true, Shutdown::all(), Owed::empty());
        self.discard(other(side));
        if !is_orderly || !self.is_open {
            self.abort();
        }
    }

    /// Ends the connection at once: nothing that is under way arrives.
    fn abort(&mut self) {
        for side in [CALLER, CALLED] {
            self.discard(side);
            let end = self.end_mut(side);
            if !end.is_gone {
                // One that was not asked yet need not be told.
                end.is_gone = end.owed.contains(Owed::REQUEST);
                end.owed = if end.is_gone { Owed::empty() } else { Owed::RESET };
            }
        }
    }

    /// Whether nobody has anything to do with it any more.
    pub(super) const fn is_over(&self) -> bool {
        let [caller, called] = &self.ends;
        caller.is_gone && called.is_gone
    }

    /// What an end does not know of the other one's stopping.
    fn news(&self, side: Side) -> Shutdown {
        let from = self.end(other(side));
        let mut stopped = from.stopped;
        if !from.pipe.is_empty() {
            // First comes all that it has sent.
            stopped -= Shutdown::SEND;
        }
        if stopped == self.end(side).told { Shutdown::empty() } else { stopped }
    }

    /// What there is to say to an end, and how many bytes of data.
    fn next(&self, side: Side) -> Option<(Operation, usize)> {
        let end = self.end(side);
        if end.is_gone {
            return None;
        }
        let simple = [
            (Owed::RESET, Operation::Reset),
            (Owed::REQUEST, Operation::Request),
            (Owed::RESPONSE, Operation::Response),
        ];
        if let Some((_, operation)) = simple.into_iter().find(|(owed, _)| end.owed.contains(*owed)) {
            return Some((operation, 0));
        }
        let waiting = self.end(other(side)).pipe.len();
        if !self.is_open || side == CALLED && end.owed.contains(Owed::REQUEST) {
            return None;
        }
        match waiting.min(end.credit()) {
            0 if !self.news(side).is_empty() => Some((Operation::Shutdown, 0)),
            0 if end.owed.contains(Owed::CREDIT) || end.taken.wrapping_sub(end.told_taken) >= WORTH_TELLING => {
                Some((Operation::CreditUpdate, 0))
            }
            0 if waiting > 0 && !end.is_asked => Some((Operation::CreditRequest, 0)),
            0 => None,
            bytes => Some((Operation::Data, bytes)),
        }
    }

    /// Whether there is something to say to an end.
    pub(super) fn has_packet(&self, side: Side) -> bool {
        self.next(side).is_some()
    }

    /// The next packet for an end: its header, and at most `room` bytes of data in `data`, which is empty before.
    pub(super) fn packet(&mut self, side: Side, room: usize, data: &mut VecDeque<u8>) -> Option<Header> {
        let (operation, bytes) = self.next(side)?;
        let news = self.news(side);
        let from = self.end_mut(other(side));
        if operation == Operation::Data {
            data.extend(from.pipe.drain(..bytes.min(room)));
            from.taken = from.taken.wrapping_add(data.len() as u32);
        }
        let (source_cid, source_port) = (from.cid, from.port);
        let end = self.end_mut(side);
        let mut flags = Shutdown::empty();
        match operation {
            Operation::Request => end.owed -= Owed::REQUEST,
            Operation::Response => end.owed -= Owed::RESPONSE,
            Operation::Reset => (end.is_gone, end.owed) = (true, Owed::empty()),
            Operation::Shutdown => (end.told, flags) = (news, news),
            Operation::Data => end.sent = end.sent.wrapping_add(data.len() as u32),
            Operation::CreditUpdate => {}
            Operation::CreditRequest => end.is_asked = true,
        }
        // Every packet says it (5.10.6.3).
        end.owed -= Owed::CREDIT;
        end.told_taken = end.taken;
        Some(Header {
            source_cid: U64::new(source_cid),
            destination_cid: U64::new(end.cid),
            source_port: U32::new(source_port),
            destination_port: U32::new(end.port),
            len: U32::new(data.len() as u32),
            kind: U16::new(STREAM),
            operation: U16::new(operation as u16),
            flags: U32::new(flags.bits()),
            room: U32::new(ROOM),
            forwarded: U32::new(end.taken),
        })
    }
}

/// The other side.
pub(super) const fn other(side: Side) -> Side {
    if side == CALLER { CALLED } else { CALLER }
}
