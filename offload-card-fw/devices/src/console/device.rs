//! A console device and its queues.

use alloc::{string::String, vec::Vec};

use dragonfly_vhost_user::{ConfigError, Device, RingConfig};
use dragonfly_virtqueue::{Chain, GuestMemory, QueueError};

use super::{
    cables::{Cables, Plug, PortTaken, ROOM},
    control::{DEVICE_READY, Message, Owed, PORT_OPEN, PORT_READY, Told},
};
use crate::{
    ring::{self, Ring},
    serve::{Serve, Service},
    tables::Console,
};

// virtio 1.2 5.3.3.
const F_SIZE: u64 = 1;
const F_MULTIPORT: u64 = 1 << 1;

/// Buffers taken from or given to a ring in one turn.
const BATCH: usize = 32;

/// A console device: a guest's ports.
#[derive(Debug)]
pub struct ConsoleDevice {
    name: String,
    ports: Vec<Port>,
    columns: u16,
    rows: u16,
    features: u64,
    rings: Vec<Slot>,
    chain: Chain,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Port {
    name: String,
    plug: Plug,
    is_terminal: bool,
    owed: Owed,
    /// The driver knows it.
    is_ready: bool,
    /// Whether somebody is at its other end, as far as the driver was told; nobody knows after the card's death.
    told_connected: Option<bool>,
    /// The driver has been using it with another card, so it may have it open.
    is_resumed: bool,
    /// Bytes of the next buffer that were sent already: there was no room for more.
    sent: usize,
}

#[derive(Debug, Default)]
struct Slot {
    ring: Ring,
    /// There is something for the guest, but no buffer; or a buffer of the guest's, but no room for what is in it.
    waits: bool,
}

/// What a queue is for (5.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// What a port receives, by its place.
    Receive(usize),
    Transmit(usize),
    /// What the card tells.
    Tell,
    /// What the driver tells.
    Listen,
    /// Nothing, by what was negotiated.
    Nothing,
}

impl ConsoleDevice {
    /// The device of a guest, whose ports are connected by `cables`.
    ///
    /// # Errors
    /// A name is taken twice already. Ports before it are there.
    pub fn new(console: &Console, cables: &mut Cables) -> Result<Self, PortTaken> {
        let mut ports = Vec::new();
        for name in &console.ports {
            let is_terminal = console.terminal.as_ref() == Some(name);
            ports.push(Port {
                name: name.clone(),
                plug: cables.plug(name, is_terminal)?,
                is_terminal,
                owed: Owed::empty(),
                is_ready: false,
                told_connected: None,
                is_resumed: false,
                sent: 0,
            });
        }
        let queues = 2 * (ports.len() + 1);
        Ok(Self {
            name: console.name.clone(),
            ports,
            columns: console.columns,
            rows: console.rows,
            features: 0,
            rings: (0..queues).map(|_| Slot::default()).collect(),
            chain: Chain::new(),
            bytes: Vec::new(),
        })
    }

    const fn has_ports(&self) -> bool {
        self.features & F_MULTIPORT != 0
    }

    /// The queues of the first port come first, then those for control, then the other ports'.
    fn role(&self, index: u16) -> Role {
        let index = usize::from(index);
        let port = match index / 2 {
            0 => 0,
            _ if !self.has_ports() => return Role::Nothing,
            1 if index == 2 => return Role::Tell,
            1 => return Role::Listen,
            pair => pair - 1,
        };
        match index % 2 {
            _ if port >= self.ports.len() => Role::Nothing,
            0 => Role::Receive(port),
            _ => Role::Transmit(port),
        }
    }

    /// Gives the guest what has come for a port.
    fn receive<M: GuestMemory>(
        &mut self,
        cables: &mut Cables,
        index: u16,
        port: usize,
        memory: &M,
    ) -> Result<Service, QueueError> {
        let Some(port) = self.ports.get(port) else { return Ok(Service::default()) };
        let Some(slot) = self.rings.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut done = 0;
        slot.waits = false;
        while done < BATCH && cables.waiting(port.plug) > 0 {
            if !ring.pop_into(&mut self.chain)? {
                slot.waits = true;
                break;
            }
            self.bytes.clear();
            cables.take(port.plug, self.chain.writable_len().min(ROOM as u64) as usize, &mut self.bytes);
            // What is written to no memory is lost: the driver's own.
            let is_written = self.chain.writer(memory).write_all(&self.bytes).is_ok();
            ring.stage(self.chain.id(), if is_written { self.bytes.len() as u32 } else { 0 })?;
            done += 1;
        }
        ring::finish(&mut ring, done)
    }

