//! The switch against a model that has no cache, looks at everything for every frame, and keeps everything in maps.
//!
//! Random guests send random frames in batches while their rules, VLANs and addresses change and time goes by: both
//! must send the same frames to the same ports. So no frame passes by a decision that a change has made wrong.

mod common;

use std::collections::HashMap;

use common::*;
use dragonfly_vswitch::{
    MacAddress, PortConfig, PortId, Switch, SwitchConfig,
    identity::Identity,
    policy::{Action, Direction, FilterConfig, GroupId, Ports, Rule, Service},
    vlan::VlanMode,
};
use proptest::prelude::*;

const PORTS: u8 = 4;

/// A UDP datagram between small numbers.
#[derive(Clone, Debug)]
struct Datagram {
    macs: (u8, u8),
    addresses: (u8, u8),
    ports: (u16, u16),
    tag: Option<u16>,
}

impl Datagram {
    fn build(&self) -> Build {
        let build = Build::udp(self.macs.0, self.macs.1, self.ports, b"");
        let destination = if self.macs.1 == 7 { MacAddress::BROADCAST } else { mac(self.macs.1) };
        let build = Build { destination_mac: destination, ..build };
        let build = Build { addresses: ([10, 0, 0, self.addresses.0], [10, 0, 0, self.addresses.1]), ..build };
        self.tag.into_iter().fold(build, Build::tag)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send(u8, Vec<Datagram>),
    SetGroup(u16, Vec<Rule>),
    SetPortGroups(u8, Option<Vec<GroupId>>),
    ChangePort(u8, bool, VlanMode),
    Replace(u8),
    Wait(u64),
}

/// A station's port, whether it is bound, when it is forgotten.
type Station = (u8, bool, u64);

/// A connection's initiator and its destination port, whether it was answered, when it is forgotten.
type Connection = (Direction, u16, bool, u64);

/// Port, local and remote address and port, VLAN.
type ConnectionName = (u8, (u8, u16), (u8, u16), u16);

struct Model {
    ports: Vec<PortConfig>,
    rules: HashMap<u16, Vec<Rule>>,
    stations: HashMap<(MacAddress, u16), Station>,
    connections: HashMap<ConnectionName, Connection>,
}

impl Model {
    fn bind(&mut self, port: u8) {
        self.stations.retain(|_, station| station.0 != port);
        let config = &self.ports[usize::from(port)];
        for mac in config.identity.iter().flat_map(|identity| &identity.macs) {
            for vlan in config.vlan.all() {
                self.stations.insert((*mac, vlan), (port, true, u64::MAX));
            }
        }
    }

    /// What the rules of a port say, by asking each of them.
    fn ask(&self, port: u8, direction: Direction, remote: u8, service: u16) -> Option<Action> {
        let groups = self.ports[usize::from(port)].groups.clone()?;
        let address = u128::from(u32::from_be_bytes([10, 0, 0, remote]));
        let mut matching: Vec<_> = groups
            .iter()
            .filter_map(|group| self.rules.get(&group.0))
            .flatten()
            .filter(|rule| rule.direction == direction)
            .filter(|rule| rule.remote.is_none_or(|p| p.contains(dragonfly_vswitch::Family::V4, address)))
            .filter(|rule| match rule.service {
                Service::Any => true,
                Service::Udp(ports) => ports.first <= service && service <= ports.last,
                _ => false,
            })
            .map(|rule| (rule.priority, rule.action != Action::Deny, rule.action))
            .collect();
        matching.sort_by_key(|(priority, allows, action)| (*priority, *allows, *action));
        matching.first().map(|(.., action)| *action)
    }

    fn passes(&mut self, port: u8, direction: Direction, datagram: &Datagram, vlan: u16, now: u64) -> bool {
        if self.ports[usize::from(port)].groups.is_none() {
            return true;
        }
        let source = (datagram.addresses.0, datagram.ports.0);
        let destination = (datagram.addresses.1, datagram.ports.1);
        let (local, remote) =
            if direction == Direction::Egress { (source, destination) } else { (destination, source) };
        let answer = self.ask(port, direction, remote.0, datagram.ports.1);
        if answer == Some(Action::AllowStateless) {
            return true;
        }
        let key = (port, local, remote, vlan);
        let timeouts = FilterConfig::default().timeouts;
        let known = self.connections.get(&key).copied();
        if let Some((initiator, service, answered, expires)) = known
            && now < expires
            && self.ask(port, initiator, remote.0, service) == Some(Action::Allow)
        {
            let answered = answered || direction != initiator;
            let timeout = if answered { timeouts.answered } else { timeouts.new };
            self.connections.insert(key, (initiator, service, answered, now + timeout));
            return true;
        }
        self.connections.remove(&key);
        if answer != Some(Action::Allow) {
            return false;
        }
        self.connections.insert(key, (direction, datagram.ports.1, false, now + timeouts.new));
        true
    }

