//! Security groups whose rules change while their switch runs.

use alloc::{string::String, vec::Vec};

use dragonfly_vswitch::policy::{GroupId, Rule};

use crate::{Fabric, tables::Devices};

/// The security groups of a machine file that a switch has.
#[derive(Clone, Debug)]
pub struct Groups {
    /// What the switch was told of at the start.
    devices: Devices,
    /// The number of the first group; the others follow.
    first: GroupId,
}

/// New rules for all groups of a machine file.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whether the machine file differs in more than its rules: that is for the next start.
    pub differs_in_more: bool,
    rules: Vec<(GroupId, Vec<Rule>)>,
}

impl Groups {
    /// The groups of a machine file with these devices, which a switch has from the number `first` on.
    #[must_use]
    pub fn new(devices: Devices, first: GroupId) -> Self {
        Self { devices, first }
    }

    /// What the machine file's devices, as they are now, change. A group that is no longer there lets nothing pass; one that is
    /// new is nobody's.
    #[must_use]
    pub fn change(&self, now: &Devices) -> Change {
        let numbers = (self.first.0..).map(GroupId);
        let rules = self.devices.groups.iter().zip(numbers).map(|(group, number)| (number, rules_of(now, &group.name)));
        Change { differs_in_more: !self.is_same_but_for_rules(now), rules: rules.collect() }
    }

    fn is_same_but_for_rules(&self, now: &Devices) -> bool {
        let nets = |devices: &Devices| {
            let with_names = devices.nets.iter().map(|net| {
                let mut net = net.clone();
                // Their places change with those of the rules.
                (group_names(devices, net.groups.take().as_deref()), net)
            });
            with_names.collect::<Vec<_>>()
        };
        self.devices.disks == now.disks && nets(&self.devices) == nets(now)
    }
}

impl Change {
    /// Puts the rules in the place of the old ones; once this returns, nothing more reaches anybody by an old one.
    pub fn make(&self, fabric: &mut Fabric) {
        for (group, rules) in &self.rules {
            fabric.set_rules(*group, rules);
        }
    }

    /// Numbers of rules and of groups.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        (self.rules.iter().map(|(_, rules)| rules.len()).sum(), self.rules.len())
    }
}

fn rules_of(devices: &Devices, name: &str) -> Vec<Rule> {
    devices.groups.iter().find(|group| group.name == name).map_or_else(Vec::new, |group| group.rules.clone())
}

/// The names of a network device's groups.
fn group_names(devices: &Devices, groups: Option<&[GroupId]>) -> Option<Vec<String>> {
    let name = |id: &GroupId| devices.groups.get(usize::from(id.0)).map(|group| group.name.clone());
    groups?.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use dragonfly_settings::Document;

    use super::*;

    fn devices(net: &str, rules: &[&str]) -> Devices {
        let rules = rules.iter().map(|group| {
            format!("[[rule]]\ngroup = \"{group}\"\ndirection = \"in\"\naction = \"allow\"\nprotocol = \"tcp\"\n")
        });
        let text = format!("[[net]]\nname = \"n\"\nmac = \"02:00:00:00:00:01\"\n{net}\n{}", rules.collect::<String>());
        Devices::read(&Document::parse("m.toml", &text).unwrap().top(), &[], |_| None).unwrap()
    }

    #[test]
    fn each_group_has_the_rules_that_the_file_has_for_its_name_now() {
        let groups = Groups::new(devices("groups = [\"a\", \"b\"]", &["a", "b"]), GroupId(7));
        let change = groups.change(&devices("groups = [\"a\", \"b\"]", &["b", "c", "b", "a"]));
        let counts: Vec<_> = change.rules.iter().map(|(group, rules)| (group.0, rules.len())).collect();
        assert_eq!((&counts[..], change.count(), change.differs_in_more), (&[(7, 1), (8, 2)][..], (3, 2), false));
    }

    #[test]
    fn a_group_that_is_gone_lets_nothing_pass_and_other_changes_are_told() {
        let groups = Groups::new(devices("groups = [\"a\"]", &["a"]), GroupId(0));
        let change = groups.change(&devices("mtu = 1400", &[]));
        assert_eq!((change.count(), change.differs_in_more), ((0, 1), true));
    }
}
