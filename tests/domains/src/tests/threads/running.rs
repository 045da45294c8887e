//! What is known of a thread that runs: its CPU, its state, its time.

use core::sync::atomic::Ordering;

use dragonfly_abi::Rights;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Notification, clock_now_ns, exit_thread};

use super::spinner;
use crate::check::{Outcome, equal};
use crate::light::{Builder, Child, Words, handle, shared};
use crate::probe::{expect_that, expect_value, pause};
use crate::tests::Context;

const SPIN_NS: u64 = 3_000_000;

pub fn a_thread_runs_where_it_should(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for priority in [1, 29, 50] {
            let child = Child::new()?;
            let light = Builder::new(cpu).priority(priority).spawn(child.domain(), spinner, &[])?;
            expect_value(child.word(0)?, 1, "the thread")?;
            let info = light.thread().info()?;
            equal("state, CPU and priority", (info.state, info.cpu, info.priority), (1, cpu.into(), priority.into()))?;
        }
    }
    Ok(())
}

pub fn states_of_a_thread(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let light = Builder::new(cpu).prepare(child.domain(), spinner, &[])?;
        equal("state of a stopped thread", light.thread().info()?.state, 0)?;
        pause();
        equal("what it did before it was started", child.word(0)?.load(Ordering::Relaxed), 0)?;
        light.start()?;
        expect_value(child.word(0)?, 1, "the thread")?;
        equal("state of a running thread", light.thread().info()?.state, 1)?;
        child.word(1)?.store(1, Ordering::Release);
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "its end")?;
        expect_that(|| child.domain().info().is_ok_and(|info| info.threads == 0), "its leaving the domain")?;
    }
    Ok(())
}

/// Spins for words[1] ns of the clock, then waits for notification 0, in turns. Word 0 counts turns.
extern "C" fn worker(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    while notification.wait().is_ok() {
        let end = clock_now_ns() + words[1];
        while clock_now_ns() < end {}
        shared(0).fetch_add(1, Ordering::Release);
    }
    exit_thread()
}

pub fn consumed_time(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let notification = Notification::create()?;
        let given = child.give(*notification, Rights::RECEIVE)?;
        // Nobody else has this priority, so what it spins is what it runs.
        let light = Builder::new(cpu).priority(50).spawn(child.domain(), worker, &[given, SPIN_NS])?;
        let thread = light.thread();
        let consumed = || thread.info().map_or(0, |info| info.consumed_ns);
        // After its first work it is charged until it waits again; then no more.
        let stands_still = || {
            let before = consumed();
            for _ in 0..20 {
                pause();
            }
            before > 0 && consumed() == before
        };
        notification.signal(1)?;
        expect_value(child.word(0)?, 1, "the first work")?;
        expect_that(stands_still, "an end of the time that it consumes asleep")?;
        let before = consumed();
        for round in 2..=5 {
            notification.signal(1)?;
            expect_value(child.word(0)?, round, "the work")?;
        }
        expect_that(stands_still, "an end of the time that it consumes asleep")?;
        let used = thread.info()?.consumed_ns - before;
        // Spinning ends by the clock, which runs on while the test has the CPU.
        let error = used.abs_diff(4 * SPIN_NS) * 100 / (4 * SPIN_NS);
        context.hold(error <= 10, format_args!("{used} ns consumed in {} ns on CPU {cpu}", 4 * SPIN_NS))?;
    }
    Ok(())
}
