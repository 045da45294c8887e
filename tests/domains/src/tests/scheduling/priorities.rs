//! Who runs by priority, and who by turns.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::Rights;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Notification, exit_thread, yield_thread};

use super::{MS, counter, expect_work, load, run_for};
use crate::check::{Outcome, equal, that};
use crate::light::{Builder, Child, Light, Words, handle, shared};
use crate::probe::{expect_that, expect_value, pause};
use crate::tests::Context;

pub fn priorities_hold(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let low = Builder::new(cpu).priority(10).prepare(child.domain(), counter, &[0])?;
        let high = Builder::new(cpu).priority(11).prepare(child.domain(), counter, &[1])?;
        high.start()?;
        low.start()?;
        let elsewhere = (0..cpus()).filter(|other| *other != cpu);
        let elsewhere: Vec<Light> = elsewhere
            .map(|other| Builder::new(other).priority(1).spawn(child.domain(), counter, &[2 + u64::from(other)]))
            .collect::<Result<_, _>>()?;
        run_for(30 * MS)?;
        equal("what the lower priority did", load(child.word(0)?), 0)?;
        that(load(child.word(1)?) > 0, "the higher priority did nothing")?;
        for other in (0..cpus()).filter(|other| *other != cpu) {
            that(load(child.word(2 + u64::from(other))?) > 0, format_args!("CPU {other} did nothing"))?;
        }
        drop(high);
        run_for(5 * MS)?;
        that(load(child.word(0)?) > 0, "the lower priority did nothing when it was alone")?;
        drop(elsewhere);
    }
    Ok(())
}

/// Waits for notification 0, then adds 1 to word words[1]; again and again.
extern "C" fn woken_counter(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    while notification.wait().is_ok() {
        shared(words[1] as usize).fetch_add(1, Ordering::Release);
    }
    exit_thread()
}

pub fn waking_preempts(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let (above, below) = (Notification::create()?, Notification::create()?);
        let words = [child.give(*above, Rights::RECEIVE)?, child.give(*below, Rights::RECEIVE)?];
        let _above = Builder::new(cpu).priority(31).spawn(child.domain(), woken_counter, &[words[0], 1])?;
        let _below = Builder::new(cpu).priority(29).spawn(child.domain(), woken_counter, &[words[1], 2])?;
        pause();
        let _busy = Builder::new(cpu).priority(30).spawn(child.domain(), counter, &[0])?;
        expect_work(child.word(0)?)?;
        for round in 1..=20 {
            above.signal(1)?;
            below.signal(1)?;
            expect_value(child.word(1)?, round, "the thread above")?;
        }
        run_for(5 * MS)?;
        equal("what the thread below did", load(child.word(2)?), 0)?;
    }
    Ok(())
}

/// Yields words[1] times; word words[0] counts, and every turn notes in word 10 who had it, word 11 counts repeated
/// turns of one thread.
extern "C" fn yielder(words: &Words) -> ! {
    for _ in 0..words[1] {
        if shared(10).swap(words[0], Ordering::Relaxed) == words[0] {
            shared(11).fetch_add(1, Ordering::Relaxed);
        }
        shared(words[0] as usize).fetch_add(1, Ordering::Relaxed);
        yield_thread();
    }
    shared(12).fetch_add(1, Ordering::Release);
    exit_thread()
}

pub fn yielding_takes_turns(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let lights: Vec<Light> = (1..=3)
            .map(|number| Builder::new(cpu).priority(20).prepare(child.domain(), yielder, &[number, 1000]))
            .collect::<Result<_, _>>()?;
        // All start before the first one runs.
        let starter = Builder::new(cpu).priority(40).spawn(child.domain(), counter, &[0])?;
        for light in &lights {
            light.start()?;
        }
        pause();
        drop(starter);
        expect_value(child.word(12)?, 3, "all turns")?;
        // The start of a slice may fall into a turn now and then.
        let repeated = load(child.word(11)?);
        that(repeated <= 30, format_args!("{repeated} of 3000 turns went to the thread that had the last"))?;
    }
    Ok(())
}

/// Yields until word 1 is set.
pub extern "C" fn endless_yielder(_: &Words) -> ! {
    loop {
        shared(1).fetch_add(1, Ordering::Relaxed);
        yield_thread();
    }
}

pub fn yielding_keeps_priority(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let _high = Builder::new(cpu).priority(21).spawn(child.domain(), endless_yielder, &[])?;
        let _low = Builder::new(cpu).priority(20).spawn(child.domain(), counter, &[0])?;
        run_for(20 * MS)?;
        let turns = child.word(1)?;
        // At once where time is exact; a loaded host may have left that CPU alone so far.
        expect_that(|| load(turns) > 10, "the yielding thread's turns")?;
        equal("what the lower priority did", load(child.word(0)?), 0)?;
    }
    Ok(())
}

pub fn even_slices(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let lights: Vec<Light> = (0..4)
            .map(|number| Builder::new(cpu).priority(20).budget(MS, MS).spawn(child.domain(), counter, &[number]))
            .collect::<Result<_, _>>()?;
        run_for(10 * MS)?;
        let before = consumed(&lights)?;
        run_for(200 * MS)?;
        let after = consumed(&lights)?;
        let used: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        let (least, most) = (used.iter().min().copied().unwrap_or(0), used.iter().max().copied().unwrap_or(0));
        // At each end one thread may be in the middle of its slice.
        let is_even = most <= least + 2 * MS + most * 2 / 100;
        context.hold(is_even, format_args!("the threads had {used:?} ns on CPU {cpu}"))?;
        that(least > 0, format_args!("the threads had {used:?} ns on CPU {cpu}"))?;
    }
    Ok(())
}

fn consumed(lights: &[Light]) -> Outcome<Vec<u64>> {
    lights.iter().map(|light| Ok(light.thread().info()?.consumed_ns)).collect()
}
