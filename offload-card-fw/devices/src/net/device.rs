//! A network device and its queues.

use alloc::{string::String, vec::Vec};

use dragonfly_vhost_user::{ConfigError, Device, ProtocolFeatures, RingConfig};
use dragonfly_virtqueue::{Chain, GuestMemory, GuestSlice, QueueError};
use dragonfly_vswitch::{MacAddress, PortId};

use super::{
    BATCH, Fabric, Features,
    control::{self, ControlState},
    frame::Buffered,
    memory::{KeptState, STATE_BYTES, Untracked},
    receive::Buffers,
    steering::{self, HashTypes},
};
use crate::{
    ring::{self, Ring},
    serve::{Serve, Service},
    tables::Net,
};

/// Of the configuration space's `status` (virtio 1.2 5.1.4): the link is up; the driver is to announce its station.
const STATUS_LINK_UP: u16 = 1;
const STATUS_ANNOUNCE: u16 = 2;

/// Who answers for what of a network device is not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The front end has the configuration space and the control queue to itself, as QEMU does.
    FrontEnd,
    /// The card, as in the hypervisor. The control queue is the last one that the driver knows.
    Card,
}

/// A network device and its queues: receive queues have even numbers, transmit queues odd ones.
#[derive(Debug)]
pub struct NetDevice {
    name: String,
    pub(super) port: PortId,
    mac: MacAddress,
    pub(super) mtu: u16,
    pairs: u16,
    control: Control,
    is_link_up: bool,
    /// The configuration space's `status` that the front end was told of.
    told_status: u16,
    /// As negotiated, with those of rings.
    features: u64,
    pub(super) state: ControlState,
    /// Where the next card finds that.
    kept: KeptState,
    pub(super) queues: Vec<Slot>,
    pub(super) chain: Chain,
    /// Frames on their way from the guest to the switch.
    pub(super) frames: Vec<Buffered>,
    command: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Slot {
    pub ring: Ring,
    /// Of a receive queue.
    pub buffers: Buffers,
    /// Frames wait for buffers.
    pub is_starved: bool,
}

/// What a queue is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// What the guest receives, as this pair.
    Receive(u16),
    /// What it sends.
    Transmit,
    /// Commands.
    Control,
    /// Nothing, by what was negotiated.
    Nothing,
}

impl NetDevice {
    /// A device at a port of the switch.
    #[must_use]
    pub fn new(net: &Net, port: PortId, control: Control) -> Self {
        let control_queues = u16::from(control == Control::Card);
        Self {
            name: net.name.clone(),
            port,
            mac: net.mac,
            mtu: net.mtu,
            pairs: net.queue_pairs,
            control,
            is_link_up: true,
            told_status: STATUS_LINK_UP,
            features: 0,
            state: ControlState::new(net.mac, net.queue_pairs, Features::empty()),
            kept: KeptState::default(),
            queues: (0..2 * net.queue_pairs + control_queues).map(|_| Slot::default()).collect(),
            chain: Chain::new(),
            frames: Vec::new(),
            command: Vec::new(),
        }
    }

    /// Plugs the device in or out. The configuration space then says so; to tell the driver is for the front end, which is told
    /// when the device is served next, or by [`Connection::tell_of_config`](crate::Connection::tell_of_config).
    pub fn set_link(&mut self, is_up: bool, fabric: &mut Fabric) {
        self.is_link_up = is_up;
        self.rings_changed(fabric);
    }

    /// Asks the driver to announce its station to the network, as after it was moved; the driver is told as by
    /// [`Self::set_link`].
    pub fn ask_to_announce(&mut self) {
        self.state.is_to_announce = self.state.features.contains(Features::GUEST_ANNOUNCE);
    }

    /// Whether the link is up, so that frames pass.
    pub(super) fn is_link_up(&self) -> bool {
        self.is_link_up
    }

    fn role(&self, index: u16) -> Role {
        // virtio 1.2 5.1.2: the control queue comes behind as many pairs as the driver knows of.
        let known = if self.state.features.contains(Features::MQ) { self.pairs } else { 1 };
        let has_control = self.control == Control::Card && self.state.features.contains(Features::CTRL_VQ);
        match index {
            _ if has_control && index == 2 * known => Role::Control,
            _ if index >= 2 * self.pairs => Role::Nothing,
            _ if index.is_multiple_of(2) => Role::Receive(index / 2),
            _ => Role::Transmit,
        }
    }

    /// The configuration space's `status`.
    fn status(&self) -> u16 {
        let link = if self.is_link_up { STATUS_LINK_UP } else { 0 };
        let announce = if self.state.is_to_announce { STATUS_ANNOUNCE } else { 0 };
        link | announce
    }

    /// `struct virtio_net_config`. Speed and duplex mode mean nothing without their feature.
    fn config(&self) -> [u8; 24] {
        let mut config = [0; 24];
        let fields = [
            &self.mac.0[..],
            &self.status().to_le_bytes(),
            &self.pairs.to_le_bytes(),
            &self.mtu.to_le_bytes(),
            &[0; 5],
            &[steering::MAX_KEY as u8],
            &steering::MAX_TABLE.to_le_bytes(),
            &HashTypes::all().bits().to_le_bytes(),
        ];
        config.iter_mut().zip(fields.concat()).for_each(|(to, from)| *to = from);
        config
    }

