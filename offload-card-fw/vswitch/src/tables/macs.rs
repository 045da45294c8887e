//! Which station (Ethernet address in a VLAN) is behind which port.

use alloc::vec::Vec;

use super::{BoundedTable, Hasher, Slot};
use crate::{address::MacAddress, port::PortId};

/// A station, and when it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Station {
    /// Address and VLAN, packed; 0 for a free place.
    name: u64,
    /// The port behind which it is.
    pub port: PortId,
    /// The port may use only this address, so nobody else gets it while this entry lives.
    pub is_bound: bool,
    /// When it is forgotten unless it sends; `u64::MAX` for never.
    expires_ns: u64,
}

impl Default for Station {
    fn default() -> Self {
        Self { name: 0, port: PortId(u16::MAX), is_bound: false, expires_ns: 0 }
    }
}

impl Station {
    /// Whether this place still holds the station `mac` in `vlan`.
    #[inline]
    #[must_use]
    pub const fn is(&self, mac: MacAddress, vlan: u16, now_ns: u64) -> bool {
        self.name == name(mac, vlan) && now_ns < self.expires_ns
    }

    /// Puts off forgetting.
    #[inline]
    pub const fn refresh(&mut self, expires_ns: u64) {
        if self.expires_ns < expires_ns {
            self.expires_ns = expires_ns;
        }
    }
}

/// What came of a sender's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// It is in the table.
    At(Slot),
    /// The port has as many stations as it may; frames to this one will be flooded.
    NotRemembered,
    /// The address belongs to another port.
    BelongsElsewhere,
}

/// Where and when a station was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Behind which port.
    pub port: PortId,
    /// Whether the port may use only the addresses that were given to it.
    pub is_bound: bool,
    /// Now.
    pub now_ns: u64,
    /// When the station is forgotten if it is not seen again.
    pub expires_ns: u64,
}

#[derive(Clone, Copy, Default)]
struct Share {
    used: u32,
    quota: u32,
}

/// The stations of all ports. Each port has a share of the places that nobody else can use up.
pub struct MacTable {
    stations: BoundedTable<u64, Station>,
    shares: Vec<Share>,
    hasher: Hasher,
    hand: u32,
}

impl MacTable {
    /// A table for `places` stations.
    #[must_use]
    pub fn new(places: u32, hasher: Hasher) -> Self {
        Self { stations: BoundedTable::new(places), shares: Vec::new(), hasher, hand: 0 }
    }

    /// Gives a port its share; `false` if fewer places are left than `quota`.
    #[must_use]
    pub fn add_port(&mut self, port: PortId, quota: u32) -> bool {
        let promised: u64 = self.shares.iter().map(|share| u64::from(share.quota)).sum();
        if promised + u64::from(quota) > u64::from(self.stations.places()) {
            return false;
        }
        if self.shares.len() <= port.index() {
            self.shares.resize(port.index() + 1, Share::default());
        }
        if let Some(share) = self.shares.get_mut(port.index()) {
            share.quota = quota;
        }
        true
    }

    /// Forgets a port's stations and takes its share back.
    pub fn remove_port(&mut self, port: PortId) {
        let all = self.stations.places();
        for slot in self.stations.sweep(&mut 0, all) {
            if self.stations.value(slot).is_some_and(|station| station.port == port) {
                self.forget(slot);
            }
        }
        if let Some(share) = self.shares.get_mut(port.index()) {
            *share = Share::default();
        }
    }

    /// The station in a place.
    #[inline]
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<&Station> {
        self.stations.value(slot)
    }

    /// The station in a place, to refresh it.
    #[inline]
    pub fn at_mut(&mut self, slot: Slot) -> Option<&mut Station> {
        self.stations.value_mut(slot)
    }

    /// Finds a station that is not forgotten.
    #[must_use]
    pub fn find(&self, mac: MacAddress, vlan: u16, now_ns: u64) -> Option<(Slot, Station)> {
        let slot = self.slot(name(mac, vlan))?;
        let station = *self.stations.value(slot)?;
        station.is(mac, vlan, now_ns).then_some((slot, station))
    }