    fn send(&mut self, port: u8, datagram: &Datagram, now: u64) -> Vec<(PortId, Vec<u8>)> {
        let config = self.ports[usize::from(port)].clone();
        let vlan = match (&config.vlan, datagram.tag) {
            (VlanMode::Access(vlan), None) => *vlan,
            (VlanMode::Trunk { native: Some(vlan), .. }, None) => *vlan,
            (VlanMode::Trunk { tagged, .. }, Some(vlan)) if tagged.contains(&vlan) => vlan,
            _ => return vec![],
        };
        let build = datagram.build();
        if let Some(identity) = &config.identity {
            let address = u128::from(u32::from_be_bytes(build.addresses.0));
            if !identity.macs.contains(&build.source_mac)
                || !identity.addresses.iter().any(|p| p.contains(dragonfly_vswitch::Family::V4, address))
            {
                return vec![];
            }
        }
        let expires = now + SwitchConfig::new(1).station_lifetime_ns;
        let sender =
            self.stations.entry((build.source_mac, vlan)).or_insert((port, config.identity.is_some(), expires));
        if sender.0 == port {
            sender.2 = sender.2.max(expires);
        } else if sender.1 && now < sender.2 {
            return vec![];
        } else {
            *sender = (port, config.identity.is_some(), expires);
        }
        if !self.passes(port, Direction::Egress, datagram, vlan, now) {
            return vec![];
        }
        let known = self.stations.get(&(build.destination_mac, vlan)).filter(|station| now < station.2).copied();
        let is_group = build.destination_mac == MacAddress::BROADCAST;
        let mut sent = Vec::new();
        for other in (0..PORTS).filter(|&other| other != port) {
            let to = self.ports[usize::from(other)].clone();
            let is_meant = match known {
                Some((at, ..)) => at == other,
                None => is_group || to.identity.is_none(),
            };
            let is_in = to.vlan.all().any(|member| member == vlan);
            if !is_meant || !is_in || !self.passes(other, Direction::Ingress, datagram, vlan, now) {
                continue;
            }
            let is_tagged = matches!(&to.vlan, VlanMode::Trunk { tagged, .. } if tagged.contains(&vlan));
            let tag = is_tagged.then_some(vlan);
            sent.push((PortId(other.into()), Datagram { tag, ..datagram.clone() }.build().frame()));
        }
        sent
    }
}

fn datagrams() -> impl Strategy<Value = Vec<Datagram>> {
    let datagram = (
        (0..PORTS, 0..8_u8),
        (0..PORTS, 0..PORTS),
        (0..3_u16, 0..3_u16),
        prop_oneof![4 => Just(None), 1 => (1..3_u16).prop_map(Some)],
        prop::bool::weighted(0.85),
    );
    let datagram = datagram.prop_map(|(macs, addresses, ports, tag, is_usual)| {
        // Most say what belongs together, so that most pass.
        let addresses = if is_usual { (macs.0, macs.1 % PORTS) } else { addresses };
        Datagram { macs, addresses, ports, tag }
    });
    prop::collection::vec(datagram, 1..12)
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (
        0..3_u16,
        prop_oneof![Just(Direction::Egress), Just(Direction::Ingress)],
        prop_oneof![3 => Just(Action::Allow), 1 => Just(Action::AllowStateless), 1 => Just(Action::Deny)],
        prop_oneof![3 => Just(None), 1 => (0..PORTS).prop_map(|last| prefix(&format!("10.0.0.{last}/31")))],
        prop_oneof![
            2 => Just(Service::Any),
            2 => (0..3_u16).prop_map(|port| Service::Udp(Ports::one(port))),
            1 => Just(Service::Tcp(Ports::ALL)),
        ],
    );
    let rule = rule.prop_map(|(priority, direction, action, remote, service)| Rule {
        priority,
        direction,
        action,
        remote,
        service,
    });
    prop::collection::vec(rule, 0..5)
}

fn vlans() -> impl Strategy<Value = VlanMode> {
    prop_oneof![
        4 => Just(VlanMode::Access(1)),
        1 => Just(VlanMode::Access(2)),
        1 => Just(VlanMode::Trunk { tagged: vec![2], native: Some(1) }),
        1 => Just(VlanMode::Trunk { tagged: vec![1, 2], native: None }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let groups = prop::option::weighted(0.8, prop::collection::vec((0..2_u16).prop_map(GroupId), 0..3));
    let step = prop_oneof![
        12 => (0..PORTS, datagrams()).prop_map(|(port, datagrams)| Step::Send(port, datagrams)),
        2 => (0..2_u16, rules()).prop_map(|(group, rules)| Step::SetGroup(group, rules)),
        1 => (0..PORTS, groups).prop_map(|(port, groups)| Step::SetPortGroups(port, groups)),
        1 => (0..PORTS, any::<bool>(), vlans()).prop_map(|(port, bound, vlan)| Step::ChangePort(port, bound, vlan)),
        1 => (0..PORTS).prop_map(Step::Replace),
        2 => prop_oneof![0..1000_u64, 29 * SECOND..31 * SECOND, 290 * SECOND..310 * SECOND].prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

fn config(port: u8, is_bound: bool, vlan: VlanMode) -> PortConfig {
    let addresses = prefix(&format!("10.0.0.{port}/32")).into_iter().collect();
    let identity = is_bound.then(|| Identity { macs: vec![mac(port)], addresses });
    let filter = FilterConfig { connections: 1024, ..FilterConfig::default() };
    PortConfig { identity, vlan, filter, flows: 16, ..guest() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_switch_does_what_the_model_does(steps in steps()) {
        let configs: Vec<_> = (0..PORTS).map(|port| config(port, false, VlanMode::Access(1))).collect();
        let mut switch = switch_of(configs.clone());
        let mut model =
            Model { ports: configs, rules: HashMap::new(), stations: HashMap::new(), connections: HashMap::new() };
        let mut now = 0;
        for step in steps {
            now += 1;
            match step {
                Step::Send(port, datagrams) => {
                    // Twice, so that the cache is asked even where flows are many.
                    for _ in 0..2 {
                        let frames: Vec<_> = datagrams.iter().map(|datagram| datagram.build().frame()).collect();
                        let batch: Vec<_> = frames.iter().map(|frame| &frame[..]).collect();
                        let sent = send(&mut switch, port.into(), &batch, now).sent;
                        let expected: Vec<_> =
                            datagrams.iter().flat_map(|datagram| model.send(port, datagram, now)).collect();
                        prop_assert_eq!(sent, expected, "from port {} at {}: {:?}", port, now, datagrams);
                    }
                }
                Step::SetGroup(group, rules) => {
                    switch.set_group(GroupId(group), &rules);
                    model.rules.insert(group, rules);
                }
                Step::SetPortGroups(port, groups) => {
                    prop_assert_eq!(switch.set_port_groups(PortId(port.into()), groups.as_deref()), Ok(()));
                    if groups.is_none() {
                        model.connections.retain(|key, _| key.0 != port);
                    }
                    model.ports[usize::from(port)].groups = groups;
                }
                Step::ChangePort(port, is_bound, vlan) => {
                    let groups = model.ports[usize::from(port)].groups.clone();
                    let config = PortConfig { groups, ..config(port, is_bound, vlan) };
                    prop_assert_eq!(switch.change_port(PortId(port.into()), config.clone()), Ok(()));
                    model.ports[usize::from(port)] = config;
                    model.bind(port);
                }
                Step::Replace(port) => replace(&mut switch, &mut model, port),
                Step::Wait(time) => now += time,
            }
        }
    }
}

/// A guest goes and another comes in its place.
fn replace(switch: &mut Switch, model: &mut Model, port: u8) {
    let config = config(port, false, VlanMode::Access(1));
    switch.remove_port(PortId(port.into())).expect("it exists");
    switch.add_port(PortId(port.into()), config.clone()).expect("its place is free");
    model.ports[usize::from(port)] = config;
    model.connections.retain(|key, _| key.0 != port);
    model.bind(port);
}
