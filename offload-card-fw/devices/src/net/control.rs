//! The control queue's commands (virtio 1.2 5.1.6.5).

use alloc::vec::Vec;

use dragonfly_vswitch::MacAddress;

use super::{
    Features,
    filter::{Mode, ReceiveFilter},
    steering::Steering,
};

/// The longest command that is read: its two numbers, and a table of a few hundred addresses.
pub const MAX_COMMAND: usize = 4096;

/// What a command is answered with.
pub const OK: u8 = 0;
pub const ERR: u8 = 1;

/// Classes of commands.
mod class {
    pub const RX: u8 = 0;
    pub const MAC: u8 = 1;
    pub const VLAN: u8 = 2;
    pub const ANNOUNCE: u8 = 3;
    pub const MQ: u8 = 4;
    pub const GUEST_OFFLOADS: u8 = 5;
}

/// What can be set by commands.
#[derive(Clone, Debug)]
pub struct ControlState {
    /// The device's own address.
    mac: MacAddress,
    /// Pairs of queues that the device has.
    pairs: u16,
    /// What was negotiated.
    pub features: Features,
    /// The pairs in use.
    pub active_pairs: u16,
    /// Of the negotiated offloads of the driver, those in use.
    pub guest_offloads: Features,
    /// What is received.
    pub filter: ReceiveFilter,
    /// The driver is asked to announce its station.
    pub is_to_announce: bool,
    /// How the driver wants frames to be spread over all pairs; else the card does it, over the active ones.
    pub steering: Option<Steering>,
}

impl ControlState {
    /// As it is after a reset, with what is negotiated next.
    pub fn new(mac: MacAddress, pairs: u16, features: Features) -> Self {
        Self {
            mac,
            pairs,
            features,
            active_pairs: 1,
            guest_offloads: features & Features::GUEST_OFFLOADS,
            filter: ReceiveFilter::new(mac),
            is_to_announce: false,
            steering: None,
        }
    }

    /// Does what a command says: a class, a command's number, and data. What is not understood changes nothing.
    pub fn perform(&mut self, command: &[u8]) -> u8 {
        let [class, number, data @ ..] = command else { return ERR };
        match self.try_perform(*class, *number, data) {
            Some(()) => OK,
            None => ERR,
        }
    }

    /// Whether the driver wants a frame that is for the port.
    pub fn wants(&self, frame: &[u8]) -> bool {
        (!self.features.contains(Features::CTRL_RX) || self.filter.wants_address(frame))
            && (!self.features.contains(Features::CTRL_VLAN) || self.filter.wants_vlan(frame))
    }

    fn try_perform(&mut self, class: u8, number: u8, data: &[u8]) -> Option<()> {
        match (class, number) {
            (class::RX, _) => self.set_mode(number, data),
            (class::MAC, 0) if self.has(Features::CTRL_RX) => self.set_addresses(data),
            // The card decides which address a guest has.
            (class::MAC, 1) => (self.has(Features::CTRL_MAC_ADDR) && data == self.mac.0).then_some(()),
            (class::VLAN, 0 | 1) if self.has(Features::CTRL_VLAN) => {
                let vlan = u16::from_le_bytes(data.try_into().ok()?);
                (vlan < 4096).then(|| self.filter.set_vlan(vlan, number == 0))
            }
            (class::ANNOUNCE, 0) if self.has(Features::GUEST_ANNOUNCE) && data.is_empty() => {
                self.is_to_announce = false;
                Some(())
            }
            (class::MQ, 0) if self.has(Features::MQ) => {
                let pairs = u16::from_le_bytes(data.try_into().ok()?);
                (1..=self.pairs).contains(&pairs).then(|| (self.active_pairs, self.steering) = (pairs, None))
            }
            (class::MQ, 1) if self.has(Features::RSS) => {
                self.steering = Some(Steering::parse(data, self.pairs)?);
                Some(())
            }
            (class::GUEST_OFFLOADS, 0) if self.has(Features::CTRL_GUEST_OFFLOADS) => {
                let wanted = u64::from_le_bytes(data.try_into().ok()?);
                let offloads = Features::from_bits(wanted)?;
                let allowed = self.features & Features::GUEST_OFFLOADS;
                allowed.contains(offloads).then(|| self.guest_offloads = offloads)
            }
            _ => None,
        }
    }

    fn set_mode(&mut self, number: u8, data: &[u8]) -> Option<()> {
        let mode = *Mode::ALL.get(usize::from(number))?;
        let needed = mode_feature(mode);
        match data {
            [switch @ (0 | 1)] if self.has(needed) => {
                self.filter.set_mode(mode, *switch == 1);
                Some(())
            }
            _ => None,
        }
    }

    /// Two tables: stations, then groups.
    fn set_addresses(&mut self, data: &[u8]) -> Option<()> {
        let (unicast, data) = addresses(data)?;
        let (multicast, rest) = addresses(data)?;
        rest.is_empty().then(|| self.filter.set_addresses(unicast, multicast))
    }

