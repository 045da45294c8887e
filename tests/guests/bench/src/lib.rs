//! What the measuring guest does with its measurements: the part that runs anywhere.
//!
//! The program itself, `guest-bench`, needs a machine of its own.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod samples;

pub use samples::{Summary, summary, summary_of_few};
