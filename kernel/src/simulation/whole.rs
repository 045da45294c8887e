//! Random domains: their threads make random calls, most of them with handles and numbers that mean something, on CPUs
//! that act, are kicked and are interrupted in random order. After each step all of the kernel is looked at; at the end
//! everything must be back.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::rounds::{Pace, random_turns};
use run::Run;

mod calls;
mod run;

/// CPUs of a run, beside the keeper's.
const CPUS: usize = 3;
/// Where memory is mapped: pages from here on.
const MAPPINGS: u64 = 0x10_0000_0000;

/// Numbers from which one step is made, whatever state the run is in.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u8,
    kind: u8,
    words: [u16; 6],
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<u8>(), any::<u8>(), any::<[u16; 6]>()).prop_map(|(cpu, kind, words)| Step { cpu, kind, words });
    proptest::collection::vec(step, 1..1200)
}

/// How long to go on, and how many cases at least: `DRAGONFLY_FUZZ_SECONDS`, `PROPTEST_CASES`.
fn effort(cases: u32) -> (Duration, u32) {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seconds = number("DRAGONFLY_FUZZ_SECONDS").unwrap_or(0);
    (Duration::from_secs(seconds), number("PROPTEST_CASES").map_or(cases, |cases| cases as u32))
}

fn execute(steps: &[Step], with: Option<fn(&Step) -> Pace>, is_traced: bool) {
    let mut run = Run::new();
    run.world.is_traced = is_traced;
    let mut rest = steps;
    while let [step, after @ ..] = rest {
        rest = after;
        match with {
            Some(pace) if step.kind >= 192 => {
                let together = &steps[steps.len() - rest.len() - 1..][..rest.len().min(2) + 1];
                rest = &rest[together.len() - 1..];
                run.step_together(together, pace(step));
            }
            _ => run.step(step),
        }
    }
    run.end();
}

/// Runs random cases for as long as it is to take. `with` says how several CPUs act at once, if they do.
fn explore(cases: u32, salt: u8, with: Option<fn(&Step) -> Pace>) {
    let (duration, cases) = effort(cases);
    let start = Instant::now();
    for round in 0_u64.. {
        let config = Config { cases, max_shrink_time: 120_000, failure_persistence: None, ..Config::default() };
        let mut seed = [salt; 32];
        seed[..8].copy_from_slice(&round.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let result = runner.run(&steps(), |steps| {
            execute(&steps, with, false);
            Ok(())
        });
        if let Err(TestError::Fail(reason, steps)) = result {
            eprintln!("round {round}: {reason}\n{steps:?}");
            execute(&steps, with, true);
            panic!("{reason}, but not again");
        }
        if start.elapsed() >= duration {
            break;
        }
    }
}

#[test]
fn random_domains_never_break_the_kernel() {
    explore(256, 0, None);
}

#[test]
fn random_domains_on_cpus_that_take_turns_in_the_kernel_never_break_it() {
    explore(64, 1, Some(|step| random_turns(u64::from(step.words[0]), 1 + u64::from(step.words[1] % 16))));
}

#[test]
fn random_domains_on_cpus_that_are_in_the_kernel_at_once_never_break_it() {
    explore(64, 2, Some(|_| None));
}