    /// Notes where a station was seen.
    pub fn learn(&mut self, mac: MacAddress, vlan: u16, seen: Sighting) -> Learned {
        let name = name(mac, vlan);
        if let Some(slot) = self.slot(name)
            && let Some(known) = self.stations.value_mut(slot)
        {
            if known.port == seen.port {
                known.refresh(seen.expires_ns);
                return Learned::At(slot);
            }
            if known.is_bound && seen.now_ns < known.expires_ns {
                return Learned::BelongsElsewhere;
            }
            self.forget(slot);
        }
        if !self.has_room(seen.port) {
            self.expire(seen.now_ns, PLACES_LOOKED_AT);
        }
        if !self.has_room(seen.port) {
            return Learned::NotRemembered;
        }
        let station = Station { name, port: seen.port, is_bound: seen.is_bound, expires_ns: seen.expires_ns };
        let Some(slot) = self.stations.insert(self.hasher.word(name), name, station) else {
            return Learned::NotRemembered;
        };
        if let Some(share) = self.shares.get_mut(seen.port.index()) {
            share.used += 1;
        }
        Learned::At(slot)
    }

    /// Looks at `places` places and forgets the stations in them that were not seen for too long.
    pub fn expire(&mut self, now_ns: u64, places: u32) {
        for slot in self.stations.sweep(&mut self.hand, places) {
            if self.stations.value(slot).is_some_and(|station| station.name != 0 && station.expires_ns <= now_ns) {
                self.forget(slot);
            }
        }
    }

    fn forget(&mut self, slot: Slot) {
        let Some(station) = self.stations.value(slot).copied() else { return };
        self.stations.remove(slot);
        if let Some(share) = self.shares.get_mut(station.port.index()) {
            share.used = share.used.saturating_sub(1);
        }
    }

    fn has_room(&self, port: PortId) -> bool {
        self.shares.get(port.index()).is_some_and(|share| share.used < share.quota)
    }

    fn slot(&self, name: u64) -> Option<Slot> {
        self.stations.find(self.hasher.word(name), &name)
    }
}

/// How many places a full port's new station may cost.
const PLACES_LOOKED_AT: u32 = 16;

const fn name(mac: MacAddress, vlan: u16) -> u64 {
    mac.to_bits() << 16 | vlan as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortId = PortId(0);
    const B: PortId = PortId(1);

    fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    fn seen(port: PortId, now_ns: u64) -> Sighting {
        Sighting { port, is_bound: false, now_ns, expires_ns: now_ns + 100 }
    }

    fn table() -> MacTable {
        let mut table = MacTable::new(8, Hasher::new(1));
        assert!(table.add_port(A, 2) && table.add_port(B, 6));
        table
    }

    fn port_of(table: &MacTable, last: u8, vlan: u16, now_ns: u64) -> Option<PortId> {
        table.find(mac(last), vlan, now_ns).map(|(_, station)| station.port)
    }

    #[test]
    fn a_station_is_known_in_its_vlan_until_it_is_silent_for_too_long() {
        let mut table = table();
        table.learn(mac(1), 5, seen(A, 0));
        assert_eq!(port_of(&table, 1, 5, 99), Some(A));
        assert_eq!(port_of(&table, 1, 6, 99), None, "another VLAN");
        assert_eq!(port_of(&table, 1, 5, 100), None, "silent");
    }

    #[test]
    fn a_station_that_moves_is_found_at_its_new_port() {
        let mut table = table();
        table.learn(mac(1), 0, seen(A, 0));
        table.learn(mac(1), 0, seen(B, 1));
        assert_eq!(port_of(&table, 1, 0, 2), Some(B));
    }

    #[test]
    fn a_bound_station_cannot_be_taken_over() {
        let mut table = table();
        table.learn(mac(1), 0, Sighting { is_bound: true, ..seen(A, 0) });
        assert_eq!(table.learn(mac(1), 0, seen(B, 1)), Learned::BelongsElsewhere);
        assert_eq!(port_of(&table, 1, 0, 2), Some(A));
    }

    #[test]
    fn a_port_cannot_use_more_than_its_share_and_gets_it_back_with_time() {
        let mut table = table();
        for last in 0..5 {
            table.learn(mac(last), 0, seen(A, 0));
        }
        assert_eq!((0..5).filter(|&last| port_of(&table, last, 0, 1).is_some()).count(), 2);
        assert!(matches!(table.learn(mac(9), 0, seen(B, 1)), Learned::At(_)), "the neighbour has places left");
        assert!(matches!(table.learn(mac(7), 0, seen(A, 200)), Learned::At(_)), "the silent ones made room");
    }

    #[test]
    fn more_than_there_is_cannot_be_promised() {
        assert!(!table().add_port(PortId(2), 1));
    }

    #[test]
    fn a_port_that_goes_takes_its_stations_along() {
        let mut table = table();
        table.learn(mac(1), 0, seen(A, 0));
        table.learn(mac(2), 0, seen(B, 0));
        table.remove_port(A);
        assert_eq!((port_of(&table, 1, 0, 1), port_of(&table, 2, 0, 1)), (None, Some(B)));
        assert!(table.add_port(PortId(2), 2), "and its share is free");
    }
}
