//! All connections, and whose they are.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{
    connection::{CALLED, CALLER, Connection, End, Side},
    packet::{Header, Operation, STREAM},
};
use crate::tables::Vsock;

/// The host's number (5.10.4).
pub const HOST_CID: u32 = 2;

/// Answers to packets of no connection that wait for a guest, at most; it asked for them, and misses more.
const MAX_REFUSALS: usize = 64;

/// Why a guest cannot have sockets: the fault of whoever described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// Another guest has the same number.
    #[error("another guest has the CID {0}, too: give each one of its own")]
    CidTaken(u32),
}

/// The number of a guest at a [`SocketHub`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketGuest(pub(super) usize);

/// Connections between the sockets of guests.
#[derive(Debug, Default)]
pub struct SocketHub {
    guests: Vec<Guest>,
    /// Places of connections, some of which are free.
    connections: Vec<Option<Connection>>,
}

#[derive(Debug)]
struct Guest {
    cid: u64,
    /// Those that it may be connected with.
    peers: Vec<u64>,
    /// How many connections it may have.
    limit: usize,
    /// Its driver takes packets.
    is_running: bool,
    /// Place of each connection, and its side there.
    table: BTreeMap<Key, (usize, Side)>,
    /// Connections that have something for it.
    queue: VecDeque<(usize, Side)>,
    refusals: VecDeque<Header>,
}

/// By what a guest knows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    own_port: u32,
    peer_cid: u64,
    peer_port: u32,
}

impl Guest {
    const fn new(cid: u64, peers: Vec<u64>, limit: usize) -> Self {
        Self {
            cid,
            peers,
            limit,
            is_running: false,
            table: BTreeMap::new(),
            queue: VecDeque::new(),
            refusals: VecDeque::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.table.len() >= self.limit
    }
}

impl SocketHub {
    /// Adds a guest with this number.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn add(&mut self, vsock: &Vsock, cid: u32) -> Result<SocketGuest, SocketError> {
        let number = u64::from(cid);
        if self.guests.iter().any(|guest| guest.cid == number) {
            return Err(SocketError::CidTaken(cid));
        }
        let peers = vsock.peers.iter().copied().map(u64::from).collect();
        Ok(self.push(Guest::new(number, peers, vsock.connections as usize)))
    }

    /// Adds the host's end, which may be connected with these guests. It counts as one that takes packets: they are in
    /// [`Self::take`], and it sends by [`Self::receive`].
    pub fn add_host(&mut self, guests: &[SocketGuest]) -> SocketGuest {
        let mut host = Guest::new(HOST_CID.into(), Vec::new(), 0);
        host.is_running = true;
        for guest in guests {
            if let Some(guest) = self.guests.get_mut(guest.0) {
                guest.peers.push(host.cid);
                host.peers.push(guest.cid);
                host.limit = host.limit.saturating_add(guest.limit);
            }
        }
        self.push(host)
    }

    fn push(&mut self, guest: Guest) -> SocketGuest {
        self.guests.push(guest);
        SocketGuest(self.guests.len() - 1)
    }

    /// The number of a guest.
    #[must_use]
    pub fn cid(&self, guest: SocketGuest) -> u64 {
        self.guests.get(guest.0).map_or(0, |guest| guest.cid)
    }

    /// A guest's driver takes packets, or does so no longer: its connections end then.
    pub(super) fn set_running(&mut self, guest: SocketGuest, is_running: bool) {
        let Some(own) = self.guests.get_mut(guest.0) else { return };
        own.is_running = is_running;
        if is_running {
            return;
        }
        own.refusals.clear();
        let places: Vec<_> = own.table.values().copied().collect();
        for (place, side) in places {
            if let Some(Some(connection)) = self.connections.get_mut(place) {
                connection.leave(side);
            }
            self.settle(place);
        }
    }

    /// Takes a packet that a guest has sent, with its data.
    pub fn receive(&mut self, guest: SocketGuest, header: &Header, data: &[u8]) {
        let Some(own) = self.guests.get(guest.0) else { return };
        if header.source_cid.get() != own.cid {
            // In another's name: there is nobody to answer.
            return;
        }
        let operation = Operation::of(header).filter(|_| header.kind.get() == STREAM);
        match (operation, own.table.get(&key(header)).copied()) {
            (Some(operation), Some((place, side))) => {
                if let Some(Some(connection)) = self.connections.get_mut(place) {
                    connection.receive(side, operation, header, data);
                }
                self.settle(place);
            }
            (Some(Operation::Reset), None) => {}
            (Some(Operation::Request), None) if self.connect(guest.0, header).is_some() => {}
            _ => self.refuse(guest, header),
        }
    }

