//! Connections between ports, with the bytes that are under way.

use alloc::{collections::VecDeque, string::String, vec::Vec};

/// Bytes that wait in each direction, at most.
pub(super) const ROOM: usize = 32 << 10;

/// A third port has the name of two others: the fault of whoever described it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two other ports have the name {0}, too: two ports of a name are connected, so give this one another")]
pub struct PortTaken(pub String);

/// All connections between ports.
#[derive(Debug, Default)]
pub struct Cables {
    cables: Vec<Cable>,
}

#[derive(Debug)]
struct Cable {
    name: String,
    ends: Vec<End>,
}

/// A port, with what it has sent.
#[derive(Debug)]
struct End {
    /// It is a console: nobody may make it wait, as guests wait for their consoles with interrupts off.
    is_terminal: bool,
    is_open: bool,
    sent: VecDeque<u8>,
}

/// A port among [`Cables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plug {
    cable: usize,
    end: usize,
}

impl Plug {
    const fn other(self) -> Self {
        Self { cable: self.cable, end: self.end ^ 1 }
    }
}

/// A program's end of a connection, whose other end is a guest's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort(Plug);

impl Cables {
    /// Adds an end for a program of the host, which is connected with the guest's port of this name.
    ///
    /// # Errors
    /// There are two ports of the name already.
    pub fn add_host(&mut self, name: &str) -> Result<HostPort, PortTaken> {
        self.plug(name, false).map(HostPort)
    }

    /// A program has come, or gone; what was under way to it is lost with that.
    pub fn set_host_open(&mut self, port: HostPort, is_open: bool) {
        self.set_open(port.0, is_open);
    }

    /// How many bytes a program may send now.
    #[must_use]
    pub fn host_room(&self, port: HostPort) -> usize {
        self.room(port.0)
    }

    /// Takes what a program sends, of which there is [room](Self::host_room) for all.
    pub fn host_send(&mut self, port: HostPort, bytes: &[u8]) {
        self.send(port.0, bytes);
    }

    /// Takes at most so many bytes of what the guest has sent.
    pub fn host_take(&mut self, port: HostPort, most: usize, into: &mut Vec<u8>) {
        self.take(port.0, most, into);
    }

    /// Adds a port; the second of its name is connected with the first.
    ///
    /// # Errors
    /// There are two already.
    pub(super) fn plug(&mut self, name: &str, is_terminal: bool) -> Result<Plug, PortTaken> {
        let end = End { is_terminal, is_open: false, sent: VecDeque::new() };
        match self.cables.iter_mut().zip(0..).find(|(cable, _)| cable.name == name) {
            Some((cable, place)) if cable.ends.len() < 2 => {
                cable.ends.push(end);
                Ok(Plug { cable: place, end: 1 })
            }
            Some(_) => Err(PortTaken(name.into())),
            None => {
                self.cables.push(Cable { name: name.into(), ends: [end].into() });
                Ok(Plug { cable: self.cables.len() - 1, end: 0 })
            }
        }
    }

    fn end(&self, plug: Plug) -> Option<&End> {
        self.cables.get(plug.cable)?.ends.get(plug.end)
    }

    fn end_mut(&mut self, plug: Plug) -> Option<&mut End> {
        self.cables.get_mut(plug.cable)?.ends.get_mut(plug.end)
    }

    /// The guest has opened a port, or closed it; what was under way there is lost with that.
    pub(super) fn set_open(&mut self, plug: Plug, is_open: bool) {
        let Some(end) = self.end_mut(plug) else { return };
        let was_open = core::mem::replace(&mut end.is_open, is_open);
        if was_open
            && !is_open
            && let Some(other) = self.end_mut(plug.other())
        {
            other.sent.clear();
        }
    }

    /// Whether the guest has opened a port.
    pub(super) fn is_open(&self, plug: Plug) -> bool {
        self.end(plug).is_some_and(|end| end.is_open)
    }

    /// Whether a port finds somebody at the other end, or still something from there.
    pub(super) fn is_connected(&self, plug: Plug) -> bool {
        self.end(plug.other()).is_some_and(|other| other.is_open || !other.sent.is_empty())
    }

    /// How many bytes a port may send now. A console may always, and old bytes make room.
    pub(super) fn room(&self, plug: Plug) -> usize {
        self.end(plug).map_or(0, |end| if end.is_terminal { ROOM } else { ROOM.saturating_sub(end.sent.len()) })
    }

    /// Takes what a port sends, of which there is room for all.
    pub(super) fn send(&mut self, plug: Plug, bytes: &[u8]) {
        let Some(end) = self.end_mut(plug) else { return };
        if end.sent.capacity() == 0 {
            // All at once, as otherwise it might grow to more.
            end.sent.reserve_exact(ROOM);
        }
        let too_many = (end.sent.len() + bytes.len()).saturating_sub(ROOM).min(end.sent.len());
        end.sent.drain(..too_many);
        end.sent.extend(bytes);
    }

    /// What waits for a port, if its guest has opened it.
    pub(super) fn waiting(&self, plug: Plug) -> usize {
        if self.is_open(plug) { self.end(plug.other()).map_or(0, |other| other.sent.len()) } else { 0 }
    }

    /// Takes at most so many bytes of what waits for a port.
    pub(super) fn take(&mut self, plug: Plug, most: usize, into: &mut Vec<u8>) {
        if let Some(other) = self.end_mut(plug.other()) {
            into.extend(other.sent.drain(..most.min(other.sent.len())));
        }
    }
}
