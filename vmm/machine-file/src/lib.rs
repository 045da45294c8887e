//! The machine file: TOML that says what guest to run and on what machine.
//!
//! [`MachineFile::parse`] checks all that can be checked without the files that it names; whoever reads those says what
//! is wrong with them by [`MachineFile::error`]. `docs/machine-file.md` describes the keys.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod machine_file;

pub use dragonfly_settings::{Budget, SettingsError};
pub use machine_file::{MAX_DEVICES, MAX_VCPUS, MIN_MEMORY, MachineFile, OnReboot};

#[cfg(test)]
mod tests;
