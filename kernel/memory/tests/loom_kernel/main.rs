//! The kernel's protocols between CPUs, in every interleaving of a few steps under loom's memory model: the kernel's own
//! atomics (`kernel/src/protocol.rs`) with this crate's locks and lists.
//!
//! The functions of `kernel` do, step by step, what the kernel's functions of the same names do. Loom's cells stand for
//! what the kernel hands from CPU to CPU without a lock, registers above all: loom reports each access that is not
//! ordered.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are read and written by pointer")]

use loom::model::Builder;

mod kernel;
mod shootdowns;
mod waits;

#[path = "../../../src/protocol.rs"]
mod protocol;

/// What `protocol.rs` finds as the kernel's atomics.
mod sync {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64};
}

/// Every interleaving with at most so many places where a CPU is stopped though it could go on.
fn model(preemptions: usize, scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(scene);
}
