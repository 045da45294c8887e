//! AES-256 in XTS mode (IEEE 1619-2018, clause 5), for data units of whole blocks.

use core::fmt;

use aes::cipher::consts::{U32, U64};
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};
use thiserror::Error;
use zeroize::ZeroizeOnDrop;

/// Bytes of a key: one AES-256 key for the data, another for the tweaks.
pub const KEY_BYTES: usize = 64;

/// Bytes of an AES block.
const BLOCK_BYTES: usize = 16;

/// Blocks that go to the cipher at once: as many as the widest of its implementations takes (VAES with 512-bit registers).
const BATCH_BLOCKS: usize = 64;

/// What the cipher numbers, and the smallest unit that can then be read or written. Part of the format of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataUnit {
    /// Each sector by itself.
    Bytes512,
    /// Blocks of eight sectors.
    Bytes4096,
}

impl DataUnit {
    /// Its size, in bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::Bytes512 => 512,
            Self::Bytes4096 => 4096,
        }
    }
}

/// Why a key is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum KeyError {
    /// With equal keys XTS is open to chosen-ciphertext attacks (FIPS 140-3 implementation guidance C.I).
    #[error("the two halves of the key are equal")]
    EqualHalves,
}

/// A key, ready for use. Wiped from memory when dropped, and never shown.
pub struct XtsAes256 {
    data: Aes256,
    tweak: Aes256,
}

impl XtsAes256 {
    /// Takes a key: the first half is for the data, the second for the tweaks. The caller wipes its own copy.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn new(key: &[u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let (data, tweak) = Array::<u8, U64>::cast_from_core(key).split_ref::<U32>();
        // Only whether all bytes are equal is learnt from the time that this takes.
        if data.iter().zip(tweak).fold(0, |difference, (data, tweak)| difference | (data ^ tweak)) == 0 {
            return Err(KeyError::EqualHalves);
        }
        Ok(Self { data: Aes256::new(data), tweak: Aes256::new(tweak) })
    }

    /// Encrypts consecutive data units in place; `first_unit` is the number of the first.
    ///
    /// What is left over after the last whole unit is not touched.
    pub fn encrypt(&self, first_unit: u64, unit: DataUnit, data: &mut [u8]) {
        self.for_each_batch(first_unit, unit, data, |blocks| self.data.encrypt_blocks(blocks));
    }

    /// Undoes [`encrypt`](Self::encrypt).
    pub fn decrypt(&self, first_unit: u64, unit: DataUnit, data: &mut [u8]) {
        self.for_each_batch(first_unit, unit, data, |blocks| self.data.decrypt_blocks(blocks));
    }

    fn for_each_batch(&self, first_unit: u64, unit: DataUnit, data: &mut [u8], cipher: impl Fn(&mut [Block])) {
        let whole_units = data.len() - data.len() % unit.bytes();
        let (blocks, _) = Block::slice_as_chunks_mut(&mut data[..whole_units]);
        let unit_blocks = unit.bytes() / BLOCK_BYTES;
        let mut tweaks = [0; BATCH_BLOCKS];
        let mut number = first_unit;
        for group in blocks.chunks_mut(unit_blocks * BATCH_BLOCKS) {
            let mut starts = [Block::default(); BATCH_BLOCKS];
            let starts = &mut starts[..group.len() / unit_blocks];
            for start in &mut *starts {
                *start = u128::from(number).to_le_bytes().into();
                number = number.wrapping_add(1);
            }
            self.tweak.encrypt_blocks(starts);
            let mut starts = starts.iter().map(|start| u128::from_le_bytes((*start).into()));
            let mut tweak = 0;
            let mut left_of_unit = 0;
            for batch in group.chunks_mut(BATCH_BLOCKS) {
                // A batch is a part of one unit, or whole units.
                for part in tweaks[..batch.len()].chunks_mut(unit_blocks) {
                    if left_of_unit == 0 {
                        tweak = starts.next().unwrap_or_default();
                        left_of_unit = unit_blocks;
                    }
                    left_of_unit -= part.len();
                    for slot in part {
                        *slot = tweak;
                        tweak = doubled(tweak);
                    }
                }
                xor(batch, &tweaks);
                cipher(batch);
                xor(batch, &tweaks);
            }
        }
    }
}

impl ZeroizeOnDrop for XtsAes256 {}

/// Fails to compile if the cipher were built without wiping its keys.
const _: () = {
    const fn wipes_itself<T: ZeroizeOnDrop>() {}
    wipes_itself::<Aes256>();
};

impl fmt::Debug for XtsAes256 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("XtsAes256(..)")
    }
}

/// The product with the primitive element of GF(2^128), modulo x^128 + x^7 + x^2 + x + 1.
fn doubled(tweak: u128) -> u128 {
    // No branch, as tweaks are secret.
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}

fn xor(blocks: &mut [Block], tweaks: &[u128; BATCH_BLOCKS]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        *block = (u128::from_le_bytes((*block).into()) ^ tweak).to_le_bytes().into();
    }
}
