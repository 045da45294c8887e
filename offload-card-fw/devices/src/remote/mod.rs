//! A disk at an NBD server as a virtio-blk device, which has many requests under way and waits for none.
//!
//! - `request`: one request, made into commands to the server. Here: the queues, and the order in which requests end.
//!
//! Requests are given back in the order in which they came: so when a ring stops, what is behind the last one given back is
//! taken anew later, as with any other device here. The server may then still be doing what was asked first; nothing else
//! goes to it before it has answered.

mod request;

use alloc::{
    boxed::Box,
    collections::VecDeque,
    string::{String, ToString},
    vec::Vec,
};

use dragonfly_storage::{
    XtsAes256,
    blk::{BlockDevice, ID_BYTES, Request, Settings},
    nbd::{Client, Done, Export},
};
use dragonfly_vhost_user::{ConfigError, Device, RingConfig};
use dragonfly_virtqueue::{Chain, GuestMemory, QueueError};

use self::request::{Next, Pending};
use crate::{
    contents::ContentsError,
    ring::{self, Ring},
    serve::{Serve, Service},
    tables::Disk,
};

/// Requests of a queue that are under way at a time.
const MAX_REQUESTS: usize = 64;
/// Commands of all queues that are under way at a time: each queue has its share.
const MAX_COMMANDS: usize = 64;

/// By what a device knows a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    queue: u16,
    /// Of the queue, when the command was submitted.
    life: u64,
    /// Counts the queue's requests.
    request: u64,
    /// Where its data begins, in bytes of the request's.
    offset: u64,
}

/// What the server offers and how the disk is encrypted.
pub(crate) struct Remote {
    export: Export,
    key: Option<XtsAes256>,
    device: BlockDevice<()>,
}

/// A disk at a server, and its queues. What they share is the [`Client`].
pub struct RemoteDisk {
    name: String,
    remote: Remote,
    features: u64,
    queues: Vec<Slot>,
}

#[derive(Default)]
struct Slot {
    ring: Ring,
    /// Counts how often the ring was stopped.
    life: u64,
    /// In the order in which they came.
    requests: VecDeque<Pending>,
    /// The number of the first of these.
    first_number: u64,
    commands: usize,
    arrived: Vec<Done<Token>>,
    /// Chains to be used again.
    spare: Vec<Box<Chain>>,
}

impl RemoteDisk {
    /// A device for what a server exports, which has ciphertext if there is a key.
    ///
    /// # Errors
    /// [`ContentsError::LargeBlocks`].
    pub fn new(disk: &Disk, export: Export, key: Option<XtsAes256>) -> Result<Self, ContentsError> {
        let mut geometry = export.geometry();
        if key.is_some() && geometry.block_bytes as usize > dragonfly_storage::SECTOR_BYTES {
            return Err(ContentsError::LargeBlocks);
        }
        geometry.is_read_only |= disk.is_read_only;
        let mut id = [0; ID_BYTES];
        id.iter_mut().zip(disk.serial.bytes()).for_each(|(to, from)| *to = from);
        let settings = Settings { id, queues: disk.queues, limits: disk.limits };
        let device = BlockDevice::without_disk(geometry, settings, 0);
        Ok(Self {
            name: disk.name.to_string(),
            remote: Remote { export, key, device },
            features: 0,
            queues: (0..disk.queues).map(|_| Slot::default()).collect(),
        })
    }

    /// Gives each queue what the server has answered to its commands.
    fn sort(&mut self, client: &mut Client<Token>) {
        while let Some(done) = client.take_done() {
            let slot = self.queues.get_mut(usize::from(done.token.queue));
            if let Some(slot) = slot.filter(|slot| slot.life == done.token.life) {
                slot.arrived.push(done);
            }
        }
    }
}

impl Slot {
    /// Whether another request may be taken.
    fn has_room(&self) -> bool {
        self.requests.len() < MAX_REQUESTS && self.requests.back().is_none_or(Pending::is_admitted)
    }

    /// Takes what the server has answered.
    fn take_arrived<M: GuestMemory>(&mut self, remote: &Remote, memory: &M) {
        for done in self.arrived.drain(..) {
            self.commands = self.commands.saturating_sub(1);
            let place = done.token.request.checked_sub(self.first_number).and_then(|place| usize::try_from(place).ok());
            if let Some(request) = place.and_then(|place| self.requests.get_mut(place)) {
                request.take(done.outcome, done.token.offset, remote, memory);
            }
        }
    }

