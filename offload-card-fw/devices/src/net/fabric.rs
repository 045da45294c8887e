//! The switch, and the frames that have passed it and wait for their receivers.

use alloc::{string::String, vec, vec::Vec};
use core::fmt;

use dragonfly_vswitch::{
    ConfigError, MacAddress, Offload, PortConfig, PortId, Prefix, Role, Switch, SwitchConfig,
    identity::Identity,
    offload,
    policy::{Action, Direction, FilterConfig, GroupId, Ports, Rule, Service},
    tunnel::Tunnel,
    vlan::VlanMode,
};
use thiserror::Error;

use super::{
    Features,
    delivery::{Delivery, Routes},
    frame::Buffered,
    header::{self, HEADER},
    pool::Pool,
    receiver::{Receiver, Waiting},
    steering::Steering,
};
use crate::tables::{Devices, Net, Tunnel as TunnelTable, Underlay};

/// Ports of DHCP's server and client (RFC 2131 4.1).
const DHCP: Ports = Ports { first: 67, last: 68 };

/// What Ethernet carries without a word.
const DEFAULT_MTU: u16 = 1500;

/// The one queue of a port where there is no guest.
const OUTSIDE: u16 = 0;

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

/// A frame, and what is left to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// `struct virtio_net_hdr` with all offloads negotiated, but for the number of buffers, which is 0.
    pub header: [u8; HEADER],
    /// The frame.
    pub bytes: Vec<u8>,
}

/// What the network devices of a card share.
pub struct Fabric {
    switch: Switch,
    /// Who is at each port.
    receivers: Vec<Receiver>,
    /// Security groups that there are.
    groups: u16,
    pool: Pool,
    // Of the batch at hand, kept so that they need not be allocated.
    routes: Routes,
    scratch: Vec<u8>,
    batch: Vec<Buffered>,
}

