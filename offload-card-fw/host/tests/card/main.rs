//! The card over real sockets, with a front end and a driver of the tests' own.

mod consoles;
mod disks;
mod front_end;
mod lies;
mod nets;
mod process;
mod remote;
mod restarts;
mod rules;
mod setup;
mod snapshots;
mod sockets;

use setup::Setup;
