//! What a driver wants to receive (virtio 1.2 5.1.6.5.1 to 5.1.6.5.3).

use alloc::{boxed::Box, vec::Vec};

use dragonfly_vswitch::{MacAddress, packet::ethertype};

/// Addresses that a driver can ask for, of each kind; if it asks for more, it gets all.
const MAX_ADDRESSES: usize = 64;

const BROADCAST: MacAddress = MacAddress([0xff; 6]);

/// Bytes of a frame before its type.
const TYPE_AT: usize = 12;
const VLAN_ID: u16 = 0xfff;

/// What is received, of that which the switch brings to the port.
#[derive(Clone, Debug)]
pub struct ReceiveFilter {
    mac: MacAddress,
    /// By their bits in [`Mode`].
    modes: u8,
    /// Further stations' and groups' addresses.
    unicast: Vec<MacAddress>,
    multicast: Vec<MacAddress>,
    vlans: Box<[u64; 64]>,
}

/// What can be switched on and off; numbered as the commands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything.
    Promiscuous,
    /// Frames to all groups.
    AllMulticast,
    /// Frames to all stations.
    AllUnicast,
    /// None to groups.
    NoMulticast,
    /// None to stations.
    NoUnicast,
    /// None to everybody.
    NoBroadcast,
}

impl Mode {
    /// All of them, by their commands' numbers.
    pub const ALL: [Self; 6] = [
        Self::Promiscuous,
        Self::AllMulticast,
        Self::AllUnicast,
        Self::NoMulticast,
        Self::NoUnicast,
        Self::NoBroadcast,
    ];
}

impl ReceiveFilter {
    /// Lets everything pass until the driver says what it wants.
    pub fn new(mac: MacAddress) -> Self {
        let modes = 1 << Mode::Promiscuous as u8;
        Self { mac, modes, unicast: Vec::new(), multicast: Vec::new(), vlans: Box::new([0; 64]) }
    }

    /// Switches a mode.
    pub fn set_mode(&mut self, mode: Mode, is_on: bool) {
        let bit = 1 << mode as u8;
        self.modes = if is_on { self.modes | bit } else { self.modes & !bit };
    }

    /// Sets the addresses that are received beside the device's own.
    pub fn set_addresses(&mut self, unicast: Vec<MacAddress>, multicast: Vec<MacAddress>) {
        (self.unicast, self.multicast) = (unicast, multicast);
    }

    /// Receives a VLAN's tagged frames, or does not.
    pub fn set_vlan(&mut self, vlan: u16, is_on: bool) {
        if let Some(word) = self.vlans.get_mut(usize::from(vlan / 64)) {
            let bit = 1 << (vlan % 64);
            *word = if is_on { *word | bit } else { *word & !bit };
        }
    }

    /// Whether a mode is on.
    pub const fn has(&self, mode: Mode) -> bool {
        self.modes & 1 << mode as u8 != 0
    }

    /// Further stations' and groups' addresses.
    pub fn addresses(&self) -> [&[MacAddress]; 2] {
        [&self.unicast, &self.multicast]
    }

    /// The VLANs whose tagged frames are received.
    pub fn vlans(&self) -> impl Iterator<Item = u16> {
        (0..=VLAN_ID).filter(|vlan| self.has_vlan(*vlan))
    }

    /// Whether the driver wants a frame to this address.
    pub fn wants_address(&self, frame: &[u8]) -> bool {
        let Some(to) = frame.first_chunk().map(|octets| MacAddress(*octets)) else { return false };
        if self.has(Mode::Promiscuous) {
            return true;
        }
        let is_in = |list: &[MacAddress]| list.len() > MAX_ADDRESSES || list.contains(&to);
        if to == BROADCAST {
            !self.has(Mode::NoBroadcast)
        } else if to.is_group() {
            !self.has(Mode::NoMulticast) && (self.has(Mode::AllMulticast) || is_in(&self.multicast))
        } else {
            !self.has(Mode::NoUnicast) && (self.has(Mode::AllUnicast) || to == self.mac || is_in(&self.unicast))
        }
    }

    /// Whether the driver wants a frame with this tag, if it has one.
    pub fn wants_vlan(&self, frame: &[u8]) -> bool {
        let Some([high, low, tag_high, tag_low, ..]) = frame.get(TYPE_AT..) else { return true };
        if u16::from_be_bytes([*high, *low]) != ethertype::VLAN {
            return true;
        }
        let vlan = u16::from_be_bytes([*tag_high, *tag_low]) & VLAN_ID;
        self.has_vlan(vlan)
    }

    fn has_vlan(&self, vlan: u16) -> bool {
        self.vlans.get(usize::from(vlan / 64)).is_some_and(|word| word & 1 << (vlan % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tagged_frames_of_chosen_vlans_are_wanted_and_all_without_a_tag() {
        let mut filter = ReceiveFilter::new(MacAddress([2; 6]));
        let frame = |tag: &[u8]| [&[2; 12][..], tag, &[8, 0, 0x45]].concat();
        let wanted = |filter: &ReceiveFilter| {
            [&[][..], &[0x81, 0, 0, 7], &[0x81, 0, 0xef, 0xff], &[0x88, 0xa8, 0, 7]]
                .map(|tag| filter.wants_vlan(&frame(tag)))
        };
        assert_eq!(wanted(&filter), [true, false, false, true]);
        filter.set_vlan(7, true);
        assert_eq!(wanted(&filter), [true, true, false, true]);
        filter.set_vlan(7, false);
        filter.set_vlan(4095, true);
        assert_eq!(wanted(&filter), [true, false, true, true]);
        assert!(filter.wants_vlan(&[2; 13]), "a frame that is cut short in its type");
    }
}
