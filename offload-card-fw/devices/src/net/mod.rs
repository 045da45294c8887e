//! A network device of the machine file as a virtio-net device at a port of the card's switch.
//!
//! Frames are copied twice: out of the sender's memory, as the switch must read what cannot change, and into the
//! receiver's. Between, they wait in a queue of the receiver's port, a bounded one for each pair of its queues. No
//! offloads are offered, so each frame is as long as it will be on the wire. The control queue is the front end's.

mod fabric;

use alloc::{string::String, vec::Vec};

use dragonfly_vhost_user::{ConfigError, Device, ProtocolFeatures, RingConfig};
use dragonfly_virtqueue::{Chain, GuestMemory, QueueError};
use dragonfly_vswitch::{MacAddress, PortId};

pub use self::fabric::{Fabric, PortError};
use crate::{
    ring::{self, Ring},
    serve::{Serve, Service},
    tables::Net,
};

/// VIRTIO_NET_F_MTU, _MAC, _STATUS, _CTRL_VQ, _MQ (virtio 1.2 5.1.3).
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;
const F_CTRL_VQ: u64 = 1 << 17;
const F_MQ: u64 = 1 << 22;
const F_VERSION_1: u64 = 1 << 32;

/// Bytes before each frame (virtio 1.2 5.1.6): without VERSION_1 the number of buffers is missing.
const HEADER: usize = 12;
const LEGACY_HEADER: usize = 10;
/// Where a header says in how many buffers the frame is.
const NUM_BUFFERS: usize = 10;

/// The longest IP packet, in bytes.
const MTU: u16 = 1500;
/// The longest frame: Ethernet's header and two tags come before the packet.
const MAX_FRAME: usize = MTU as usize + 14 + 8;
/// Frames taken from or given to a ring in one turn.
const BATCH: usize = 32;
/// Link up (virtio 1.2 5.1.4).
const STATUS_UP: u16 = 1;

/// Who answers for what of a network device is not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The front end has the configuration space and the control queue to itself, as QEMU does.
    FrontEnd,
    /// The card, as in the hypervisor.
    Card,
}

/// A network device and its queues: receive queues have even numbers, transmit queues odd ones.
#[derive(Debug)]
pub struct NetDevice {
    name: String,
    port: PortId,
    mac: MacAddress,
    control: Control,
    features: u64,
    queues: Vec<Slot>,
    chain: Chain,
    /// Frames on their way from the guest to the switch.
    frames: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Slot {
    ring: Ring,
    /// Frames wait for buffers.
    is_starved: bool,
}

impl NetDevice {
    /// A device at a port of the switch.
    #[must_use]
    pub fn new(net: &Net, port: PortId, control: Control) -> Self {
        Self {
            name: net.name.clone(),
            port,
            mac: net.mac,
            control,
            features: 0,
            queues: (0..2 * net.queue_pairs).map(|_| Slot::default()).collect(),
            chain: Chain::new(),
            frames: Vec::new(),
        }
    }

    fn pairs(&self) -> u16 {
        self.queues() / 2
    }

    fn header_len(&self) -> usize {
        if self.features & F_VERSION_1 != 0 { HEADER } else { LEGACY_HEADER }
    }

    /// `struct virtio_net_config` as far as `mtu`.
    fn config(&self) -> [u8; 12] {
        let mut config = [0; 12];
        let fields = [&self.mac.0[..], &STATUS_UP.to_le_bytes(), &self.pairs().to_le_bytes(), &MTU.to_le_bytes()];
        config.iter_mut().zip(fields.concat()).for_each(|(to, from)| *to = from);
        config
    }

    /// Takes frames from the guest and gives them to the switch.
    fn transmit<M: GuestMemory>(
        &mut self,
        fabric: &mut Fabric,
        index: u16,
        memory: &M,
        now_ns: u64,
    ) -> Result<Service, QueueError> {
        let header_len = self.header_len() as u64;
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let (mut taken, mut count) = (0, 0);
        while taken < BATCH && ring.pop_into(&mut self.chain)? {
            taken += 1;
            let mut reader = self.chain.reader(memory);
            let len = usize::try_from(reader.remaining().saturating_sub(header_len)).unwrap_or(usize::MAX);
            if self.frames.len() <= count {
                self.frames.push(Vec::with_capacity(MAX_FRAME));
            }
            if let Some(frame) = self.frames.get_mut(count)
                && (1..=MAX_FRAME).contains(&len)
            {
                frame.resize(len, 0);
                if reader.skip(header_len).and_then(|()| reader.read_exact(frame)).is_ok() {
                    count += 1;
                }
            }
            ring.stage(self.chain.id(), 0)?;
        }
        if taken == 0 {
            return Ok(Service::default());
        }
        ring.publish()?;
        let notify = ring.needs_notification();
        ring.disable_kicks();
        fabric.receive(self.port, self.frames.get(..count).unwrap_or_default(), now_ns);
        Ok(Service { has_worked: true, notify, wait_until_ns: None })
    }

