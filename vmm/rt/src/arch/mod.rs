//! What the runtime needs of the processor: system calls, the entry of threads, the stack pointer.
//!
//! On a host there is no kernel of ours to call: there every call gives [`Status::BadCall`](dragonfly_abi::Status),
//! so that the runtime's other parts can be built and tested.

#[cfg(all(target_os = "none", target_arch = "x86_64"))]
#[path = "x86_64.rs"]
mod imp;

#[cfg(not(target_os = "none"))]
#[path = "host.rs"]
mod imp;

pub(crate) use imp::{call, hardware_random, stack_pointer, stop, thread_entry, time_stamp};