    /// Does the commands of the control queue, whose state is kept in `area`.
    fn obey<M: GuestMemory>(
        &mut self,
        fabric: &mut Fabric,
        index: u16,
        memory: &M,
        area: Option<GuestSlice<'_>>,
    ) -> Result<Service, QueueError> {
        if let Some(area) = &area
            && self.runs(index)
            && self.kept.begin(area, &mut self.state)
        {
            // Switches beyond the uplink may look for the guest elsewhere by now.
            self.ask_to_announce();
            self.rings_changed(fabric);
        }
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let mut done = 0;
        while done < BATCH && ring.pop_into(&mut self.chain)? {
            let mut reader = self.chain.reader(memory);
            let mut answer = control::ERR;
            if reader.remaining() <= control::MAX_COMMAND as u64 {
                self.command.resize(reader.remaining() as usize, 0);
                if reader.read_exact(&mut self.command).is_ok() {
                    answer = self.state.perform(&self.command);
                }
            }
            let is_answered = self.chain.writer(memory).write_all(&[answer]).is_ok();
            ring.stage(self.chain.id(), is_answered.into())?;
            done += 1;
        }
        if done == 0 {
            return Ok(Service::default());
        }
        // Before the driver is told: what it knows to be done outlives the card.
        if let Some(area) = &area {
            self.kept.keep(area, &self.state);
        }
        ring.publish()?;
        let notify = ring.needs_notification();
        self.rings_changed(fabric);
        Ok(Service { has_worked: true, notify, wait_until_ns: None })
    }
}

impl Device for NetDevice {
    type RingError = QueueError;

    fn features(&self) -> u64 {
        let mut offered = Features::MTU
            | Features::MAC
            | Features::STATUS
            | Features::MRG_RXBUF
            | Features::HOST_OFFLOADS
            | Features::GUEST_OFFLOADS
            | Features::CTRL_VQ;
        if self.control == Control::Card {
            offered |= Features::CONTROL;
        }
        if self.pairs > 1 {
            offered |= Features::MQ;
            if self.control == Control::Card {
                offered |= Features::RSS;
            }
        }
        offered.bits() | ring::OFFERED.bits()
    }

    fn set_features(&mut self, features: u64) {
        self.features = features;
        self.state = ControlState::new(self.mac, self.pairs, Features::from_bits_truncate(features));
    }

    /// QEMU has the configuration space of network devices to itself, and warns of back ends that offer theirs.
    fn extensions(&self) -> ProtocolFeatures {
        match self.control {
            Control::FrontEnd => ProtocolFeatures::all() - ProtocolFeatures::CONFIG - ProtocolFeatures::BACKEND_REQ,
            Control::Card => ProtocolFeatures::all(),
        }
    }

    fn queues(&self) -> u16 {
        // Two for each pair of a machine file, which has few, and one.
        self.queues.len() as u16
    }

    /// Front ends count pairs, and know of the control queue by its feature.
    fn told_queues(&self) -> u16 {
        self.pairs
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
        if self.role(index) == Role::Control {
            self.kept = KeptState::default();
        }
        self.queues.get_mut(usize::from(index)).map_or(Ok(()), |slot| slot.ring.start(config, features))
    }

    fn stop_ring(&mut self, index: u16) -> u32 {
        self.queues.get_mut(usize::from(index)).map_or(0, |slot| {
            slot.is_starved = false;
            slot.buffers.forget();
            slot.ring.stop()
        })
    }

    fn reset(&mut self) {
        self.set_features(0);
    }

    /// Frames that are lost are sent again by those who want them to arrive. What is kept is the state of the control queue,
    /// in that queue's part.
    fn inflight_len(&self, _queue_size: u16) -> Option<u64> {
        (self.control == Control::Card).then_some(STATE_BYTES)
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
        let area = memory.in_flight();
        let memory = &Untracked(memory);
        match self.role(index) {
            Role::Receive(pair) => self.receive(fabric, index, pair, memory),
            Role::Transmit => self.transmit(fabric, index, memory, now_ns),
            Role::Control => self.obey(fabric, index, memory, area),
            Role::Nothing => Ok(Service::default()),
        }
    }

    fn runs(&self, index: u16) -> bool {
        self.role(index) != Role::Nothing && self.queues.get(usize::from(index)).is_some_and(|slot| slot.ring.runs())
    }

    /// The guest's new receive buffers matter only when frames wait for them.
    fn enable_kicks<M: GuestMemory>(&mut self, index: u16, memory: &M) -> bool {
        let is_receive = matches!(self.role(index), Role::Receive(_));
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return false };
        (!is_receive || slot.is_starved) && slot.ring.enable_kicks(&Untracked(memory))
    }

    fn take_config_change(&mut self) -> bool {
        let status = self.status();
        core::mem::replace(&mut self.told_status, status) != status
    }

    fn rings_changed(&mut self, fabric: &mut Fabric) {
        let active = match self.control {
            Control::FrontEnd => self.pairs,
            Control::Card if self.state.steering.is_some() => self.pairs,
            Control::Card => self.state.active_pairs,
        };
        fabric.set_steering(self.port, self.state.steering.clone());
        fabric.set_features(self.port, self.state.guest_offloads.receiver());
        for pair in 0..self.pairs {
            let is_receive = self.role(2 * pair) == Role::Receive(pair);
            let runs = is_receive && pair < active && self.is_link_up && self.runs(2 * pair);
            fabric.set_running(self.port, pair, runs);
        }
    }
}
