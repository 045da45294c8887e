//! `cargo xtask bench`: figures in instructions, the same in every run.
//!
//! [`ipc`] measures system calls, [`exits`] virtual machines: [`dragonfly`] and [`kvm`] run the same guest in the same
//! emulated machine, [`start`] starts Linux, [`exit_figures`] holds what comes of it.

pub mod dragonfly;
pub mod exit_figures;
pub mod exits;
pub mod ipc;
pub mod kvm;
pub mod start;

use crate::emulator::Watcher;

/// Nobody looks at the machine while it measures.
struct Silent;

impl Watcher for Silent {}
