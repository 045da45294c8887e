//! The switch: its ports and tables, and how they are changed. [`receive`] is the way of a frame.

mod decide;
mod deliver;
mod receive;

use alloc::{boxed::Box, collections::BTreeMap, vec, vec::Vec};

use crate::{
    address::MacAddress,
    capture::CaptureConfig,
    counters::{Count, PortCounters},
    frame::Offload,
    limit::{Policer, Rate},
    packet::Packet,
    policy::{Filter, GroupId, Groups, Rule, RuleSet, State},
    port::{Port, PortConfig, PortId, Role},
    tables::{FlowCache, Hasher, MacTable, Sighting},
    tunnel::{Tunnel, TunnelName},
};

/// The highest port number and one.
const MAX_PORTS: usize = 1024;

/// Answers to frames that were too long, for each port.
const ERROR_RATE: Option<Rate> = match (core::num::NonZeroU64::new(100), core::num::NonZeroU64::new(10)) {
    (Some(per_second), Some(burst)) => Some(Rate { per_second, burst }),
    _ => None,
};

/// How a switch is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwitchConfig {
    /// Random and secret, so that nobody can aim at a table's buckets.
    pub seed: u64,
    /// Stations of all ports together.
    pub stations: u32,
    /// How long a station is remembered that does not send; IEEE 802.1Q 8.8.3 recommends 300 s.
    pub station_lifetime_ns: u64,
}

impl SwitchConfig {
    /// A switch of the usual size.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, stations: 8192, station_lifetime_ns: 300_000_000_000 }
    }
}

/// Why a change is refused: a mistake of whoever manages the card. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// Port numbers go up to 1,023.
    PortNumber,
    /// There is such a port already.
    PortExists,
    /// There is no such port.
    NoSuchPort,
    /// All stations of the switch are promised to other ports.
    Stations,
    /// A VLAN's number is not in 0 to 4,094.
    Vlan,
    /// An Ethernet address of the port is a group's, or bound to another port.
    Mac,
    /// A tunnel's addresses are of two families, its numbers are out of range, or it is the same as another.
    Tunnel,
}

/// A virtual Ethernet switch.
pub struct Switch {
    ports: Vec<Option<Box<Port>>>,
    stations: MacTable,
    groups: Groups,
    tunnels: BTreeMap<TunnelName, PortId>,
    hasher: Hasher,
    /// The last generation that was given to a port.
    generation: u64,
    station_lifetime_ns: u64,
    /// Of the batch at hand, and of earlier ones: always as many.
    batch: Vec<Arrival>,
}

/// A frame of a batch, parsed and looked up.
#[derive(Clone, Copy)]
struct Arrival {
    packet: Packet,
    /// Index in the batch.
    frame: usize,
    /// Where it comes from: a tunnel's port if it came through one.
    source: PortId,
    /// Outer bytes before it.
    strip: u16,
    length: u32,
    offload: Offload,
    hash: u64,
    /// Of the same flow as the one before it in the batch, from the same port.
    follows: bool,
    /// Where the cache may know it; `None` to decide it anew.
    place: Option<u32>,
}

impl Arrival {
    /// Room for one.
    const EMPTY: Self = Self {
        packet: Packet::EMPTY,
        frame: 0,
        source: PortId(0),
        strip: 0,
        length: 0,
        offload: Offload { checksum: None, segmentation: None, is_valid: false },
        hash: 0,
        follows: false,
        place: None,
    };
}

impl Switch {
    /// A switch without ports.
    #[must_use]
    pub fn new(config: SwitchConfig) -> Self {
        let hasher = Hasher::new(config.seed);
        Self {
            ports: Vec::new(),
            stations: MacTable::new(config.stations, hasher),
            groups: Groups::default(),
            tunnels: BTreeMap::new(),
            hasher,
            generation: 0,
            station_lifetime_ns: config.station_lifetime_ns,
            batch: vec![Arrival::EMPTY; receive::BATCH],
        }
    }