    /// Sends as much of the requests as there is room for; how many commands. Requests wait for their limits: until when.
    fn begin<M: GuestMemory>(
        &mut self,
        queue: u16,
        client: &mut Client<Token>,
        share: usize,
        (remote, memory, now_ns): (&Remote, &M, u64),
    ) -> (usize, Option<u64>) {
        let mut begun = 0;
        for (request, number) in self.requests.iter_mut().zip(self.first_number..) {
            if let Err(until_ns) = request.admit(remote, now_ns) {
                return (begun, Some(until_ns));
            }
            while self.commands < share && client.has_room() {
                let Next::Command(command, offset) = request.next(remote, memory) else { break };
                client.submit(command, Token { queue, life: self.life, request: number, offset }, now_ns);
                self.commands += 1;
                begun += 1;
            }
        }
        (begun, None)
    }
}

impl Device for RemoteDisk {
    type RingError = QueueError;

    fn features(&self) -> u64 {
        self.remote.device.offered().bits() | ring::OFFERED.bits()
    }

    fn set_features(&mut self, features: u64) {
        self.features = features;
        self.remote.device.negotiate(features);
    }

    fn queues(&self) -> u16 {
        // As many as a machine file's number has bits for.
        self.queues.len() as u16
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        self.remote.device.read_config(offset, into);
    }

    fn write_config(&mut self, offset: usize, from: &[u8]) -> Result<(), ConfigError> {
        self.remote.device.write_config(offset, from);
        Ok(())
    }

    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), QueueError> {
        let features = self.features;
        self.queues.get_mut(usize::from(index)).map_or(Ok(()), |slot| slot.ring.start(config, features))
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return 0 };
        let base = slot.ring.stop();
        *slot = Slot { life: slot.life.wrapping_add(1), ..Slot::default() };
        base
    }

    fn reset(&mut self) {
        self.remote.device.reset();
    }

    fn inflight_len(&self, queue_size: u16) -> Option<u64> {
        ring::in_flight_len(queue_size, self.features)
    }
}

impl Serve for RemoteDisk {
    type Shared = Client<Token>;

    fn name(&self) -> &str {
        &self.name
    }

    fn serve<M: GuestMemory>(
        &mut self,
        client: &mut Client<Token>,
        index: u16,
        memory: &M,
        now_ns: u64,
    ) -> Result<Service, QueueError> {
        self.sort(client);
        let share = (MAX_COMMANDS / self.queues.len().max(1)).max(1);
        let Self { remote, queues, .. } = self;
        let Some(slot) = queues.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let mut has_worked = !slot.arrived.is_empty();
        slot.take_arrived(remote, memory);
        if slot.ring.queue(memory)?.is_none() {
            return Ok(Service::default());
        }
        while slot.has_room() {
            let mut chain = slot.spare.pop().unwrap_or_default();
            let Some(queue) = slot.ring.queue(memory)? else { break };
            if !queue.pop_into(memory, &mut chain)? {
                slot.spare.push(chain);
                break;
            }
            let decoded = Request::decode(&chain, memory, &remote.device);
            slot.requests.push_back(Pending::new(chain, decoded));
            has_worked = true;
            // One that waits for its limits keeps those behind it.
            if slot.requests.back_mut().is_some_and(|request| request.admit(remote, now_ns).is_err()) {
                break;
            }
        }
        let (begun, wait_until_ns) = slot.begin(index, client, share, (remote, memory, now_ns));
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut staged = 0;
        while let Some(request) = slot.requests.front_mut()
            && request.is_finished(remote)
        {
            let written = request.finish(remote, memory);
            ring.stage(request.chain().id(), written)?;
            staged += 1;
            slot.first_number = slot.first_number.wrapping_add(1);
            slot.spare.extend(slot.requests.pop_front().map(Pending::into_chain));
        }
        let finished = ring::finish(&mut ring, staged)?;
        has_worked |= begun > 0 || staged > 0;
        if has_worked {
            ring.disable_kicks();
        }
        Ok(Service { has_worked, notify: finished.notify, wait_until_ns })
    }

    fn runs(&self, index: u16) -> bool {
        self.queues.get(usize::from(index)).is_some_and(|slot| slot.ring.runs())
    }

    /// A queue that takes no more has nothing to do until the server answers.
    fn enable_kicks<M: GuestMemory>(&mut self, index: u16, memory: &M) -> bool {
        let slot = self.queues.get_mut(usize::from(index));
        slot.is_some_and(|slot| slot.has_room() && slot.ring.enable_kicks(memory))
    }

    fn rings_changed(&mut self, client: &mut Client<Token>) {
        let queues = &self.queues;
        client.abandon(|token| {
            queues.get(usize::from(token.queue)).is_none_or(|slot| !slot.ring.runs() || slot.life != token.life)
        });
    }
}
