//! The project's own tool: set-up, build, image, run, test and benchmark.
//!
//! [`cli`] is what users type; [`tools`] finds or fetches the programs that everything else starts; [`build`] makes
//! kernel, bundle and ISO; [`guest`] makes what guests need; [`emulator`] boots a machine and watches its serial line; [`run`], [`test`], [`bench`] and [`clean`] are the
//! commands above that.

#![forbid(unsafe_code)]

pub mod bad_input;
pub mod bench;
pub mod build;
pub mod clean;
pub mod cli;
pub mod emulator;
pub mod guest;
mod process;
pub mod run;
pub mod size;
pub mod test;
pub mod tools;
