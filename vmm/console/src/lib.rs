//! The console server: owns the machine's second serial port and shares it among the guests' consoles.
//!
//! A VMM calls its gate with the messages of [`protocol`]: it writes what its guest prints, is signalled when there is
//! input, and says how its guest ended. What goes over the serial line is the [`stream`], which `cargo xtask run` takes
//! apart again. The server also reads the machine's clock once, so that VMMs can tell their guests the time.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod cmos;
mod consoles;
pub mod protocol;
mod server;
pub mod stream;
mod uart;

use log::error;

/// The program.
pub fn run() {
    if let Err(status) = server::Server::start().and_then(|mut server| server.serve()) {
        error!("the console server cannot go on: {status}");
        // The supervisor may be what is gone.
        let _ = dragonfly_rt::supervisor::finish(1);
    }
}