    /// Takes what the guest sends by a port, as far as there is room.
    fn transmit<M: GuestMemory>(
        &mut self,
        cables: &mut Cables,
        index: u16,
        port: usize,
        memory: &M,
    ) -> Result<Service, QueueError> {
        let Some(port) = self.ports.get_mut(port) else { return Ok(Service::default()) };
        let Some(slot) = self.rings.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let (mut done, mut has_worked, mut budget) = (0, false, ROOM);
        slot.waits = false;
        while done < BATCH && budget > 0 && ring.pop_into(&mut self.chain)? {
            let mut reader = self.chain.reader(memory);
            // A driver that has made the buffer shorter since loses what it has now.
            let is_there = reader.skip(port.sent as u64).is_ok();
            let len = reader.remaining().min(cables.room(port.plug).min(budget) as u64) as usize;
            self.bytes.clear();
            self.bytes.resize(len, 0);
            if is_there && reader.read_exact(&mut self.bytes).is_ok() {
                cables.send(port.plug, &self.bytes);
                (port.sent, budget, has_worked) = (port.sent + len, budget - len, has_worked || len > 0);
                if reader.remaining() > 0 {
                    ring.unpop(self.chain.id())?;
                    slot.waits = cables.room(port.plug) == 0;
                    break;
                }
            }
            port.sent = 0;
            ring.stage(self.chain.id(), 0)?;
            done += 1;
        }
        let service = ring::finish(&mut ring, done)?;
        Ok(Service { has_worked: has_worked || service.has_worked, ..service })
    }

    /// Tells the driver what it does not know of its ports.
    fn tell<M: GuestMemory>(&mut self, cables: &Cables, memory: &M) -> Result<Service, QueueError> {
        let Some(slot) = self.rings.get_mut(2) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut done = 0;
        slot.waits = false;
        for (number, port) in (0..).zip(&mut self.ports) {
            let is_connected = cables.is_connected(port.plug);
            // A console is always connected.
            port.owed.set(Owed::OPEN, port.is_ready && !port.is_terminal && port.told_connected != Some(is_connected));
            while let Some(owed) = port.owed.first() {
                if !ring.pop_into(&mut self.chain)? {
                    slot.waits = true;
                    break;
                }
                let (columns, rows) = (self.columns, self.rows);
                let message = owed.message(&Told { number, name: &port.name, columns, rows, is_connected });
                // One that does not fit into the driver's buffer is lost.
                let mut writer = self.chain.writer(memory);
                let written = if writer.write_all(&message).is_ok() { writer.written() } else { 0 };
                ring.stage(self.chain.id(), written)?;
                port.owed -= owed;
                if owed == Owed::OPEN {
                    port.told_connected = Some(is_connected);
                }
                done += 1;
            }
        }
        ring::finish(&mut ring, done)
    }

    /// Hears what the driver says of its ports; what makes no sense is left alone.
    fn listen<M: GuestMemory>(&mut self, cables: &mut Cables, memory: &M) -> Result<Service, QueueError> {
        let Some(slot) = self.rings.get_mut(3) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut done = 0;
        while done < BATCH && ring.pop_into(&mut self.chain)? {
            if let Ok(Message { port, event, value }) = self.chain.reader(memory).read_value() {
                let (is_so, place) = (value.get() == 1, port.get() as usize);
                match (event.get(), self.ports.get_mut(place)) {
                    (DEVICE_READY, _) if is_so => self.ports.iter_mut().for_each(|port| port.owed |= Owed::ADD),
                    (PORT_READY, Some(port)) if is_so => {
                        (port.is_ready, port.told_connected) = (true, Some(false));
                        port.owed |= Owed::NAME;
                        port.owed.set(Owed::CONSOLE | Owed::SIZE, port.is_terminal);
                    }
                    (PORT_OPEN, Some(port)) => cables.set_open(port.plug, is_so),
                    _ => {}
                }
            }
            ring.stage(self.chain.id(), 0)?;
            done += 1;
        }
        ring::finish(&mut ring, done)
    }
}

