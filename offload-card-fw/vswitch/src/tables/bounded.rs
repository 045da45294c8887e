//! A hash table with a fixed number of places, chained by index.

use alloc::{boxed::Box, vec};

/// A place in a table: stays the same while its value lives, and is used again afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(u32);

impl Slot {
    /// Names no place.
    pub const NONE: Self = Self(u32::MAX);

    #[inline]
    const fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy)]
struct Link<K> {
    /// `None` while the place is free.
    key: Option<K>,
    hash: u32,
    next: Slot,
}

/// Keys and values in at most as many places as the table was made with.
///
/// Values lie apart from keys and links: who knows a value's [`Slot`] reaches it with one cache line, and
/// checks by the value itself that it is still the one meant.
pub struct BoundedTable<K, V> {
    /// First of each chain; as many as a power of two.
    heads: Box<[Slot]>,
    links: Box<[Link<K>]>,
    values: Box<[V]>,
    free: Slot,
    used: u32,
}

impl<K: Copy + Eq, V: Copy + Default> BoundedTable<K, V> {
    /// A table with `places` places, at most 2^24.
    #[must_use]
    pub fn new(places: u32) -> Self {
        let places = places.min(1 << 24);
        let next = |place: u32| if place + 1 < places { Slot(place + 1) } else { Slot::NONE };
        Self {
            heads: vec![Slot::NONE; places.next_power_of_two() as usize].into(),
            links: (0..places).map(|place| Link { key: None, hash: 0, next: next(place) }).collect(),
            values: vec![V::default(); places as usize].into(),
            free: if places == 0 { Slot::NONE } else { Slot(0) },
            used: 0,
        }
    }

    /// How many places are taken.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// How many places there are.
    #[must_use]
    pub const fn places(&self) -> u32 {
        self.links.len() as u32
    }

    /// Whether every place is taken.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.used() == self.places()
    }

    /// Where `key` is. `hash` must be a function of the key.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64, key: &K) -> Option<Slot> {
        let mut slot = self.heads.get(self.head(hash as u32)).copied()?;
        while let Some(link) = self.links.get(slot.index()) {
            if link.key.as_ref() == Some(key) {
                return Some(slot);
            }
            slot = link.next;
        }
        None
    }

    /// Adds a key that is not in the table; `None` if it is full.
    pub fn insert(&mut self, hash: u64, key: K, value: V) -> Option<Slot> {
        let slot = self.free;
        let head = self.head(hash as u32);
        let first = self.heads.get_mut(head)?;
        let link = self.links.get_mut(slot.index())?;
        self.free = link.next;
        *link = Link { key: Some(key), hash: hash as u32, next: *first };
        *first = slot;
        *self.values.get_mut(slot.index())? = value;
        self.used += 1;
        Some(slot)
    }

    /// Frees a place; its value becomes the default.
    pub fn remove(&mut self, slot: Slot) {
        let Some(Link { key: Some(_), hash, next }) = self.links.get(slot.index()).copied() else { return };
        let head = self.head(hash);
        let mut at = self.heads.get(head).copied().unwrap_or(Slot::NONE);
        if at == slot {
            self.heads[head] = next;
        } else {
            while let Some(link) = self.links.get_mut(at.index()) {
                if link.next == slot {
                    link.next = next;
                    break;
                }
                at = link.next;
            }
        }
        self.links[slot.index()] = Link { key: None, hash: 0, next: self.free };
        self.values[slot.index()] = V::default();
        self.free = slot;
        self.used -= 1;
    }

    /// The value in a place; a free place has the default.
    #[inline]
    #[must_use]
    pub fn value(&self, slot: Slot) -> Option<&V> {
        self.values.get(slot.index())
    }

    /// The value in a place, to change it.
    #[inline]
    pub fn value_mut(&mut self, slot: Slot) -> Option<&mut V> {
        self.values.get_mut(slot.index())
    }

    /// All that is in the table.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &K, &V)> {
        let places = (0..).map(Slot).zip(self.links.iter().zip(&self.values));
        places.filter_map(|(slot, (link, value))| Some((slot, link.key.as_ref()?, value)))
    }

    /// `count` places in turn, taken or free, from `hand` on, which moves behind them.
    pub fn sweep(&self, hand: &mut u32, count: u32) -> impl Iterator<Item = Slot> + use<K, V> {
        let places = self.places();
        let from = *hand;
        let count = count.min(places);
        *hand = if places == 0 { 0 } else { from.wrapping_add(count) % places };
        (0..count).map(move |step| Slot((from % places + step) % places))
    }

    const fn head(&self, hash: u32) -> usize {
        hash as usize & (self.heads.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_table_holds_what_a_map_holds_until_it_is_full(
            steps in proptest::collection::vec((any::<bool>(), 0_u8..12), 0..200),
        ) {
            let mut table = BoundedTable::<u8, u16>::new(7);
            let mut model = BTreeMap::new();
            for (round, (adds, key)) in (1..).zip(steps) {
                // Few hashes, so that chains grow.
                let hash = u64::from(key % 3);
                match (adds, table.find(hash, &key)) {
                    (true, None) => {
                        prop_assert_eq!(table.insert(hash, key, round).is_some(), model.len() < 7);
                        if model.len() < 7 {
                            model.insert(key, round);
                        }
                    }
                    (false, Some(slot)) => {
                        table.remove(slot);
                        model.remove(&key);
                    }
                    (_, found) => prop_assert_eq!(found.is_some(), model.contains_key(&key)),
                }
                let mut held: Vec<_> = table.iter().map(|(_, key, value)| (*key, *value)).collect();
                held.sort_unstable();
                prop_assert_eq!(held, model.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!(table.used() as usize, model.len());
            }
        }
    }

    #[test]
    fn a_table_without_places_takes_nothing() {
        let mut table = BoundedTable::<u8, u8>::new(0);
        assert_eq!(table.insert(0, 1, 1), None);
        assert_eq!(table.find(0, &1), None);
        assert_eq!(table.sweep(&mut 0, 5).count(), 0);
    }

    #[test]
    fn sweeping_visits_every_place_in_turn() {
        let table = BoundedTable::<u8, u8>::new(5);
        let mut hand = 0;
        let visited: Vec<_> = (0..5).flat_map(|_| table.sweep(&mut hand, 3)).map(|slot| slot.0).collect();
        assert_eq!(visited, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
    }
}
