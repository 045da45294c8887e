//! Security groups that change while the card runs.

use dragonfly_card_devices::{Fabric, tables::Devices};
use dragonfly_vswitch::policy::{GroupId, Rule};
use log::{info, warn};

use crate::{machine::Machine, orders::Counter};

/// Changes the rules of a running card's security groups.
#[derive(Debug)]
pub struct Rules {
    /// What the card was started with.
    devices: Devices,
    /// The number of the first group; the others of `devices` follow.
    first: GroupId,
    switch: Counter<Fabric>,
}

impl Rules {
    /// For the switch that takes these orders. Its ports are those of `devices`, whose groups have numbers from `first` on.
    #[must_use]
    pub fn new(devices: Devices, first: GroupId, switch: Counter<Fabric>) -> Self {
        Self { devices, first, switch }
    }

    /// Orders the rules that a machine file has now; the log tells when they are in force. A group that it no longer has lets
    /// nothing pass. Whatever else has changed there is for the next start.
    pub fn change(&self, machine: &Machine) {
        if !self.is_same_but_for_rules(&machine.devices) {
            warn!(
                "the machine file differs in more than its rules: the rest takes effect when the card is started anew"
            );
        }
        let groups = self.devices.groups.iter().zip(self.first.0..);
        let changes: Vec<_> =
            groups.map(|(group, number)| (GroupId(number), rules_of(&machine.devices, &group.name))).collect();
        self.switch.order(move |fabric| {
            for (group, rules) in &changes {
                fabric.set_rules(*group, rules);
            }
            let rules: usize = changes.iter().map(|(_, rules)| rules.len()).sum();
            info!("{rules} rules of {} groups are in force", changes.len());
        });
    }

    fn is_same_but_for_rules(&self, devices: &Devices) -> bool {
        let nets = |devices: &Devices| {
            let with_names = devices.nets.iter().map(|net| {
                let mut net = net.clone();
                // Their places change with those of the rules.
                (group_names(devices, net.groups.take().as_deref()), net)
            });
            with_names.collect::<Vec<_>>()
        };
        self.devices.disks == devices.disks && nets(&self.devices) == nets(devices)
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