    /// Gives the guest frames that wait for it.
    fn deliver<M: GuestMemory>(&mut self, fabric: &mut Fabric, index: u16, memory: &M) -> Result<Service, QueueError> {
        let mut header = [0; HEADER];
        header[NUM_BUFFERS] = 1;
        let header_len = self.header_len();
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let pair = index / 2;
        slot.is_starved = false;
        if !fabric.is_waiting(self.port, pair) {
            return Ok(Service::default());
        }
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut given = 0;
        while given < BATCH && fabric.is_waiting(self.port, pair) {
            if !ring.pop_into(&mut self.chain)? {
                slot.is_starved = true;
                break;
            }
            let Some(frame) = fabric.next(self.port, pair) else { break };
            let mut writer = self.chain.writer(memory);
            let header = header.get(..header_len).unwrap_or(&header);
            // A buffer that is too short or not there costs the guest the frame.
            let is_written = writer.write_all(header).and_then(|()| writer.write_all(&frame)).is_ok();
            ring.stage(self.chain.id(), if is_written { writer.written() } else { 0 })?;
            fabric.recycle(frame);
            given += 1;
        }
        if given > 0 {
            ring.publish()?;
        }
        Ok(Service { has_worked: given > 0, notify: given > 0 && ring.needs_notification(), wait_until_ns: None })
    }
}

/// Even queues are for what the guest receives (virtio 1.2 5.1.2).
const fn is_receive_queue(index: u16) -> bool {
    index.is_multiple_of(2)
}

impl Device for NetDevice {
    type RingError = QueueError;

    fn features(&self) -> u64 {
        let many = match self.control {
            Control::FrontEnd if self.pairs() > 1 => F_MQ | F_CTRL_VQ,
            Control::FrontEnd => F_CTRL_VQ,
            // Without a control queue there is one pair.
            Control::Card => 0,
        };
        F_MTU | F_MAC | F_STATUS | many | ring::OFFERED.bits()
    }

    fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    /// QEMU has the configuration space of network devices to itself, and warns of back ends that offer theirs.
    fn extensions(&self) -> ProtocolFeatures {
        match self.control {
            Control::FrontEnd => ProtocolFeatures::all() - ProtocolFeatures::CONFIG,
            Control::Card => ProtocolFeatures::all(),
        }
    }

    fn queues(&self) -> u16 {
        // Two for each pair of a machine file, which has few.
        self.queues.len() as u16
    }

    /// Front ends of network devices count pairs.
    fn told_queues(&self) -> u16 {
        self.pairs()
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        let config = self.config();
        for (place, byte) in (offset..).zip(into) {
            *byte = config.get(place).copied().unwrap_or(0);
        }
    }

    fn write_config(&mut self, _offset: usize, _from: &[u8]) -> Result<(), ConfigError> {
        Err(ConfigError)
    }

    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), QueueError> {
        let features = self.features;
        self.queues.get_mut(usize::from(index)).map_or(Ok(()), |slot| slot.ring.start(config, features))
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        self.queues.get_mut(usize::from(index)).map_or(0, |slot| {
            slot.is_starved = false;
            slot.ring.stop()
        })
    }

    fn reset(&mut self) {
        self.features = 0;
    }

    /// Frames that are lost are sent again by those who want them to arrive.
    fn inflight_len(&self, _queue_size: u16) -> Option<u64> {
        None
    }
}

impl Serve for NetDevice {
    type Shared = Fabric;

    fn name(&self) -> &str {
        &self.name
    }

    fn serve<M: GuestMemory>(
        &mut self,
        fabric: &mut Fabric,
        index: u16,
        memory: &M,
        now_ns: u64,
    ) -> Result<Service, QueueError> {
        if is_receive_queue(index) {
            self.deliver(fabric, index, memory)
        } else {
            self.transmit(fabric, index, memory, now_ns)
        }
    }

    fn runs(&self, index: u16) -> bool {
        self.queues.get(usize::from(index)).is_some_and(|slot| slot.ring.runs())
    }

    /// The guest's new receive buffers matter only when frames wait for them.
    fn enable_kicks<M: GuestMemory>(&mut self, index: u16, memory: &M) -> bool {
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return false };
        (!is_receive_queue(index) || slot.is_starved) && slot.ring.enable_kicks(memory)
    }

    fn rings_changed(&mut self, fabric: &mut Fabric) {
        for pair in 0..self.pairs() {
            fabric.set_running(self.port, pair, self.runs(2 * pair));
        }
    }
}
