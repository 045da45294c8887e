//! The runtime of every user domain.
//!
//! A program is a function that [`main!`] names. Before it runs, [`start`](start_info) has taken over the stack and
//! the start page. [`sys`] makes system calls, [`message`] holds what does not fit into their registers; [`thread`],
//! [`sync`], [`time`] and [`Mapping`] are what programs use most, made of them. The heap grows as needed, the `log`
//! crate and [`println!`] write to the kernel's log, and a panic ends the domain. [`loader`] starts other domains,
//! [`supervisor`] talks to the one that started this.
//!
//! Built for a host, what needs the kernel fails with [`Status::BadCall`](dragonfly_abi::Status).
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod address_space;
mod arch;
mod arguments;
pub mod console;
mod foreign;
#[cfg(any(test, target_os = "none"))]
mod growing_heap;
pub mod guest;
#[cfg(target_os = "none")]
pub mod heap;
pub mod loader;
mod logger;
mod mapping;
pub mod message;
#[cfg(target_os = "none")]
mod panic;
pub mod random;
mod ranges;
mod stack;
mod start;
pub mod supervisor;
pub mod sync;
pub mod sys;
pub mod thread;
pub mod time;

pub use dragonfly_abi as abi;
pub use foreign::ForeignMapping;
pub use log;
pub use mapping::Mapping;
pub use stack::STACK_SIZE;
pub use start::{argument, arguments, bundle, cpus, named, start_info};

#[cfg(test)]
mod testing {
    use proptest::prelude::ProptestConfig;

    /// Few cases under Miri, which is a thousand times slower and is there for the memory accesses of each.
    pub(crate) fn property_config() -> ProptestConfig {
        ProptestConfig {
            failure_persistence: None,
            cases: if cfg!(miri) { 3 } else { 256 },
            ..ProptestConfig::default()
        }
    }
}
