//! Encrypted disks.

mod disk;
mod xts;

pub use disk::EncryptedDisk;
pub use xts::{DataUnit, KEY_BYTES, KeyError, XtsAes256};