    /// Answers that there is no such connection.
    pub(super) fn refuse(&mut self, guest: SocketGuest, header: &Header) {
        let own = self.guests.get_mut(guest.0);
        if let Some(own) = own.filter(|own| own.refusals.len() < MAX_REFUSALS) {
            own.refusals.push_back(header.refusal());
        }
    }

    /// Begins a connection; `None` if it may not be, or not now.
    fn connect(&mut self, caller: usize, header: &Header) -> Option<()> {
        let (own_cid, peer_cid) = (header.source_cid.get(), header.destination_cid.get());
        let called = self.guests.iter().position(|guest| guest.cid == peer_cid).filter(|called| *called != caller)?;
        let (from, to) = (self.guests.get(caller)?, self.guests.get(called)?);
        let is_let = from.peers.contains(&peer_cid) && to.peers.contains(&own_cid);
        let there =
            Key { own_port: header.destination_port.get(), peer_cid: own_cid, peer_port: header.source_port.get() };
        if !is_let || !to.is_running || from.is_full() || to.is_full() || to.table.contains_key(&there) {
            return None;
        }
        let ends = [
            End::new(caller, own_cid, header.source_port.get()),
            End::new(called, peer_cid, header.destination_port.get()),
        ];
        let [first, second] = ends;
        let connection = Some(Connection::new(first, second, header));
        let place = match self.connections.iter().position(Option::is_none) {
            Some(place) => {
                self.connections.get_mut(place).map(|free| *free = connection)?;
                place
            }
            None => {
                self.connections.push(connection);
                self.connections.len() - 1
            }
        };
        self.guests.get_mut(caller)?.table.insert(key(header), (place, CALLER));
        self.guests.get_mut(called)?.table.insert(there, (place, CALLED));
        self.settle(place);
        Some(())
    }

    /// Lets the guests know that a connection has something for them, and forgets one that is over.
    fn settle(&mut self, place: usize) {
        let Some(slot) = self.connections.get_mut(place) else { return };
        let Some(connection) = slot else { return };
        for side in [CALLER, CALLED] {
            let has_packet = connection.has_packet(side);
            let end = connection.end_mut(side);
            if has_packet && !end.is_queued {
                end.is_queued = true;
                if let Some(guest) = self.guests.get_mut(end.guest) {
                    guest.queue.push_back((place, side));
                }
            }
        }
        if connection.is_over() {
            for side in [CALLER, CALLED] {
                if let Some(guest) = self.guests.get_mut(connection.end(side).guest) {
                    guest.table.retain(|_, (other, _)| *other != place);
                    guest.queue.retain(|(other, _)| *other != place);
                }
            }
            *slot = None;
        }
    }

    /// Whether there is a packet for a guest.
    pub(super) fn has_packets(&self, guest: SocketGuest) -> bool {
        self.guests.get(guest.0).is_some_and(|guest| !guest.refusals.is_empty() || !guest.queue.is_empty())
    }

    /// The next packet for a guest: its header, and at most `room` bytes of data in `data`, which is empty before. All of
    /// its connections have their turns.
    pub fn take(&mut self, guest: SocketGuest, room: usize, data: &mut VecDeque<u8>) -> Option<Header> {
        let own = self.guests.get_mut(guest.0)?;
        if let Some(refusal) = own.refusals.pop_front() {
            return Some(refusal);
        }
        while let Some((place, side)) = self.guests.get_mut(guest.0)?.queue.pop_front() {
            let Some(Some(connection)) = self.connections.get_mut(place) else { continue };
            connection.end_mut(side).is_queued = false;
            let header = connection.packet(side, room, data);
            self.settle(place);
            if header.is_some() {
                return header;
            }
        }
        None
    }
}

/// By what the sender of a packet knows its connection.
fn key(header: &Header) -> Key {
    Key {
        own_port: header.source_port.get(),
        peer_cid: header.destination_cid.get(),
        peer_port: header.destination_port.get(),
    }
}
