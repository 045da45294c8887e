//! The switch, and the frames that have passed it and wait for their receivers.

use std::{collections::VecDeque, fmt};

use anyhow::{Context, Result, anyhow};
use dragonfly_vswitch::{
    Edit, MAX_PREFIX, Output, PortConfig, PortId, Role, Switch, SwitchConfig, identity::Identity, policy::GroupId,
    vlan::VlanMode,
};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::machine::Machine;

/// Frames that wait for one pair of queues; more are dropped.
const MAX_WAITING: usize = 512;

/// The bytes that most tell an IP packet's flow: in IPv4 addresses and ports, in IPv6 most of the addresses.
const FLOW_BYTES: std::ops::Range<usize> = 26..38;

/// What the network devices of a card share.
pub struct Fabric {
    switch: Switch,
    ports: Vec<Vec<Waiting>>,
    /// Frames' memory to be used again.
    spare: Vec<Vec<u8>>,
}

/// Frames for one pair of queues.
#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    /// Whether the guest's receive queue runs.
    runs: bool,
}

impl Fabric {
    /// A switch with the machine's security groups, and a port for each device in their order.
    ///
    /// # Errors
    /// Two devices have the same address.
    pub fn new(machine: &Machine) -> Result<Self> {
        let mut seed = [0; 8];
        getrandom(&mut seed, GetRandomFlags::empty()).context("cannot get random numbers")?;
        let mut switch = Switch::new(SwitchConfig::new(u64::from_ne_bytes(seed)));
        let mut ports = Vec::new();
        for (number, group) in (0..).zip(&machine.groups) {
            switch.set_group(GroupId(number), &group.rules);
        }
        for (number, net) in (0..).zip(&machine.nets) {
            let config = PortConfig {
                vlan: VlanMode::Access(net.vlan),
                identity: Some(Identity { macs: vec![net.mac], addresses: net.addresses.clone() }),
                groups: net.groups.clone(),
                send_limits: net.limits,
                receive_limits: net.limits,
                ..PortConfig::new(Role::Guest)
            };
            let added = switch.add_port(PortId(number), config);
            added.map_err(|error| anyhow!("net {}: its port cannot be made: {error:?}", net.name))?;
            ports.push((0..net.queue_pairs).map(|_| Waiting::default()).collect());
        }
        Ok(Self { switch, ports, spare: Vec::new() })
    }

    /// Takes frames from a port.
    pub(super) fn receive(&mut self, port: PortId, frames: &[Vec<u8>], now_ns: u64) {
        const NO_FRAME: &[u8] = &[];
        let mut batch = [NO_FRAME; super::BATCH];
        batch.iter_mut().zip(frames).for_each(|(slot, frame)| *slot = frame);
        let batch = batch.get(..frames.len()).unwrap_or_default();
        let mut delivery = Delivery { frames: batch, ports: &mut self.ports, spare: &mut self.spare };
        self.switch.receive(port, batch, now_ns, &mut delivery);
    }

    /// Whether frames wait for a pair of queues.
    pub(super) fn is_waiting(&self, port: PortId, pair: u16) -> bool {
        self.slot(port, pair).is_some_and(|waiting| !waiting.frames.is_empty())
    }

    /// The next frame for a pair of queues; to be given back with [`Self::recycle`].
    pub(super) fn next(&mut self, port: PortId, pair: u16) -> Option<Vec<u8>> {
        self.slot_mut(port, pair)?.frames.pop_front()
    }

    /// Takes a frame's memory, to use it again.
    pub(super) fn recycle(&mut self, frame: Vec<u8>) {
        self.spare.push(frame);
    }

    /// Says whether the guest's receive queue of this pair runs. Frames for one that does not are dropped.
    pub(super) fn set_running(&mut self, port: PortId, pair: u16, runs: bool) {
        if let Some(waiting) = self.slot_mut(port, pair) {
            waiting.runs = runs;
            if !runs {
                waiting.frames.clear();
            }
        }
    }

    fn slot(&self, port: PortId, pair: u16) -> Option<&Waiting> {
        self.ports.get(usize::from(port.0))?.get(usize::from(pair))
    }

    fn slot_mut(&mut self, port: PortId, pair: u16) -> Option<&mut Waiting> {
        self.ports.get_mut(usize::from(port.0))?.get_mut(usize::from(pair))
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Fabric").field("ports", &self.ports.len()).finish_non_exhaustive()
    }
}

/// Copies what the switch forwards to those who wait for it.
struct Delivery<'a> {
    frames: &'a [&'a [u8]],
    ports: &'a mut [Vec<Waiting>],
    spare: &'a mut Vec<Vec<u8>>,
}

impl Delivery<'_> {
    fn put(&mut self, port: PortId, parts: [&[u8]; 2]) {
        let Some(pairs) = self.ports.get_mut(usize::from(port.0)) else { return };
        let running = pairs.iter().filter(|waiting| waiting.runs).count();
        let Some(choice) = flow_hash(parts[1]).checked_rem(running) else { return };
        let Some(waiting) = pairs.iter_mut().filter(|waiting| waiting.runs).nth(choice) else { return };
        if waiting.frames.len() < MAX_WAITING {
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.clear();
            parts.iter().for_each(|part| frame.extend_from_slice(part));
            waiting.frames.push_back(frame);
        }
    }
}

impl Output for Delivery<'_> {
    fn forward(&mut self, frame: usize, port: PortId, edit: &Edit<'_>) {
        let Some(&frame) = self.frames.get(frame) else { return };
        let mut prefix = [0; MAX_PREFIX];
        let Some(splice) = edit.write(frame, frame.len(), &mut prefix) else { return };
        if let (Some(prefix), Some(rest)) = (prefix.get(..splice.written), frame.get(splice.skip..)) {
            self.put(port, [prefix, rest]);
        }
    }

    fn originate(&mut self, port: PortId, frame: &[u8]) {
        self.put(port, [&[], frame]);
    }
}

/// Keeps the frames of a flow in one queue, and so in their order (FNV-1a).
fn flow_hash(frame: &[u8]) -> usize {
    let bytes = frame.get(FLOW_BYTES).unwrap_or_default();
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    // The high half is mixed best.
    (hash >> 32) as usize
}
