//! A keyed hash for fixed numbers of machine words.

/// Hashes keys with secret numbers, so that a sender cannot choose flows that meet in one bucket.
///
/// Pairs of words are multiplied to 128 bits and the halves folded, each pair on its own, so that a CPU does them side
/// by side: an exact-match lookup spends most of its time waiting for this value.
#[derive(Clone, Copy, Debug)]
pub struct Hasher([u64; 4]);

impl Hasher {
    /// A hasher of its own for each `seed`, which must be random and secret.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut keys = [0; 4];
        let mut index = 0;
        while index < keys.len() {
            (state, keys[index]) = split_mix(state);
            index += 1;
        }
        Self(keys)
    }

    /// The hash of a flow key's words.
    #[inline]
    #[must_use]
    pub const fn flow(&self, words: &[u64; 7]) -> u64 {
        let [a, b, c, d] = self.0;
        let macs = fold(words[0] ^ a, words[1] ^ b);
        let high = fold(words[2] ^ b, words[4] ^ c);
        let low = fold(words[3] ^ c, words[5] ^ d);
        let ports = fold(words[6] ^ d, a);
        fold(macs ^ low.rotate_left(17), high ^ ports ^ c)
    }

    /// The hash of a connection key's words.
    #[inline]
    #[must_use]
    pub const fn connection(&self, words: &[u64; 5]) -> u64 {
        let [a, b, c, d] = self.0;
        let high = fold(words[0] ^ a, words[2] ^ b);
        let low = fold(words[1] ^ c, words[3] ^ d);
        fold(high ^ low.rotate_left(17) ^ d, words[4] ^ a)
    }

    /// The hash of one word.
    #[inline]
    #[must_use]
    pub const fn word(&self, word: u64) -> u64 {
        let [a, b, c, _] = self.0;
        fold(fold(word ^ a, b), word ^ c)
    }
}

#[inline]
const fn fold(left: u64, right: u64) -> u64 {
    let product = left as u128 * right as u128;
    product as u64 ^ (product >> 64) as u64
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): the next state and its number.
const fn split_mix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, mixed ^ (mixed >> 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_flows_spread_over_buckets() {
        let hasher = Hasher::new(1);
        let mut buckets = [0_u32; 1024];
        for ports in 0..16_384_u64 {
            let hash = hasher.flow(&[1, 2, 0, 0x0a00_0001, 0, 0x0a00_0002, ports << 32 | 17]);
            buckets[hash as usize & 1023] += 1;
        }
        // 16 expected; a Poisson distribution exceeds 45 in none of 1,024 with overwhelming probability.
        assert!(buckets.iter().all(|&count| count < 45), "{:?}", buckets.iter().max());
    }

    #[test]
    fn seeds_give_different_hashes() {
        assert_ne!(Hasher::new(1).word(7), Hasher::new(2).word(7));
    }
}