impl Device for ConsoleDevice {
    type RingError = QueueError;

    fn features(&self) -> u64 {
        ring::OFFERED.bits() | F_SIZE | F_MULTIPORT
    }

    fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    fn queues(&self) -> u16 {
        // Two for each port of a machine file, which has few, and two.
        self.rings.len() as u16
    }

    /// `struct virtio_console_config` as far as `max_nr_ports` (5.3.4).
    fn read_config(&self, offset: usize, into: &mut [u8]) {
        let [columns, rows] = [self.columns, self.rows].map(u16::to_le_bytes);
        let config = [columns, rows].concat().into_iter().chain((self.ports.len() as u32).to_le_bytes());
        let mut config = config.skip(offset);
        into.fill_with(|| config.next().unwrap_or(0));
    }

    fn write_config(&mut self, _offset: usize, _from: &[u8]) -> Result<(), ConfigError> {
        Err(ConfigError)
    }

    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), QueueError> {
        let features = self.features;
        if self.role(index) == Role::Tell && config.base & 0x7fff != 0 {
            // What the driver has said before is not known: it may have all ports open, and says so no more.
            self.ports.iter_mut().for_each(|port| (port.is_ready, port.is_resumed) = (true, true));
        }
        self.rings.get_mut(usize::from(index)).map_or(Ok(()), |slot| slot.ring.start(config, features))
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        if let Role::Transmit(port) = self.role(index)
            && let Some(port) = self.ports.get_mut(port)
        {
            port.sent = 0;
        }
        self.rings.get_mut(usize::from(index)).map_or(0, |slot| {
            slot.waits = false;
            slot.ring.stop()
        })
    }

    fn reset(&mut self) {
        self.features = 0;
        for port in &mut self.ports {
            (port.owed, port.told_connected, port.sent) = (Owed::empty(), None, 0);
            (port.is_ready, port.is_resumed) = (false, false);
        }
    }

    /// A buffer that was not given back is looked at anew.
    fn inflight_len(&self, _queue_size: u16) -> Option<u64> {
        None
    }
}

impl Serve for ConsoleDevice {
    type Shared = Cables;

    fn name(&self) -> &str {
        &self.name
    }

    fn serve<M: GuestMemory>(
        &mut self,
        cables: &mut Cables,
        index: u16,
        memory: &M,
        _now_ns: u64,
    ) -> Result<Service, QueueError> {
        match self.role(index) {
            Role::Receive(port) => self.receive(cables, index, port, memory),
            Role::Transmit(port) => self.transmit(cables, index, port, memory),
            Role::Tell => self.tell(cables, memory),
            Role::Listen => self.listen(cables, memory),
            Role::Nothing => Ok(Service::default()),
        }
    }

    fn runs(&self, index: u16) -> bool {
        self.role(index) != Role::Nothing && self.rings.get(usize::from(index)).is_some_and(|slot| slot.ring.runs())
    }

    /// New buffers matter only where something waits for them, and none help where there is no room.
    fn enable_kicks<M: GuestMemory>(&mut self, index: u16, memory: &M) -> bool {
        let role = self.role(index);
        let Some(slot) = self.rings.get_mut(usize::from(index)) else { return false };
        let matters = match role {
            Role::Receive(_) | Role::Tell => slot.waits,
            Role::Transmit(_) => !slot.waits,
            Role::Listen => true,
            Role::Nothing => false,
        };
        matters && slot.ring.enable_kicks(memory)
    }

    /// Ports whose rings have stopped are closed; a driver that knows of no ports has its only one open.
    fn rings_changed(&mut self, cables: &mut Cables) {
        let has_ports = self.has_ports();
        for index in (0..self.queues()).step_by(2) {
            let Role::Receive(place) = self.role(index) else { continue };
            let runs = self.runs(index) && self.runs(index + 1);
            let Some(port) = self.ports.get_mut(place) else { continue };
            if !runs || !has_ports || port.is_resumed {
                cables.set_open(port.plug, runs);
                port.is_resumed &= !runs;
            }
        }
        if !has_ports {
            for port in self.ports.iter().skip(1) {
                cables.set_open(port.plug, false);
            }
        }
    }
}
