//! What the test guests share: the way from the loader to Rust on all vCPUs, exceptions as values, interrupts, the
//! devices, the command line.
//!
//! A guest owns its whole machine: what these functions can break is the guest, which exists to be broken. So they are
//! safe to call wherever a mistake ends in an exception, and the guests' tests read without noise.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
mod metal;

pub use dragonfly_random::Random;
#[cfg(target_os = "none")]
pub use metal::*;
