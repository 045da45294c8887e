//! The exact-match cache: what was decided about a flow, for its next packets.

use alloc::{boxed::Box, vec};

use super::Slot;
use crate::{packet::FlowKey, policy::RuleRef, port::PortId, vlan::TagEdit};

/// Places that a key can be in.
const WAYS: usize = 8;
/// Of so many flows that find no place one gets another's.
const MISSES: u32 = 16;

/// A connection that packets of a flow belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CachedConnection {
    /// Its number, never given twice; 0 if packets are not tracked here.
    pub id: u64,
    /// Its place.
    pub slot: Slot,
    /// The rule that lets it pass.
    pub rule: RuleRef,
}

impl CachedConnection {
    /// Packets are not tracked.
    pub const NONE: Self = Self { id: 0, slot: Slot::NONE, rule: RuleRef::NONE };
}

/// What is done with packets of a flow: they go to one port.
///
/// It holds only while both ports' generations are the ones noted, the stations still stand where they stood, and the
/// connections are alive; the switch checks all of that for each packet.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub struct CachedFlow {
    /// Which packets.
    pub key: FlowKey,
    /// The sending port's generation when it was decided; 0 for an empty place.
    pub source_generation: u64,
    /// The receiving port's generation when it was decided.
    pub destination_generation: u64,
    /// The connection in the sending port's zone.
    pub source_connection: CachedConnection,
    /// The connection in the receiving port's zone.
    pub destination_connection: CachedConnection,
    /// The sender's place in the table of stations.
    pub source_station: Slot,
    /// The receiver's place in the table of stations.
    pub destination_station: Slot,
    /// The receiving port.
    pub destination: PortId,
    /// The VLAN in which the frame travels.
    pub vlan: u16,
    /// What becomes of the frame's tag.
    pub tag: TagEdit,
}

impl CachedFlow {
    const EMPTY: Self = Self {
        key: FlowKey::EMPTY,
        source_generation: 0,
        destination_generation: 0,
        source_connection: CachedConnection::NONE,
        destination_connection: CachedConnection::NONE,
        source_station: Slot::NONE,
        destination_station: Slot::NONE,
        destination: PortId(0),
        vlan: 0,
        tag: TagEdit::Keep,
    };
}

/// Sets of eight places. A set's tags (16 bits of each key's hash) lie together, so that a lookup reads 16 bytes of a
/// small array and then, as a rule, the right entry.
///
/// Each port has a cache of its own: whatever a guest sends, it pushes out only its own flows.
pub struct FlowCache {
    tags: Box<[[u64; WAYS / 4]]>,
    entries: Box<[CachedFlow]>,
    misses: u32,
}

impl FlowCache {
    /// A cache of `entries` places, rounded up to a power of two and at least eight.
    #[must_use]
    pub fn new(entries: u32) -> Self {
        let sets = (entries.min(1 << 24) as usize).div_ceil(WAYS).next_power_of_two();
        Self { tags: vec![[0; WAYS / 4]; sets].into(), entries: vec![CachedFlow::EMPTY; sets * WAYS].into(), misses: 0 }
    }

    /// The place where a key with this hash probably is, if it is anywhere.
    ///
    /// It is the first with the same tag; a second one is not tried, since one key in 8,000 that is looked up
    /// the long way is cheaper than a loop for all.
    #[inline]
    #[must_use]
    pub fn probe(&self, hash: u64) -> Option<u32> {
        let set = self.set(hash);
        let way = find(*self.tags.get(set)?, tag(hash))?;
        Some((set * WAYS + way) as u32)
    }

    /// The entry in a place that [`Self::probe`] gave; its key may be another's.
    #[inline]
    #[must_use]
    pub fn entry(&self, place: u32) -> Option<&CachedFlow> {
        self.entries.get(place as usize)
    }

