//! The switch, and the frames that have passed it and wait for their receivers.

use alloc::{collections::VecDeque, string::String, vec, vec::Vec};
use core::fmt;

use dragonfly_vswitch::{
    ConfigError, Edit, MAX_PREFIX, MacAddress, Output, PortConfig, PortId, Prefix, Role, Switch, SwitchConfig,
    identity::Identity,
    policy::{Action, Direction, FilterConfig, GroupId, Ports, Rule, Service},
    vlan::VlanMode,
};
use thiserror::Error;

use crate::tables::{Devices, Net};

/// Frames that wait for one pair of queues; more are dropped.
const MAX_WAITING: usize = 512;

/// The bytes that most tell an IP packet's flow: in IPv4 addresses and ports, in IPv6 most of the addresses.
const FLOW_BYTES: core::ops::Range<usize> = 26..38;

/// Ports of DHCP's server and client (RFC 2131 4.1).
const DHCP: Ports = Ports { first: 67, last: 68 };

/// Why a port cannot be made: a mistake of whoever describes the network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// The switch refuses it.
    #[error("{name}: its port of the switch cannot be made: {reason:?}")]
    Refused {
        /// What was to be at the port.
        name: String,
        /// What the switch says.
        reason: ConfigError,
    },
    /// There are more security groups than have numbers.
    #[error("there are more than 65,535 security groups: leave some out")]
    Groups,
}

/// What the network devices of a card share.
pub struct Fabric {
    switch: Switch,
    ports: Vec<Vec<Waiting>>,
    /// Security groups that there are.
    groups: u16,
    /// Frames' memory to be used again.
    spare: Vec<Vec<u8>>,
}

/// Frames for one pair of queues, or for what is outside.
#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    /// Whether somebody takes them: a guest's receive queue runs.
    runs: bool,
}

impl Fabric {
    /// A switch without ports. The seed is to be random and secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { switch: Switch::new(SwitchConfig::new(seed)), ports: Vec::new(), groups: 0, spare: Vec::new() }
    }

    /// Adds the security groups and a port for each network device of a machine; gives the ports in the devices' order.
    ///
    /// # Errors
    /// A device's address is another's, or there are too many. The ports before it are there.
    pub fn add_machine(&mut self, devices: &Devices) -> Result<Vec<PortId>, PortError> {
        let first_group = self.groups;
        for group in &devices.groups {
            self.add_group(&group.rules)?;
        }
        devices.nets.iter().map(|net| self.add_net(net, first_group)).collect()
    }

    /// Adds the port to the world outside. Whoever drives it moves frames with [`Self::inject`] and [`Self::take`].
    ///
    /// ARP and IP pass, but for DHCP: addresses are given by the card, or by nobody.
    ///
    /// # Errors
    /// There are too many ports.
    pub fn add_uplink(&mut self) -> Result<PortId, PortError> {
        let rule = |priority, direction, action, service| Rule { priority, direction, action, remote: None, service };
        let rules = [Direction::Egress, Direction::Ingress].map(|direction| {
            [
                rule(0, direction, Action::Deny, Service::Udp(DHCP)),
                rule(1, direction, Action::AllowStateless, Service::Any),
            ]
        });
        let group = self.add_group(rules.as_flattened())?;
        let config = PortConfig {
            groups: Some(vec![group]),
            // No rule opens a connection.
            filter: FilterConfig { connections: 1, ..FilterConfig::default() },
            stations: 1024,
            ..PortConfig::new(Role::Uplink)
        };
        self.add_outside("uplink", config)
    }

    /// Adds a port for services of the card itself, which have this address. Frames are moved as at an uplink.
    ///
    /// # Errors
    /// The address is another's, or there are too many ports.
    pub fn add_service(&mut self, mac: MacAddress) -> Result<PortId, PortError> {
        let any = [[0; 4].into(), [0; 16].into()];
        let addresses = any.into_iter().filter_map(|any| Prefix::new(any, 0)).collect();
        let identity = Some(Identity { macs: vec![mac], addresses });
        self.add_outside("service", PortConfig { identity, ..PortConfig::new(Role::Management) })
    }

    /// Puts frames from outside into the switch, as they came; none are left in `frames`.
    pub fn inject(&mut self, port: PortId, frames: &mut Vec<Vec<u8>>, now_ns: u64) {
        for batch in frames.chunks(super::BATCH) {
            self.receive(port, batch, now_ns);
        }
        self.spare.append(frames);
    }

    /// The next frame that is to go outside; to be given back with [`Self::recycle`].
    pub fn take(&mut self, port: PortId) -> Option<Vec<u8>> {
        self.next(port, 0)
    }

    /// Memory for a frame, which is empty.
    pub fn buffer(&mut self) -> Vec<u8> {
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame
    }

    /// Takes a frame's memory, to use it again.
    pub fn recycle(&mut self, frame: Vec<u8>) {
        self.spare.push(frame);
    }

    fn add_net(&mut self, net: &Net, first_group: u16) -> Result<PortId, PortError> {
        let all = |groups: &Vec<GroupId>| {
            groups.iter().map(|group| GroupId(group.0.saturating_add(first_group))).collect::<Vec<_>>()
        };
        let usual = PortConfig::new(Role::Guest);
        let config = PortConfig {
            vlan: VlanMode::Access(net.vlan),
            identity: Some(Identity { macs: vec![net.mac], addresses: net.addresses.clone() }),
            groups: net.groups.as_ref().map(all),
            filter: FilterConfig { connections: net.connections, ..FilterConfig::default() },
            // Each connection has a flow in either direction.
            flows: net.connections.saturating_mul(2).max(usual.flows),
            send_limits: net.limits,
            receive_limits: net.limits,
            ..usual
        };
        self.add_port(&net.name, config, (0..net.queue_pairs).map(|_| Waiting::default()).collect())
    }

    fn add_outside(&mut self, name: &str, config: PortConfig) -> Result<PortId, PortError> {
        self.add_port(name, config, vec![Waiting { runs: true, ..Waiting::default() }])
    }

    fn add_port(&mut self, name: &str, config: PortConfig, waiting: Vec<Waiting>) -> Result<PortId, PortError> {
        // More than the switch takes are refused by it.
        let port = PortId(u16::try_from(self.ports.len()).unwrap_or(u16::MAX));
        self.switch.add_port(port, config).map_err(|reason| PortError::Refused { name: name.into(), reason })?;
        self.ports.push(waiting);
        Ok(port)
    }

    fn add_group(&mut self, rules: &[Rule]) -> Result<GroupId, PortError> {
        let group = GroupId(self.groups);
        self.groups = self.groups.checked_add(1).ok_or(PortError::Groups)?;
        self.switch.set_group(group, rules);
        Ok(group)
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
