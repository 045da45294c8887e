//! Priorities, slices, budgets, donation, and how soon a woken thread runs.

use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::Status;
use dragonfly_rt::sys::Notification;

use crate::check::{Outcome, refused};
use crate::light::{Words, shared};
use crate::probe::expect_that;

mod budgets;
mod donation;
mod latency;
mod priorities;

super::tests! {
    "a busy thread keeps all of lower priority from its CPU and none of other CPUs" => priorities::priorities_hold,
    "a woken thread of higher priority runs at once, one of lower not at all" => priorities::waking_preempts,
    "threads that yield take turns" => priorities::yielding_takes_turns,
    "yielding does not let lower priorities run" => priorities::yielding_keeps_priority,
    "threads of one priority share their CPU evenly without yielding" within 120 => priorities::even_slices,
    "a budget holds within 1 % on an idle CPU" within 120 => budgets::budget_alone,
    "budgets of competing threads hold within 1 % on every CPU at once" within 120 => budgets::budgets_compete,
    "a budget holds for a thread that sleeps and wakes" within 120 => budgets::budget_of_a_sleeper,
    "a thread out of budget does not run though its CPU is idle" => budgets::out_of_budget,
    "a server runs with the priority of its caller" => donation::priority_travels,
    "a server's work is charged to its caller, through a chain of servers" => donation::budget_travels,
    "a caller's budget bounds its server" => donation::budget_bounds_the_server,
    "a server whose caller goes runs on with its own priority and budget" => donation::donation_ends,
    "a server on another CPU runs on its own budget" on 2 => donation::no_donation_across_cpus,
    "a woken thread runs soon with every CPU loaded" within 120 => latency::wake_latency,
}

const MS: u64 = 1_000_000;

/// Counts in word words[0], for ever.
extern "C" fn counter(words: &Words) -> ! {
    let word = shared(words[0] as usize);
    loop {
        word.fetch_add(1, Ordering::Relaxed);
    }
}

fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Acquire)
}

/// Lets the test's threads run for about so long.
fn run_for(ns: u64) -> Outcome {
    let notification = Notification::create()?;
    refused("the wait", notification.wait_timed(ns), Status::TimedOut)
}

/// Waits until a counter counts.
fn expect_work(word: &AtomicU64) -> Outcome {
    expect_that(|| load(word) > 0, "the work of a busy thread")
}
