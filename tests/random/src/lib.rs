//! Random numbers that repeat from the same start, so that a failure does, and how long a fuzz target goes on with them.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(not(target_os = "none"))]
extern crate std;

#[cfg(not(target_os = "none"))]
mod fuzz;

#[cfg(not(target_os = "none"))]
pub use fuzz::{damage_text, fuzz_end};

/// The generator SplitMix64 (Steele, Lea, Flood 2014): small, and good for any start value.
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each start.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`; 0 for an end of 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        ((self.number() as u128 * end as u128) >> 64) as u64
    }

    /// An index into something of this length; 0 for a length of 0.
    pub const fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of the values; the type's default if there are none.
    pub fn choose<T: Copy + Default>(&mut self, values: &[T]) -> T {
        values.get(self.index(values.len())).copied().unwrap_or_default()
    }

    /// True once in `n` times.
    pub const fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number as attacks like it: small, a power of two, all ones, the borders between them, or any.
    pub const fn awkward(&mut self) -> u64 {
        let bit = 1_u64 << (self.number() & 63);
        match self.below(8) {
            0 => 0,
            1 => self.below(256),
            2 => bit,
            3 => bit.wrapping_sub(1),
            4 => bit.wrapping_neg(),
            5 => u64::MAX,
            6 => self.number() & 0xffff_ffff,
            _ => self.number(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_same_start_gives_the_sequence_that_the_generators_authors_publish() {
        let mut random = Random::new(1_234_567);
        let first = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.number(), random.number(), random.number()], first);
    }

    #[test]
    fn numbers_stay_below_their_end_and_reach_all_values() {
        let mut random = Random::new(1);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[random.index(7)] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.choose::<u8>(&[]), 0);
    }
}
