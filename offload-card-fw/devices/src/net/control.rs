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
        let (mode, needed) = match number {
            0 => (Mode::Promiscuous, Features::CTRL_RX),
            1 => (Mode::AllMulticast, Features::CTRL_RX),
            2 => (Mode::AllUnicast, Features::CTRL_RX_EXTRA),
            3 => (Mode::NoMulticast, Features::CTRL_RX_EXTRA),
            4 => (Mode::NoUnicast, Features::CTRL_RX_EXTRA),
            5 => (Mode::NoBroadcast, Features::CTRL_RX_EXTRA),
            _ => return None,
        };
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

    fn has(&self, feature: Features) -> bool {
        self.features.contains(feature)
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
