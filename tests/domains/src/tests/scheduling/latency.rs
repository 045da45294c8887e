//! How soon a woken thread runs.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{PAGE_SIZE, Rights};
use dragonfly_rt::sys::{Commit, Memory, Notification, clock_now_ns, exit_thread};
use dragonfly_rt::{Mapping, cpus};

use super::priorities::endless_yielder;
use super::{MS, counter, load, run_for};
use crate::check::Outcome;
use crate::light::{Builder, Child, PLAYGROUND, Words, handle, shared, word_at};
use crate::statistics::Samples;
use crate::tests::Context;

/// Sleeps by its timer words[1] times; stores how late each wake-up was in the words from address words[2] on. Word 0
/// counts threads that are through.
extern "C" fn sleeper(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    for round in 0..words[1] {
        let deadline = clock_now_ns() + 100_000 + round % 13 * 7_000;
        let _ = notification.arm_timer(deadline, 1);
        let _ = notification.wait();
        word_at(words[2] + round * 8).store(clock_now_ns().saturating_sub(deadline), Ordering::Relaxed);
    }
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

pub fn wake_latency(context: &Context) -> Outcome {
    let child = Child::new()?;
    let mut lights = Vec::new();
    let rounds = context.repeat(300, 1000, 20_000);
    let size = (rounds * 8).next_multiple_of(PAGE_SIZE);
    let memory = Memory::create(size * u64::from(cpus()), Commit::Explicit)?;
    memory.commit(0, size * u64::from(cpus()))?;
    memory.map(child.domain(), PLAYGROUND, 0, size * u64::from(cpus()), Rights::READ | Rights::WRITE)?;
    // Loads of lower priority that compute and that call the kernel.
    for cpu in 0..cpus() {
        lights.push(Builder::new(cpu).priority(5).spawn(child.domain(), counter, &[3])?);
        lights.push(Builder::new(cpu).priority(5).spawn(child.domain(), endless_yielder, &[])?);
    }
    let mut notifications = Vec::new();
    for cpu in 0..cpus() {
        let notification = Notification::create()?;
        let words = [child.give(*notification, Rights::all())?, rounds, PLAYGROUND + size * u64::from(cpu)];
        notifications.push(notification);
        lights.push(Builder::new(cpu).priority(50).spawn(child.domain(), sleeper, &words)?);
    }
    // Seldom, so that the test itself does not come in between.
    while load(child.word(0)?) < cpus().into() {
        run_for(20 * MS)?;
    }
    let figures = Mapping::new(*memory, 0, memory.info()?.size, Rights::READ)?;
    for cpu in 0..cpus() {
        let mut samples = Samples::default();
        for round in 0..rounds {
            samples.add(figures.word(u64::from(cpu) * size + round * 8)?.load(Ordering::Relaxed));
        }
        context.note(format_args!("CPU {cpu}, ns from the timer's deadline until the thread runs: {samples}"));
        let p99 = samples.percentile(99);
        context.hold(p99 <= 10_000, format_args!("P99 is {p99} ns on CPU {cpu}"))?;
    }
    Ok(())
}