    /// The place where a flow is to be remembered: that of one with the same tag, which is mostly its own last decision, or an
    /// empty one. Of those that find neither only one in [`MISSES`] gets another flow's place, in turn: were all of them to do
    /// so, flows that come round after round, and are more than there are places, would push out each other before they come
    /// again.
    #[must_use]
    pub fn reserve(&mut self, hash: u64) -> Option<&mut CachedFlow> {
        let set = self.set(hash);
        let tags = self.tags.get_mut(set)?;
        let way = find(*tags, tag(hash)).or_else(|| find(*tags, 0)).or_else(|| {
            self.misses = self.misses.wrapping_add(1);
            let (turn, is_first) = (self.misses / MISSES, self.misses.is_multiple_of(MISSES));
            is_first.then_some(turn as usize % WAYS)
        })?;
        let shift = way % 4 * 16;
        let word = tags.get_mut(way / 4)?;
        *word = *word & !(0xffff << shift) | u64::from(tag(hash)) << shift;
        self.entries.get_mut(set * WAYS + way)
    }

    const fn set(&self, hash: u64) -> usize {
        hash as usize & (self.tags.len() - 1)
    }
}

const LANES: u64 = 0x0001_0001_0001_0001;

/// The first way of a set that has this tag.
#[inline]
const fn find([low, high]: [u64; WAYS / 4], tag: u16) -> Option<usize> {
    let wanted = tag as u64 * LANES;
    let hits = (zero_lanes(low ^ wanted) >> 15) | (zero_lanes(high ^ wanted) >> 14);
    if hits == 0 {
        return None;
    }
    let bit = hits.trailing_zeros();
    // Lane n of the low word sets bit 16 n, of the high word bit 16 n + 1. The lowest of either is right.
    Some((bit / 16 + (bit & 1) * 4) as usize)
}

/// The top bit of each 16-bit lane that is zero. A lane above a zero lane may be marked wrongly, the lowest never.
#[inline]
const fn zero_lanes(word: u64) -> u64 {
    word.wrapping_sub(LANES) & !word & (LANES << 15)
}

/// Bits of the hash that do not choose the set; never 0, which marks an empty place.
#[inline]
const fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::KeyFields;

    fn flow(port: u16) -> CachedFlow {
        let key = FlowKey::new(&KeyFields { source_port: port, ..KeyFields::default() });
        CachedFlow { key, source_generation: 1, ..CachedFlow::EMPTY }
    }

    fn remember(cache: &mut FlowCache, hash: u64, flow: CachedFlow) {
        if let Some(place) = cache.reserve(hash) {
            *place = flow;
        }
    }

    #[test]
    fn eight_flows_of_one_set_are_all_found() {
        let mut cache = FlowCache::new(64);
        let hash = |n: u64| n << 50 | 3;
        for n in 0..8 {
            remember(&mut cache, hash(n), flow(n as u16));
        }
        for n in 0..8 {
            let place = cache.probe(hash(n)).expect("its tag is in the set");
            assert_eq!(cache.entry(place).map(|entry| entry.key), Some(flow(n as u16).key), "flow {n}");
        }
        assert_eq!(cache.probe(hash(9)), None);
        assert_eq!(cache.probe(4), None, "another set is empty");
    }

    #[test]
    fn a_flow_that_is_decided_anew_takes_its_old_place() {
        let mut cache = FlowCache::new(8);
        remember(&mut cache, 5, flow(1));
        let first = cache.probe(5);
        remember(&mut cache, 5, CachedFlow { source_generation: 9, ..flow(1) });
        assert_eq!(cache.probe(5), first);
        assert_eq!(first.and_then(|place| cache.entry(place)).map(|entry| entry.source_generation), Some(9));
    }

    #[test]
    fn flows_that_come_in_turn_are_known_although_they_are_more_than_the_places() {
        let mut cache = FlowCache::new(8);
        let mut hits = 0;
        for round in 0..1_000 {
            for n in 0..16_u16 {
                let hash = u64::from(n) << 50;
                let is_known = cache
                    .probe(hash)
                    .and_then(|place| cache.entry(place))
                    .is_some_and(|entry| entry.key == flow(n).key);
                if !is_known {
                    remember(&mut cache, hash, flow(n));
                } else if round > 0 {
                    hits += 1;
                }
            }
        }
        // Half of the flows have a place, but for those that are pushed out now and then.
        assert!((999 * 7..=999 * 8).contains(&hits), "{hits} hits");
    }

    #[test]
    fn an_entry_takes_two_cache_lines() {
        assert_eq!(size_of::<CachedFlow>(), 128);
    }
}
