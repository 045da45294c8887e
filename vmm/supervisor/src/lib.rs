//! The root task: owns everything when the kernel has started, and hands it out as `bundle.toml` says.
//!
//! It starts the bundle's domains with the handles that they are granted, receives their faults and requests at one
//! gate, and learns through a notification bound to that gate when one ends. A domain that dies is reported and its
//! memory taken back; the others go on. When all essential domains have ended, the machine is stopped with an exit
//! code that says how they ended.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod exit;
mod grants;
mod ledger;
mod pci;
mod problem;
mod report;
mod supervisor;

use log::error;

/// Exit code for a bundle that cannot be started.
const BAD_BUNDLE: u8 = 2;

/// The program.
pub fn run() {
    let exit_code = supervisor::Supervisor::start().map_or_else(
        |error| {
            error!("{error}");
            BAD_BUNDLE
        },
        |mut supervisor| supervisor.serve(),
    );
    exit::stop_machine(exit_code);
}