impl Fabric {
    /// A switch without ports. The seed is to be random and secret.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            switch: Switch::new(SwitchConfig::new(seed)),
            receivers: Vec::new(),
            groups: 0,
            pool: Pool::default(),
            routes: Routes::default(),
            scratch: Vec::new(),
            batch: Vec::new(),
        }
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

    /// The number of the first security group of the machine that is added next; the others of its groups follow.
    #[must_use]
    pub const fn next_group(&self) -> GroupId {
        GroupId(self.groups)
    }

    /// Replaces a security group's rules. From now on no frame reaches anybody by the old ones: connections are judged
    /// anew, and what has passed the switch already, but still waits for its receiver, is dropped.
    pub fn set_rules(&mut self, group: GroupId, rules: &[Rule]) {
        self.switch.set_group(group, rules);
        for receiver in &mut self.receivers {
            receiver.clear(&mut self.pool);
        }
    }

    /// The card takes the place of one that its guests had connections through, which are picked up for two minutes from now on. What
    /// rules forbid stays forbidden: see [`Switch::pick_up_connections`].
    pub fn pick_up_connections(&mut self, now_ns: u64) {
        self.switch.pick_up_connections(now_ns);
    }

    /// Adds the port to the world outside. Whoever drives it moves frames with [`Self::inject`] and [`Self::take`].
    ///
    /// ARP and IP pass, but for DHCP: addresses are given by the card, or by nobody.
    ///
    /// # Errors
    /// There are too many ports.
    pub fn add_uplink(&mut self) -> Result<PortId, PortError> {
        self.add_uplink_in(VlanMode::Access(0), DEFAULT_MTU)
    }

    /// Adds such a port in other VLANs, for packets of at most so many bytes.
    ///
    /// # Errors
    /// As above.
    pub fn add_uplink_in(&mut self, vlan: VlanMode, mtu: u16) -> Result<PortId, PortError> {
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
            vlan,
            mtu,
            ..PortConfig::new(Role::Uplink)
        };
        self.add_outside("uplink", config)
    }

    /// Adds the port of a tunnel from this station through an uplink. Nothing goes into it until [`Self::set_next_hop`].
    ///
    /// # Errors
    /// It is the same as another, or there are too many ports.
    pub fn add_tunnel(&mut self, table: &TunnelTable, from: &Underlay, uplink: PortId) -> Result<PortId, PortError> {
        let tunnel = Tunnel {
            protocol: table.protocol,
            network: table.network,
            local: from.address.into(),
            remote: table.remote.into(),
            local_mac: from.mac,
            next_hop_mac: MacAddress([0; 6]),
            vlan: None,
            uplink,
            has_checksum: table.has_checksum,
        };
        let config = PortConfig {
            vlan: VlanMode::Access(table.vlan),
            // What fits into the uplink's packets is the limit.
            mtu: u16::MAX,
            stations: 1024,
            ..PortConfig::new(Role::Tunnel(tunnel))
        };
        self.add_port(&table.name, config, Receiver::new(0))
    }

    /// Says who takes a tunnel's packets.
    pub fn set_next_hop(&mut self, tunnel: PortId, mac: MacAddress) {
        // It fails only for what is no tunnel's port, which this does not harm.
        let _ = self.switch.set_next_hop(tunnel, mac);
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
        let mut batch = core::mem::take(&mut self.batch);
        batch.extend(frames.drain(..).map(|bytes| self.pool.wrap(bytes, Offload::default())));
        self.receive(port, &mut batch, now_ns);
        self.batch = batch;
    }

    /// Puts frames into the switch that are unfinished, as far as their headers say; none are left in `frames`. One that
    /// claims what no header can is dropped.
    pub fn inject_unfinished(&mut self, port: PortId, frames: &mut Vec<Unfinished>, now_ns: u64) {
        let mut batch = core::mem::take(&mut self.batch);
        for Unfinished { header, bytes } in frames.drain(..) {
            match header::parse(&header, Features::HOST_OFFLOADS) {
                Some(offload) => batch.push(self.pool.wrap(bytes, offload)),
                None => self.recycle(bytes),
            }
        }
        self.receive(port, &mut batch, now_ns);
        self.batch = batch;
    }

    /// Lets frames leave by a port unfinished, to be taken by [`Self::take_unfinished`].
    pub fn leave_unfinished(&mut self, port: PortId) {
        self.set_features(port, Features::GUEST_OFFLOADS.receiver());
    }

    /// The next frame that is to go outside, as it is to be on the wire; to be given back with [`Self::recycle`].
    pub fn take(&mut self, port: PortId) -> Option<Vec<u8>> {
        let (queue, pool) = self.waiting(port, OUTSIDE)?;
        queue.take().map(|frame| pool.unwrap(frame))
    }

    /// The next frame that is to go outside, and what is left to do about it; its memory is to be given back.
    pub fn take_unfinished(&mut self, port: PortId) -> Option<Unfinished> {
        let (queue, pool) = self.waiting(port, OUTSIDE)?;
        queue.take().map(|frame| Unfinished { header: header::of(&frame, 0), bytes: pool.unwrap(frame) })
    }

    /// Memory for a frame, which is empty.
    pub fn buffer(&mut self) -> Vec<u8> {
        let frame = self.pool.copy(&[], Offload::default());
        self.pool.unwrap(frame)
    }

    /// Takes a frame's memory, to use it again.
    pub fn recycle(&mut self, frame: Vec<u8>) {
        let frame = self.pool.wrap(frame, Offload::default());
        self.pool.put(frame);
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
            // Each connection has a flow in either direction; without rules there are none.
            flows: net.groups.as_ref().map_or(usual.flows, |_| net.connections.saturating_mul(2).max(usual.flows)),
            send_limits: net.limits,
            receive_limits: net.limits,
            mtu: net.mtu,
            ..usual
        };
        self.add_port(&net.name, config, Receiver::new(net.queue_pairs))
    }

    fn add_outside(&mut self, name: &str, config: PortConfig) -> Result<PortId, PortError> {
        let mut receiver = Receiver::new(1);
        receiver.set_running(OUTSIDE, true, &mut self.pool);
        self.add_port(name, config, receiver)
    }

    fn add_port(&mut self, name: &str, config: PortConfig, receiver: Receiver) -> Result<PortId, PortError> {
        // More than the switch takes are refused by it.
        let port = PortId(u16::try_from(self.receivers.len()).unwrap_or(u16::MAX));
        self.switch.add_port(port, config).map_err(|reason| PortError::Refused { name: name.into(), reason })?;
        self.receivers.push(receiver);
        Ok(port)
    }

    fn add_group(&mut self, rules: &[Rule]) -> Result<GroupId, PortError> {
        let group = GroupId(self.groups);
        self.groups = self.groups.checked_add(1).ok_or(PortError::Groups)?;
        self.switch.set_group(group, rules);
        Ok(group)
    }

    /// Takes frames from a port; none are left in `frames`.
    pub(super) fn receive(&mut self, port: PortId, frames: &mut Vec<Buffered>, now_ns: u64) {
        let Self { switch, receivers, pool, routes, scratch, .. } = self;
        routes.begin(frames.len());
        let mut delivery = Delivery { frames, receivers, pool, routes, scratch };
        switch.receive(port, frames.as_slice(), now_ns, &mut delivery);
        routes.deliver(frames, receivers, pool);
    }

    /// Memory for frames.
    pub(super) fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// What waits for a pair of queues, and where the memory of frames goes that were taken.
    pub(super) fn waiting(&mut self, port: PortId, pair: u16) -> Option<(&mut Waiting, &mut Pool)> {
        let queue = self.receivers.get_mut(usize::from(port.0))?.queue(pair)?;
        Some((queue, &mut self.pool))
    }

    /// Says whether the guest's receive queue of this pair runs. Frames for one that does not are dropped.
    pub(super) fn set_running(&mut self, port: PortId, pair: u16, runs: bool) {
        if let Some(receiver) = self.receivers.get_mut(usize::from(port.0)) {
            receiver.set_running(pair, runs, &mut self.pool);
        }
    }

    /// Says how the guest wants its frames to be spread over its queues.
    pub(super) fn set_steering(&mut self, port: PortId, steering: Option<Steering>) {
        if let Some(receiver) = self.receivers.get_mut(usize::from(port.0)) {
            receiver.steering = steering;
        }
    }

    /// Says what frames may leave to the guest from now on.
    pub(super) fn set_features(&mut self, port: PortId, features: offload::Features) {
        if let Some(receiver) = self.receivers.get_mut(usize::from(port.0)) {
            receiver.features = features;
        }
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Fabric").field("ports", &self.receivers.len()).finish_non_exhaustive()
    }
}
