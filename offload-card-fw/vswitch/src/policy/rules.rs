//! Rules, the groups that they come in, and the list that a port's groups make together.

use alloc::{vec, vec::Vec};

use crate::{
    address::{Family, Prefix},
    counters::Count,
    packet::protocol,
};

/// Which way a packet goes, as the guest sees it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the guest.
    #[default]
    Egress,
    /// To the guest.
    Ingress,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Egress => Self::Ingress,
            Self::Ingress => Self::Egress,
        }
    }
}

/// What a rule does with packets that it matches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Action {
    /// They are dropped.
    Deny,
    /// They open a connection; it and its answers pass. ICMP messages that ask for no answer just pass.
    Allow,
    /// They pass without a look at connections, and nothing is remembered: answers need a rule of their own.
    AllowStateless,
}

/// Port numbers from `first` to `last`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ports {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

impl Ports {
    /// All of them.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// A single one.
    #[must_use]
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

/// What a packet that opens a connection asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Anything that IP carries.
    Any,
    /// TCP to these destination ports.
    Tcp(Ports),
    /// UDP to these destination ports.
    Udp(Ports),
    /// ICMP of the packet's family; messages of one type, or all.
    Icmp(Option<u8>),
    /// Another protocol by its number.
    Protocol(u8),
}

/// One line of a security group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The lowest number that matches decides; of equals, one that denies.
    pub priority: u16,
    /// For packets of this direction; answers to them need no rule.
    pub direction: Direction,
    /// What is done.
    pub action: Action,
    /// Who the guest talks with; `None` for everybody of both families.
    pub remote: Option<Prefix>,
    /// What about.
    pub service: Service,
}

/// A group's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct GroupId(pub u16);

/// Names a rule by its group and its index there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleRef {
    group: u16,
    rule: u16,
}

impl RuleRef {
    /// No rule: packets that need none.
    pub const NONE: Self = Self { group: u16::MAX, rule: u16::MAX };
}

#[derive(Default)]
struct Group {
    rules: Vec<Rule>,
    counts: Vec<Count>,
}

/// All groups, with the traffic of each rule.
#[derive(Default)]
pub struct Groups(Vec<Group>);

impl Groups {
    /// Sets a group's rules, whose counters begin at zero. Only the first 65,535 rules count.
    pub fn set(&mut self, id: GroupId, rules: &[Rule]) {
        let index = usize::from(id.0);
        if self.0.len() <= index {
            self.0.resize_with(index + 1, Group::default);
        }
        let rules = &rules[..rules.len().min(usize::from(u16::MAX))];
        if let Some(group) = self.0.get_mut(index) {
            *group = Group { rules: rules.to_vec(), counts: vec![Count::default(); rules.len()] };
        }
    }

    /// The traffic that each rule of a group let pass or denied.
    #[must_use]
    pub fn counts(&self, id: GroupId) -> &[Count] {
        self.0.get(usize::from(id.0)).map_or(&[], |group| &group.counts)
    }

    /// Counts a frame for the rule that decided about it.
    #[inline]
    pub fn count(&mut self, rule: RuleRef, bytes: usize) {
        if let Some(group) = self.0.get_mut(usize::from(rule.group))
            && let Some(count) = group.counts.get_mut(usize::from(rule.rule))
        {
            count.add(bytes);
        }
    }
}

impl Default for RuleRef {
    fn default() -> Self {
        Self::NONE
    }
}

/// What is asked of a rule list about a packet that no connection covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Which way it goes.
    pub direction: Direction,
    /// Its family.
    pub family: Family,
    /// The address of who the guest talks with.
    pub remote: u128,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, or ICMP type.
    pub service: u16,
}

#[derive(Clone, Copy)]
struct CompiledRule {
    remote: Option<Prefix>,
    /// Lowest and highest protocol number.
    protocols: (u8, u8),
    services: Ports,
    priority: u16,
    action: Action,
    name: RuleRef,
}

/// The rules of a port's groups, in the order in which they are asked.
#[derive(Default)]
pub struct RuleSet {
    egress: Vec<CompiledRule>,
    ingress: Vec<CompiledRule>,
}

impl RuleSet {
    /// Puts the rules of some groups in order. A group that does not exist has no rules.
    #[must_use]
    pub fn new(groups: &Groups, ids: &[GroupId]) -> Self {
        let mut set = Self::default();
        for id in ids {
            let rules = groups.0.get(usize::from(id.0)).map_or(&[][..], |group| &group.rules);
            for (index, rule) in (0..).zip(rules) {
                let list = match rule.direction {
                    Direction::Egress => &mut set.egress,
                    Direction::Ingress => &mut set.ingress,
                };
                list.extend(compile(rule, RuleRef { group: id.0, rule: index }));
            }
        }
        for list in [&mut set.egress, &mut set.ingress] {
            list.sort_by_key(|rule| (rule.priority, rule.action));
        }
        set
    }

    /// Whether some rule for a direction lets packets pass without remembering them.
    #[must_use]
    pub fn has_stateless(&self, direction: Direction) -> bool {
        self.list(direction).iter().any(|rule| rule.action == Action::AllowStateless)
    }

    /// What the first rule that matches does; `None` if none matches.
    #[must_use]
    pub fn ask(&self, question: &Question) -> Option<(Action, RuleRef)> {
        let matches = |rule: &&CompiledRule| {
            (rule.services.first..=rule.services.last).contains(&question.service)
                && (rule.protocols.0..=rule.protocols.1).contains(&question.protocol)
                && rule.remote.is_none_or(|prefix| prefix.contains(question.family, question.remote))
        };
        self.list(question.direction).iter().find(matches).map(|rule| (rule.action, rule.name))
    }

    fn list(&self, direction: Direction) -> &[CompiledRule] {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// A rule in the form in which it is asked: two for ICMP, whose number depends on the family.
fn compile(rule: &Rule, name: RuleRef) -> impl Iterator<Item = CompiledRule> + use<> {
    let types = |kind: Option<u8>| kind.map_or(Ports::ALL, |kind| Ports::one(kind.into()));
    let one = |number| (number, number);
    let (first, second, services) = match rule.service {
        Service::Any => ((0, u8::MAX), None, Ports::ALL),
        Service::Tcp(ports) => (one(protocol::TCP), None, ports),
        Service::Udp(ports) => (one(protocol::UDP), None, ports),
        Service::Icmp(kind) => (one(protocol::ICMP), Some(one(protocol::ICMPV6)), types(kind)),
        Service::Protocol(number) => (one(number), None, Ports::ALL),
    };
    let Rule { priority, action, remote, .. } = *rule;
    let compiled = move |protocols| CompiledRule { remote, protocols, services, priority, action, name };
    [Some(first), second].into_iter().flatten().map(compiled)
}