    /// Commands that bring a device with the same features, after its reset, to this state: what another card is to go on with.
    pub fn commands(&self) -> Vec<Vec<u8>> {
        let mut commands = Vec::new();
        let mut say = |class: u8, number: u8, data: &[u8]| commands.push([&[class, number], data].concat());
        for (number, mode) in (0..).zip(Mode::ALL).filter(|(_, mode)| self.has(mode_feature(*mode))) {
            say(class::RX, number, &[self.filter.has(mode).into()]);
        }
        if self.has(Features::CTRL_RX) {
            let tables = self.filter.addresses().map(|table| {
                let count = (table.len() as u32).to_le_bytes();
                count.into_iter().chain(table.iter().flat_map(|address| address.0)).collect::<Vec<_>>()
            });
            say(class::MAC, 0, &tables.concat());
        }
        for vlan in self.filter.vlans() {
            say(class::VLAN, 0, &vlan.to_le_bytes());
        }
        if self.has(Features::MQ) {
            say(class::MQ, 0, &self.active_pairs.to_le_bytes());
        }
        // After the number of pairs, which ends it.
        if let Some(steering) = &self.steering {
            say(class::MQ, 1, &steering.encode());
        }
        if self.has(Features::CTRL_GUEST_OFFLOADS) {
            say(class::GUEST_OFFLOADS, 0, &self.guest_offloads.bits().to_le_bytes());
        }
        commands
    }

    fn has(&self, feature: Features) -> bool {
        self.features.contains(feature)
    }
}

/// What must be negotiated for a mode.
const fn mode_feature(mode: Mode) -> Features {
    match mode {
        Mode::Promiscuous | Mode::AllMulticast => Features::CTRL_RX,
        Mode::AllUnicast | Mode::NoMulticast | Mode::NoUnicast | Mode::NoBroadcast => Features::CTRL_RX_EXTRA,
    }
}

/// A table of addresses: their number, in 32 bits, and they.
fn addresses(data: &[u8]) -> Option<(Vec<MacAddress>, &[u8])> {
    let (count, data) = data.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(size_of::<MacAddress>())?;
    let (table, rest) = data.split_at_checked(len)?;
    let (octets, _) = table.as_chunks();
    Some((octets.iter().copied().map(MacAddress).collect(), rest))
}

#[cfg(test)]
mod tests {
    use std::{format, vec};

    use super::{super::memory::STATE_BYTES, *};
    use crate::kept;

    fn state(pairs: u16) -> ControlState {
        ControlState::new(MacAddress([2; 6]), pairs, Features::all())
    }

    fn done(pairs: u16, commands: &[Vec<u8>]) -> ControlState {
        let mut state = state(pairs);
        for command in commands {
            assert_eq!(state.perform(command), OK, "{command:?}");
        }
        state
    }

    #[test]
    fn the_commands_of_a_state_bring_it_about() {
        let steering = [&[4, 1, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 3, 0, 4, 0, 3][..], &[7; 3]].concat();
        let tables = [&[1, 0, 1, 0, 0, 0][..], &[4; 6], &[2, 0, 0, 0], &[1; 12]].concat();
        for commands in [
            vec![],
            (0..6).map(|mode| vec![0, mode, 1]).collect(),
            vec![vec![0, 0, 0], vec![0, 3, 1]],
            vec![tables],
            vec![vec![2, 0, 7, 0], vec![2, 0, 0xff, 0x0f], vec![2, 0, 8, 0], vec![2, 1, 8, 0]],
            vec![vec![4, 0, 3, 0]],
            vec![vec![4, 0, 3, 0], steering],
            vec![[&[5, 0][..], &2u64.to_le_bytes()].concat()],
        ] {
            let wanted = done(4, &commands);
            let got = done(4, &wanted.commands());
            assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
        }
    }

    #[test]
    fn a_state_of_all_that_can_be_set_fits_where_it_is_kept() {
        let mut commands: Vec<_> = (0..4096_u16).map(|vlan| [&[2, 0][..], &vlan.to_le_bytes()].concat()).collect();
        let count = (MAX_COMMAND - 10) / size_of::<MacAddress>();
        let table = [&[1, 0][..], &(count as u32).to_le_bytes(), &vec![1; count * 6], &[0; 4]].concat();
        let steering = [&[4, 1, 0, 0, 0, 0, 127, 0, 0, 0][..], &[0; 256], &[1, 0, 40], &[7; 40]].concat();
        commands.extend([table, steering]);
        let commands = done(4, &commands).commands();
        let bytes: usize = commands.iter().map(|command| command.len() + 4).sum();
        assert!(bytes + kept::HEADER_BYTES <= STATE_BYTES as usize / 2, "{bytes}");
    }
}