    /// Adds a port.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn add_port(&mut self, id: PortId, config: PortConfig) -> Result<(), ConfigError> {
        if id.index() >= MAX_PORTS {
            return Err(ConfigError::PortNumber);
        }
        if self.port(id).is_some() {
            return Err(ConfigError::PortExists);
        }
        self.check(id, &config)?;
        if !self.stations.add_port(id, config.stations) {
            return Err(ConfigError::Stations);
        }
        if self.ports.len() <= id.index() {
            self.ports.resize_with(id.index() + 1, || None);
        }
        let port = Port {
            generation: 0,
            cache: FlowCache::new(config.flows),
            filter: None,
            counters: PortCounters::default(),
            send_policer: Policer::default(),
            receive_policer: Policer::default(),
            flood_policer: Policer::default(),
            error_policer: Policer::of_packets(ERROR_RATE),
            capture: None,
            longest_packet: 0,
            config,
        };
        self.ports[id.index()] = Some(Box::new(port));
        self.set_up(id);
        Ok(())
    }

    /// Changes how a port is set up. Its counters go on, and so do its connections if it keeps its filter's set-up;
    /// they are judged by the new rules.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn change_port(&mut self, id: PortId, config: PortConfig) -> Result<(), ConfigError> {
        let old_quota = self.port(id).ok_or(ConfigError::NoSuchPort)?.config.stations;
        self.check(id, &config)?;
        self.stations.remove_port(id);
        if !self.stations.add_port(id, config.stations) {
            // The old share has just become free.
            let _fits = self.stations.add_port(id, old_quota);
            self.bind_stations(id);
            return Err(ConfigError::Stations);
        }
        self.tunnels.retain(|_, port| *port != id);
        if let Some(port) = self.port_mut(id) {
            if port.config.flows != config.flows {
                port.cache = FlowCache::new(config.flows);
            }
            if port.config.filter != config.filter {
                port.filter = None;
            }
            port.config = config;
        }
        self.set_up(id);
        Ok(())
    }

    /// Changes a port's security groups alone.
    ///
    /// # Errors
    /// [`ConfigError::NoSuchPort`].
    pub fn set_port_groups(&mut self, id: PortId, groups: Option<&[GroupId]>) -> Result<(), ConfigError> {
        let port = self.port_mut(id).ok_or(ConfigError::NoSuchPort)?;
        port.config.groups = groups.map(Into::into);
        self.compile(id);
        Ok(())
    }

    /// The switch takes the place of one that guests had connections through: for two minutes the filters of all ports take a TCP
    /// segment that goes on with a connection which they do not know for one of a connection that rules allowed to be opened.
    pub fn pick_up_connections(&mut self, now_ns: u64) {
        for filter in self.ports.iter_mut().flatten().filter_map(|port| port.filter.as_mut()) {
            filter.pick_up_connections(now_ns);
        }
    }

    /// Changes who takes a tunnel's packets.
    ///
    /// # Errors
    /// [`ConfigError::NoSuchPort`], also if it is no tunnel's.
    pub fn set_next_hop(&mut self, id: PortId, mac: MacAddress) -> Result<(), ConfigError> {
        let port = self.port_mut(id).ok_or(ConfigError::NoSuchPort)?;
        let Role::Tunnel(tunnel) = &mut port.config.role else { return Err(ConfigError::NoSuchPort) };
        tunnel.next_hop_mac = mac;
        // What passed by the old one is decided anew.
        self.compile(id);
        Ok(())
    }

    /// Takes a port away, with its stations and connections.
    ///
    /// # Errors
    /// [`ConfigError::NoSuchPort`].
    pub fn remove_port(&mut self, id: PortId) -> Result<(), ConfigError> {
        self.ports.get_mut(id.index()).and_then(Option::take).ok_or(ConfigError::NoSuchPort)?;
        self.stations.remove_port(id);
        self.tunnels.retain(|_, port| *port != id);
        self.set_up_tunnels_through(id);
        Ok(())
    }

    /// Sets the rules of a security group; none takes it away. When this returns, no frame passes by the old ones.
    pub fn set_group(&mut self, id: GroupId, rules: &[Rule]) {
        self.groups.set(id, rules);
        for index in 0..self.ports.len() {
            // Below `MAX_PORTS`.
            let port_id = PortId(index as u16);
            let uses_it = |port: &Port| port.config.groups.as_ref().is_some_and(|groups| groups.contains(&id));
            if self.port(port_id).is_some_and(uses_it) {
                self.compile(port_id);
            }
        }
    }

    /// Starts or ends the capture of a port.
    ///
    /// # Errors
    /// [`ConfigError::NoSuchPort`].
    pub fn set_capture(&mut self, id: PortId, capture: Option<CaptureConfig>) -> Result<(), ConfigError> {
        self.port_mut(id).ok_or(ConfigError::NoSuchPort)?.capture = capture;
        Ok(())
    }

    /// What a port has counted.
    #[must_use]
    pub fn counters(&self, id: PortId) -> Option<&PortCounters> {
        self.port(id).map(|port| &port.counters)
    }

    /// The frames and bytes that each rule of a group decided about, in the order of its rules.
    #[must_use]
    pub fn rule_counts(&self, id: GroupId) -> &[Count] {
        self.groups.counts(id)
    }

    /// The states of a port's connections.
    pub fn connection_states(&self, id: PortId, now_ns: u64) -> impl Iterator<Item = State> {
        self.port(id).and_then(|port| port.filter.as_ref()).into_iter().flat_map(move |filter| filter.states(now_ns))
    }

    /// The port behind which a station was learnt.
    #[must_use]
    pub fn station(&self, mac: MacAddress, vlan: u16, now_ns: u64) -> Option<PortId> {
        self.stations.find(mac, vlan, now_ns).map(|(_, station)| station.port)
    }

    /// Forgets stations and connections whose time is over, looking at `places` of each table. Frames never meet one
    /// that is over; this only keeps tables roomy and counts true, and is for when there is nothing else to do.
    pub fn expire(&mut self, now_ns: u64, places: u32) {
        self.stations.expire(now_ns, places);
        for filter in self.ports.iter_mut().flatten().filter_map(|port| port.filter.as_mut()) {
            filter.expire(now_ns, places);
        }
    }

    #[inline]
    fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())?.as_deref()
    }

    #[inline]
    fn port_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(id.index())?.as_deref_mut()
    }

    const fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Checks what does not depend on the table of stations' room.
    fn check(&self, id: PortId, config: &PortConfig) -> Result<(), ConfigError> {
        if config.vlan.all().any(|vlan| vlan > 4094) {
            return Err(ConfigError::Vlan);
        }
        if let Role::Tunnel(tunnel) = &config.role {
            let is_taken = self.tunnels.get(&tunnel.name()).is_some_and(|port| *port != id);
            if !tunnel.is_consistent() || is_taken {
                return Err(ConfigError::Tunnel);
            }
        }
        for mac in config.identity.iter().flat_map(|identity| &identity.macs) {
            let is_bound = |vlan| {
                let others = self.ports.iter().enumerate().filter(|(index, _)| *index != id.index());
                others
                    .filter_map(|(_, port)| port.as_ref())
                    .any(|port| port.config.vlan.is_in(vlan) && port.bound_macs().contains(mac))
            };
            if mac.is_group() || config.vlan.all().any(is_bound) {
                return Err(ConfigError::Mac);
            }
        }
        Ok(())
    }

    /// Makes everything of a port that follows from its configuration.
    fn set_up(&mut self, id: PortId) {
        let uplinks_mtu = |tunnel: &Tunnel| self.port(tunnel.uplink).map_or(0, |uplink| uplink.config.mtu);
        let tunnel = self.port(id).and_then(Port::tunnel).copied();
        let tunnels_longest = tunnel.map(|tunnel| tunnel.longest_packet(uplinks_mtu(&tunnel)));
        if let Some(tunnel) = tunnel {
            self.tunnels.insert(tunnel.name(), id);
        }
        if let Some(port) = self.port_mut(id) {
            let config = &port.config;
            port.send_policer = Policer::new(&config.send_limits);
            port.receive_policer = Policer::new(&config.receive_limits);
            port.flood_policer = Policer::of_packets(config.flood_limit);
            port.longest_packet = usize::from(config.mtu).min(tunnels_longest.unwrap_or(usize::MAX));
        }
        self.bind_stations(id);
        self.compile(id);
        self.set_up_tunnels_through(id);
    }

    /// Tunnels depend on their uplink's MTU; without it, nothing fits.
    fn set_up_tunnels_through(&mut self, uplink: PortId) {
        let goes_through = |id: &PortId| {
            *id != uplink && self.port(*id).and_then(Port::tunnel).is_some_and(|tunnel| tunnel.uplink == uplink)
        };
        let dependent: Vec<PortId> = self.tunnels.values().copied().filter(goes_through).collect();
        for id in dependent {
            self.set_up(id);
        }
    }

    /// Puts the addresses that belong to a port into the table for good.
    fn bind_stations(&mut self, id: PortId) {
        let Some(port) = self.ports.get(id.index()).and_then(Option::as_deref) else { return };
        let seen = Sighting { port: id, is_bound: true, now_ns: 0, expires_ns: u64::MAX };
        for mac in port.bound_macs() {
            for vlan in port.config.vlan.all() {
                // Those beyond the port's share are learnt when they send.
                self.stations.learn(*mac, vlan, seen);
            }
        }
    }

    /// Puts a port's rules in order and begins a new generation.
    fn compile(&mut self, id: PortId) {
        let generation = self.next_generation();
        let hasher = self.hasher;
        let Some(port) = self.ports.get_mut(id.index()).and_then(Option::as_deref_mut) else { return };
        port.generation = generation;
        match &port.config.groups {
            None => port.filter = None,
            Some(groups) => {
                let rules = RuleSet::new(&self.groups, groups);
                let filter = port.filter.get_or_insert_with(|| Filter::new(port.config.filter, hasher));
                filter.set_rules(rules, generation);
            }
        }
    }
}
