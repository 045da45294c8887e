//! Budgets: what a thread gets of its CPU, and no more.

use alloc::vec::Vec;

use dragonfly_abi::Rights;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Notification, clock_now_ns};

use super::{MS, counter, load, run_for};
use crate::check::{Outcome, equal};
use crate::light::{Builder, Child, Words, handle};
use crate::probe::expect_that;
use crate::tests::Context;

/// What a thread with a budget is to have consumed `periods` periods after its start.
#[derive(Clone, Copy)]
struct Share {
    budget_ns: u64,
    period_ns: u64,
    priority: u8,
}

/// Starts busy threads with these shares on CPUs and checks what each has had after about `duration`.
fn check_shares(context: &Context, cpus: &[u32], shares: &[Share], duration: u64) -> Outcome {
    let child = Child::new()?;
    let mut running = Vec::new();
    for cpu in cpus {
        for (number, share) in shares.iter().enumerate() {
            let plan = Builder::new(*cpu).priority(share.priority).budget(share.budget_ns, share.period_ns);
            running.push((*cpu, *share, plan.prepare(child.domain(), counter, &[number as u64])?, 0));
        }
        // What is left of the CPU is wanted too.
        let idle = Share { budget_ns: 0, period_ns: 0, priority: 1 };
        running.push((*cpu, idle, Builder::new(*cpu).priority(1).prepare(child.domain(), counter, &[100])?, 0));
    }
    for (_, _, light, started) in &mut running {
        *started = clock_now_ns();
        light.start()?;
    }
    let own = Notification::create()?;
    for (cpu, share, light, started) in running.iter().filter(|(_, share, _, _)| share.budget_ns > 0) {
        // Shortly before the end of a period: by then its budget is used up, since all shares together fit.
        let periods = duration.div_ceil(share.period_ns);
        own.arm_timer(*started + periods * share.period_ns - share.period_ns / 20, 1)?;
        own.wait()?;
        let consumed = light.thread().info()?.consumed_ns;
        let wanted = periods * share.budget_ns;
        let figures = alloc::format!(
            "CPU {cpu}, priority {}, {} of {} us: {consumed} ns in {periods} periods, {wanted} wanted",
            share.priority,
            share.budget_ns / 1000,
            share.period_ns / 1000,
        );
        context.note(&figures);
        context.hold(consumed.abs_diff(wanted) * 100 <= wanted, &figures)?;
    }
    Ok(())
}

pub fn budget_alone(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for (budget_ns, period_ns) in [(2 * MS, 10 * MS), (MS, 20 * MS), (9 * MS, 10 * MS)] {
            check_shares(context, &[cpu], &[Share { budget_ns, period_ns, priority: 30 }], 25 * period_ns)?;
        }
    }
    Ok(())
}

pub fn budgets_compete(context: &Context) -> Outcome {
    let all: Vec<u32> = (0..cpus()).collect();
    let shares = [
        Share { budget_ns: 2 * MS, period_ns: 10 * MS, priority: 40 },
        Share { budget_ns: 4 * MS, period_ns: 20 * MS, priority: 35 },
        Share { budget_ns: 6 * MS, period_ns: 40 * MS, priority: 30 },
        Share { budget_ns: 6 * MS, period_ns: 40 * MS, priority: 30 },
    ];
    check_shares(context, &all, &shares, context.repeat(800, 2000, 20_000) * MS)
}

/// Works for words[1] ns of the clock, sleeps for words[2] ns on notification 0, and so on.
extern "C" fn napper(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    loop {
        let end = clock_now_ns() + words[1];
        while clock_now_ns() < end {}
        let _ = notification.wait_timed(words[2]);
    }
}

pub fn budget_of_a_sleeper(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for (work, sleep) in [(MS, MS), (300_000, 100_000), (5 * MS, 100_000)] {
            let child = Child::new()?;
            let notification = Notification::create()?;
            let given = child.give(*notification, Rights::RECEIVE)?;
            let plan = Builder::new(cpu).priority(40).budget(2 * MS, 10 * MS);
            let light = plan.spawn(child.domain(), napper, &[given, work, sleep])?;
            let _load = Builder::new(cpu).priority(20).spawn(child.domain(), counter, &[0])?;
            let start = (clock_now_ns(), light.thread().info()?.consumed_ns);
            run_for(context.repeat(300, 600, 6000) * MS)?;
            let used = light.thread().info()?.consumed_ns - start.1;
            let periods_of_10 = (clock_now_ns() - start.0).div_ceil(MS);
            // It may use one budget at each end more than the periods in between give.
            let most = periods_of_10 * MS / 5 + 2 * MS;
            let is_kept = used <= most * 101 / 100 && used >= most * 3 / 4;
            context.hold(is_kept, format_args!("{used} ns used of {most} with {work} ns of work"))?;
        }
    }
    Ok(())
}

pub fn out_of_budget(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let plan = Builder::new(cpu).budget(100_000, 3_600_000 * MS);
        let light = plan.spawn(child.domain(), counter, &[0])?;
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.consumed_ns >= 100_000), "the end of the budget")?;
        let counted = load(child.word(0)?);
        run_for(20 * MS)?;
        equal("what it did without budget", load(child.word(0)?), counted)?;
    }
    Ok(())
}
