//! Encrypted disks.

mod disk;
mod xts;

pub use disk::{DataUnit, EncryptedDisk};
pub use xts::{KEY_BYTES, KeyError, XtsAes256};
