//! Programs that test and measure the kernel from inside user domains.
//!
//! `kernel-tests` runs each test of [`tests`] in a domain of its own, so that one that faults or hangs costs the others
//! nothing, and checks after each that all memory is back. Tests read like the specification, `docs/abi.md`.
//! `supervisor-tests`, `device-tests` and `card-tests` have bundles of their own; the last is what VMMs and guests are to the
//! card's domain ([`card`]). `bench-ipc` and `bench-vm` measure what [`bench`] lists. All print lines that `cargo xtask` reads.
//!
//! A test puts code into other domains as [`light`] threads: functions of this program that run there on the same
//! text, mapped twice, without a runtime.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod card;
pub mod check;
pub mod list;
pub mod options;
pub mod statistics;

#[cfg(target_os = "none")]
pub mod bench;
#[cfg(target_os = "none")]
pub mod light;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
pub mod probe;
#[cfg(target_os = "none")]
pub mod raw;
#[cfg(target_os = "none")]
pub mod runner;
#[cfg(target_os = "none")]
pub mod tests;
