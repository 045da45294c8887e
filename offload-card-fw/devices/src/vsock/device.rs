//! A socket device and its queues.

use alloc::{collections::VecDeque, string::String, vec::Vec};

use dragonfly_vhost_user::{ConfigError, Device, RingConfig};
use dragonfly_virtqueue::{Chain, GuestMemory, QueueError};

use super::{
    connection::ROOM,
    hub::{SocketGuest, SocketHub},
    packet::Header,
};
use crate::{
    ring::{self, Ring},
    serve::{Serve, Service},
    tables::Vsock,
};

// Queues (virtio 1.2 5.10.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;
const QUEUES: usize = 3;

/// Packets taken from or given to a ring in one turn.
const BATCH: usize = 32;

/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET`: all connections are gone (5.10.6.6).
const TRANSPORT_RESET: [u8; 4] = [0; 4];

/// A guest's sockets.
#[derive(Debug)]
pub struct VsockDevice {
    name: String,
    guest: SocketGuest,
    cid: u64,
    features: u64,
    rings: [Ring; QUEUES],
    chain: Chain,
    /// Packets wait for buffers.
    is_starved: bool,
    /// The driver may know of connections that this device does not.
    owes_reset: bool,
    data: Vec<u8>,
    sent: VecDeque<u8>,
}

impl VsockDevice {
    /// The device of a guest of the hub's.
    #[must_use]
    pub fn new(vsock: &Vsock, guest: SocketGuest, hub: &SocketHub) -> Self {
        Self {
            name: vsock.name.clone(),
            guest,
            cid: hub.cid(guest),
            features: 0,
            rings: Default::default(),
            chain: Chain::new(),
            is_starved: false,
            owes_reset: false,
            data: Vec::new(),
            sent: VecDeque::new(),
        }
    }

    /// Takes what the guest sends.
    fn transmit<M: GuestMemory>(&mut self, hub: &mut SocketHub, memory: &M) -> Result<Service, QueueError> {
        let [_, ring, _] = &mut self.rings;
        let Some(queue) = ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut done = 0;
        while done < BATCH && ring.pop_into(&mut self.chain)? {
            let mut reader = self.chain.reader(memory);
            if let Ok(header) = reader.read_value::<Header>() {
                let len = header.len.get();
                self.data.clear();
                if len <= ROOM {
                    self.data.resize(len as usize, 0);
                }
                // More than anyone has credit for, or than there is: a packet of no connection.
                if len <= ROOM && reader.read_exact(&mut self.data).is_ok() {
                    hub.receive(self.guest, &header, &self.data);
                } else {
                    hub.refuse(self.guest, &header);
                }
            }
            ring.stage(self.chain.id(), 0)?;
            done += 1;
        }
        ring::finish(&mut ring, done)
    }

    /// Gives the guest what is for it.
    fn receive<M: GuestMemory>(&mut self, hub: &mut SocketHub, memory: &M) -> Result<Service, QueueError> {
        const HEADER_BYTES: u64 = size_of::<Header>() as u64;
        let [ring, ..] = &mut self.rings;
        let Some(queue) = ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut done = 0;
        self.is_starved = false;
        while done < BATCH && hub.has_packets(self.guest) {
            if !ring.pop_into(&mut self.chain)? {
                self.is_starved = true;
                break;
            }
            let room = self.chain.writable_len().checked_sub(HEADER_BYTES);
            let room = room.map(|room| usize::try_from(room).unwrap_or(usize::MAX));
            self.sent.clear();
            // A buffer that has no room for a header is given back empty.
            let header = room.and_then(|room| hub.take(self.guest, room, &mut self.sent));
            let mut written = 0;
            if let Some(header) = header {
                let mut writer = self.chain.writer(memory);
                let (first, second) = self.sent.as_slices();
                let all = writer
                    .write_value(&header)
                    .and_then(|()| writer.write_all(first))
                    .and_then(|()| writer.write_all(second));
                // What is written to no memory is lost, with the connection's order: the driver's own.
                written = if all.is_ok() { writer.written() } else { 0 };
            } else if room.is_some() {
                // There was nothing to take in the end.
                ring.unpop(self.chain.id())?;
                continue;
            }
            ring.stage(self.chain.id(), written)?;
            done += 1;
        }
        ring::finish(&mut ring, done)
    }

    /// Tells the driver that no connection that it knows of is there any more.
    fn tell<M: GuestMemory>(&mut self, memory: &M) -> Result<Service, QueueError> {
        let [.., ring] = &mut self.rings;
        let Some(queue) = ring.queue(memory)?.filter(|_| self.owes_reset) else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        if !ring.pop_into(&mut self.chain)? {
            return Ok(Service::default());
        }
        self.owes_reset = false;
        let mut writer = self.chain.writer(memory);
        let is_told = writer.write_all(&TRANSPORT_RESET).is_ok();
        ring.stage(self.chain.id(), if is_told { writer.written() } else { 0 })?;
        ring::finish(&mut ring, 1)
    }
}

impl Device for VsockDevice {
    type RingError = QueueError;

    /// Without features of their own devices have stream sockets (5.10.3).
    fn features(&self) -> u64 {
        ring::OFFERED.bits()
    }

    fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    fn queues(&self) -> u16 {
        QUEUES as u16
    }

    /// `struct virtio_vsock_config`.
    fn read_config(&self, offset: usize, into: &mut [u8]) {
        let config = self.cid.to_le_bytes();
        for (place, byte) in (offset..).zip(into) {
            *byte = config.get(place).copied().unwrap_or(0);
        }
    }

    fn write_config(&mut self, _offset: usize, _from: &[u8]) -> Result<(), ConfigError> {
        Err(ConfigError)
    }

    /// A ring that goes on where another device, or this one before it was stopped, has been has a driver that may know of
    /// connections.
    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), QueueError> {
        self.owes_reset |= index == RECEIVE && config.base & 0xffff != 0;
        let features = self.features;
        self.rings.get_mut(usize::from(index)).map_or(Ok(()), |ring| ring.start(config, features))
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        self.rings.get_mut(usize::from(index)).map_or(0, Ring::stop)
    }

    fn reset(&mut self) {
        (self.features, self.owes_reset) = (0, false);
    }

    /// What was not given back is looked at anew; connections do not outlive the device.
    fn inflight_len(&self, _queue_size: u16) -> Option<u64> {
        None
    }
}

impl Serve for VsockDevice {
    type Shared = SocketHub;

    fn name(&self) -> &str {
        &self.name
    }

    fn serve<M: GuestMemory>(
        &mut self,
        hub: &mut SocketHub,
        index: u16,
        memory: &M,
        _now_ns: u64,
    ) -> Result<Service, QueueError> {
        match index {
            RECEIVE => self.receive(hub, memory),
            TRANSMIT => self.transmit(hub, memory),
            EVENT => self.tell(memory),
            _ => Ok(Service::default()),
        }
    }

    fn runs(&self, index: u16) -> bool {
        self.rings.get(usize::from(index)).is_some_and(Ring::runs)
    }

    /// New buffers matter only when there is something to put into them.
    fn enable_kicks<M: GuestMemory>(&mut self, index: u16, memory: &M) -> bool {
        let matters = match index {
            RECEIVE => self.is_starved,
            EVENT => self.owes_reset,
            _ => true,
        };
        matters && self.rings.get_mut(usize::from(index)).is_some_and(|ring| ring.enable_kicks(memory))
    }

    fn rings_changed(&mut self, hub: &mut SocketHub) {
        hub.set_running(self.guest, self.runs(RECEIVE) && self.runs(TRANSMIT));
    }
}
