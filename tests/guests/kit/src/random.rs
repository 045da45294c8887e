//! Random numbers that are the same each time.

/// A generator (Sebastiano Vigna, "SplitMix64").
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    /// One whose numbers follow from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, or 0 if that is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        match self.number().checked_rem(end) {
            Some(number) => number,
            None => 0,
        }
    }

    /// A number as tests and attacks like it: small, a power of two, all ones, the borders between them, or any.
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
    fn a_seed_gives_the_numbers_that_its_author_publishes() {
        let mut random = Random::new(1_234_567);
        let first = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.number(), random.number(), random.number()], first);
    }

    #[test]
    fn a_number_below_an_end_is_below_it() {
        let mut random = Random::new(0);
        assert!((0..1000).all(|_| random.below(7) < 7));
        assert_eq!(random.below(0), 0);
    }
}
