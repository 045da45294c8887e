//! Random numbers for guests.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};
use dragonfly_card_devices::Entropy;
use dragonfly_rt::random::hardware_random;
use dragonfly_rt::time::time_stamp;
use log::warn;
use zeroize::Zeroize;

const KEY_BYTES: usize = 32;
const BLOCK_BYTES: usize = 16;

/// Numbers made at once: after so many bytes the generator has another key, and more of the processor's entropy in it.
const REQUEST_BYTES: usize = 256;

/// Samples of chance in the first key. Without the processor's own generators there are only the last bits of its cycle
/// counter, a few in each.
const FIRST_SAMPLES: usize = 256;

/// AES-256 in counter mode, by a key that goes with each request (Bernstein's "fast key erasure"): who learns the key learns
/// nothing of the numbers before. Into each next key go numbers of the processor's own generator, if it has one.
pub(crate) struct Generator {
    key: [u8; KEY_BYTES],
}

impl Generator {
    /// A generator that nobody can guess, as far as the processor allows.
    pub(crate) fn new() -> Self {
        let mut generator = Self { key: [0; KEY_BYTES] };
        if hardware_random().is_none() {
            warn!("the processor has no random numbers: guests get some that are made of times only");
        }
        for _ in 0..FIRST_SAMPLES {
            generator.stir();
            generator.generate(&mut []);
        }
        generator
    }

    /// Puts chance into the key.
    fn stir(&mut self) {
        let samples = [hardware_random().unwrap_or(0), hardware_random().unwrap_or(0), time_stamp(), 0];
        let bytes = samples.iter().flat_map(|sample| sample.to_le_bytes());
        self.key.iter_mut().zip(bytes).for_each(|(key, sample)| *key ^= sample);
    }

    /// Fills `into`, and changes the key.
    fn generate(&mut self, into: &mut [u8]) {
        let cipher = Aes256::new(&self.key.into());
        let block = |number: u128| {
            let mut block = Block::from(number.to_le_bytes());
            cipher.encrypt_block(&mut block);
            block
        };
        for (part, number) in self.key.chunks_mut(BLOCK_BYTES).zip(0..) {
            part.copy_from_slice(&block(number));
        }
        for (part, number) in into.chunks_mut(BLOCK_BYTES).zip(2..) {
            part.iter_mut().zip(block(number)).for_each(|(to, from)| *to = from);
        }
    }
}

impl Entropy for Generator {
    fn fill(&mut self, into: &mut [u8]) -> bool {
        for part in into.chunks_mut(REQUEST_BYTES) {
            self.stir();
            self.generate(part);
        }
        true
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_generator_goes_on_with_other_numbers_and_bits_are_as_often_one_as_zero() {
        let mut generator = Generator { key: [1; KEY_BYTES] };
        let mut bytes = [0; 64 << 10];
        assert!(generator.fill(&mut bytes));
        let blocks: BTreeSet<_> = bytes.chunks(BLOCK_BYTES).collect();
        assert_eq!(blocks.len(), bytes.len() / BLOCK_BYTES);
        let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
        assert!((260_000..264_500).contains(&ones), "{ones} of 524288");
    }

    #[test]
    fn numbers_do_not_depend_on_how_they_are_cut_off() {
        let mut bytes = [0; 21];
        let mut longer = [0; 48];
        Generator { key: [7; KEY_BYTES] }.generate(&mut bytes);
        Generator { key: [7; KEY_BYTES] }.generate(&mut longer);
        assert_eq!(bytes, longer[..21]);
    }
}
