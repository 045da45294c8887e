//! Whole kernels in host tests: simulated CPUs, domains and threads, driven one step at a time.
//!
//! - `world`: a machine with a kernel, a first domain and its thread; what tests do with them.
//! - `audit`: what must hold between any two steps, whatever domains did.
//! - `rounds`: several CPUs in the kernel at once.
//! - `whole`: random domains on random CPUs. Most mistakes are found there.
//! - `scheduler`: one CPU's choice of threads against a model.
//! - The others test one topic each, by examples or against a model.

mod audit;
mod derivation;
mod faults;
mod handles;
mod interleavings;
mod ipc;
mod memory;
mod moves;
mod notifications;
mod rounds;
mod scheduler;
mod shortage;
mod whole;
mod world;

use crate::arch::fake::Fake;

/// A reference to an object of a simulated kernel.
type Ref<T> = dragonfly_memory::Ref<T, Fake>;
/// A queue of a simulated kernel.
type Queue<T, L> = dragonfly_memory::Queue<T, Fake, L>;

/// Settings of a property test with this many cases; Miri runs a few of them.
fn config(cases: u32) -> proptest::prelude::ProptestConfig {
    let cases = if cfg!(miri) { cases.div_ceil(100) } else { cases };
    proptest::prelude::ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}
