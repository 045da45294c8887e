//! Starts programs in domains of their own.
//!
//! [`Program`] says what of an ELF file is to be where in memory; [`launch`] makes a domain, puts the program, a stack
//! and a start page there, hands out handles and starts the first thread. `vmm/rt/domain.ld` lays programs out so that
//! they fit into the [`layout`].

mod launch;
pub mod layout;
mod program;
mod start_page;

pub use launch::{Child, Grant, Launch, LaunchError, launch};
pub use program::{Program, ProgramError, Segment};
pub use start_page::StartPageError;
