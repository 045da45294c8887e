//! Security groups that change while the card runs.

use dragonfly_card_devices::{Fabric, Groups, tables::Devices};
use dragonfly_vswitch::policy::GroupId;
use log::{info, warn};

use crate::{machine::Machine, orders::Counter};

/// Changes the rules of a running card's security groups.
#[derive(Debug)]
pub struct Rules {
    groups: Groups,
    switch: Counter<Fabric>,
}

impl Rules {
    /// For the switch that takes these orders. Its ports are those of `devices`, whose groups have numbers from `first` on.
    #[must_use]
    pub fn new(devices: Devices, first: GroupId, switch: Counter<Fabric>) -> Self {
        Self { groups: Groups::new(devices, first), switch }
    }

    /// Orders the rules that a machine file has now; the log tells when they are in force. A group that it no longer has lets
    /// nothing pass. Whatever else has changed there is for the next start.
    pub fn change(&self, machine: &Machine) {
        let change = self.groups.change(&machine.devices);
        if change.differs_in_more {
            warn!(
                "the machine file differs in more than its rules: the rest takes effect when the card is started anew"
            );
        }
        self.switch.order(move |fabric| {
            change.make(fabric);
            let (rules, groups) = change.count();
            info!("{rules} rules of {groups} groups are in force");
        });
    }
}
