//! `cargo xtask bench`: figures in instructions, the same in every run, and those of the card in this machine's time.
//!
//! [`ipc`] measures system calls, [`exits`] virtual machines: [`dragonfly`] and [`kvm`] run the same guest in the same
//! emulated machine, [`start`] starts Linux, [`exit_figures`] holds what comes of it. [`card`] loads the card's
//! process and its peers, [`requests`] the card as a domain.

pub mod card;
pub mod dragonfly;
pub mod exit_figures;
pub mod exits;
pub mod ipc;
pub mod kvm;
pub mod requests;
pub mod start;

use crate::emulator::Watcher;

/// Nobody looks at the machine while it measures.
struct Silent;

impl Watcher for Silent {}
