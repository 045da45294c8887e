//! `cargo xtask bench`: figures in instructions, the same in every run.
//!
//! [`ipc`] measures system calls, [`exits`] virtual machines: [`dragonfly`] and [`kvm`] run the same guest in the same
//! emulated machine, [`exit_figures`] holds what comes of it.

pub mod dragonfly;
pub mod exit_figures;
pub mod exits;
pub mod ipc;
pub mod kvm;

use crate::emulator::Watcher;

/// Nobody looks at the machine while it measures.
struct Silent;

impl Watcher for Silent {}
