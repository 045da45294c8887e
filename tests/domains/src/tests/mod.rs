//! The tests of the kernel, by topic. Each is named as a sentence that `docs/abi.md` or the design promises.

use alloc::string::String;
use core::fmt;

use dragonfly_rt::{cpus, println};

use crate::check::{Outcome, that};
use crate::options::Options;

pub mod boot;
pub mod devices;
pub mod domains;
pub mod exhaustion;
pub mod faults;
pub mod fuzz;
pub mod guests;
pub mod handles;
pub mod ipc;
pub mod ipc_ends;
pub mod ipc_handles;
pub mod memory;
pub mod messages;
pub mod notifications;
pub mod registers;
pub mod revocation;
pub mod scheduling;
pub mod statuses;
pub mod system;
pub mod threads;

/// A test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// What it shows.
    pub name: &'static str,
    /// How many CPUs it needs.
    pub cpus: u32,
    /// How long it may take, in seconds of the quick level.
    pub limit_s: u64,
    /// Shows it.
    pub run: fn(&Context) -> Outcome,
}

/// What a test knows of its run.
#[derive(Clone, Debug)]
pub struct Context {
    /// The test's name, with its topic.
    pub name: String,
    /// What the arguments say.
    pub options: Options<'static>,
}

impl Context {
    /// Prints a figure or a remark.
    pub fn note(&self, text: impl fmt::Display) {
        println!("[test] note {}: {text}", self.name);
    }

    /// How often to repeat something, by level.
    #[must_use]
    pub const fn repeat(&self, quick: u64, whole: u64, soak: u64) -> u64 {
        self.options.level.choose(quick, whole, soak)
    }

    /// Fails, or where the host's load counts as time only remarks, that a figure of time is not as promised.
    ///
    /// # Errors
    /// The failure.
    #[track_caller]
    pub fn hold(&self, condition: bool, message: impl fmt::Display) -> Outcome {
        if !condition && !self.options.deterministic {
            self.note(format_args!("not held, but the host's load is in it: {message}"));
            return Ok(());
        }
        that(condition, message)
    }

    /// Another CPU than the first, on which tests run.
    #[must_use]
    pub fn other_cpu(&self) -> u32 {
        cpus() - 1
    }
}

/// A topic's tests: `"sentence" => function`, with `on N` if it needs so many CPUs and `within N` for its time limit
/// in seconds.
macro_rules! tests {
    ($($name:literal $(on $cpus:literal)? $(within $limit:literal)? => $run:path,)*) => {
        /// The topic's tests.
        pub const TESTS: &[$crate::tests::Test] = &[$($crate::tests::Test {
            name: $name,
            cpus: $crate::tests::first!($($cpus)? 1),
            limit_s: $crate::tests::first!($($limit)? 60),
            run: $run,
        }),*];
    };
}

/// The first of one or two values.
macro_rules! first {
    ($first:literal $($other:literal)?) => {
        $first
    };
}

use {first, tests};

macro_rules! topics {
    ($($topic:ident)*) => {
        /// All tests by topic.
        pub const TOPICS: &[(&str, &[Test])] = &[$((stringify!($topic), $topic::TESTS)),*];
    };
}

topics! {
    boot registers system statuses handles notifications ipc ipc_handles ipc_ends threads scheduling faults memory revocation
    devices messages domains exhaustion guests fuzz
}
