//! Sets of the 256 vectors.

use core::sync::atomic::{AtomicU64, Ordering};

/// Words of 64 vectors in a set.
pub(crate) const WORDS: usize = 4;

/// The word that `vector` is in.
#[inline]
pub(crate) const fn word_of(vector: u8) -> usize {
    (vector >> 6) as usize
}

/// `vector` in its word.
#[inline]
const fn bit_of(vector: u8) -> u64 {
    1 << (vector & 63)
}

/// The highest vector of `bits`, which are word `word` and not 0.
#[inline]
const fn highest(word: usize, bits: u64) -> u8 {
    (((word as u32 & 3) << 6) | (63 ^ bits.leading_zeros())) as u8
}

/// A set that any CPU may change.
#[derive(Debug)]
pub(crate) struct Vectors([AtomicU64; WORDS]);

impl Vectors {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// The vectors `word` × 64 and up. What was written before a vector was inserted is seen with it.
    #[inline]
    pub(crate) fn word(&self, word: usize) -> u64 {
        self.0[word & (WORDS - 1)].load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn contains(&self, vector: u8) -> bool {
        self.word(word_of(vector)) & bit_of(vector) != 0
    }

    #[inline]
    pub(crate) fn insert(&self, vector: u8) {
        self.0[word_of(vector)].fetch_or(bit_of(vector), Ordering::AcqRel);
    }

    #[inline]
    pub(crate) fn remove(&self, vector: u8) {
        self.0[word_of(vector)].fetch_and(!bit_of(vector), Ordering::AcqRel);
    }

    /// As [`Self::insert`], where no other CPU changes the set: no locked instruction.
    #[inline]
    pub(crate) fn insert_owned(&self, vector: u8) {
        let word = &self.0[word_of(vector)];
        word.store(word.load(Ordering::Relaxed) | bit_of(vector), Ordering::Relaxed);
    }

    /// As [`Self::remove`], where no other CPU changes the set.
    #[inline]
    pub(crate) fn remove_owned(&self, vector: u8) {
        let word = &self.0[word_of(vector)];
        word.store(word.load(Ordering::Relaxed) & !bit_of(vector), Ordering::Relaxed);
    }

    /// The highest vector in word `word`; none if there is none.
    #[inline]
    pub(crate) fn highest_in(&self, word: usize) -> Option<u8> {
        let bits = self.word(word);
        (bits != 0).then(|| highest(word, bits))
    }

    /// The highest vector.
    #[inline]
    pub(crate) fn highest(&self) -> Option<u8> {
        let [first, second, third, fourth] = self.load();
        // Mostly there is none, which is quicker to see in all words at once.
        if first | second | third | fourth == 0 {
            return None;
        }
        (0..WORDS).rev().find_map(|word| self.highest_in(word))
    }

    pub(crate) fn insert_all(&self, words: [u64; WORDS]) {
        for (to, from) in self.0.iter().zip(words) {
            to.fetch_or(from, Ordering::AcqRel);
        }
    }

    /// Empties the set, and gives what was in it.
    pub(crate) fn take(&self) -> [u64; WORDS] {
        core::array::from_fn(|word| self.0[word].swap(0, Ordering::AcqRel))
    }

    pub(crate) fn clear(&self) {
        self.store([0; WORDS]);
    }

    #[inline]
    pub(crate) fn load(&self) -> [u64; WORDS] {
        core::array::from_fn(|word| self.word(word))
    }

    pub(crate) fn store(&self, words: [u64; WORDS]) {
        for (to, from) in self.0.iter().zip(words) {
            to.store(from, Ordering::Release);
        }
    }

    /// The register of 32 vectors, 0 to 7, that a guest reads.
    pub(crate) fn register(&self, index: u32) -> u32 {
        (self.word((index >> 1) as usize) >> ((index & 1) * 32)) as u32
    }
}
