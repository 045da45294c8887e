//! Priorities, slices, budgets, donation, and how soon a woken thread runs.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::{PAGE_SIZE, Rights, Status};
use dragonfly_rt::sys::{
    self, Commit, Gate, Memory, Message, Notification, clock_now_ns, exit_thread, yield_thread,
};
use dragonfly_rt::{Mapping, cpus};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Builder, Child, Light, PLAYGROUND, Words, handle, shared, word_at};
use crate::probe::{expect_that, expect_value, pause};
use crate::statistics::Samples;

super::tests! {
    "a busy thread keeps all of lower priority from its CPU and none of other CPUs" => priorities_hold,
    "a woken thread of higher priority runs at once, one of lower not at all" => waking_preempts,
    "threads that yield take turns" => yielding_takes_turns,
    "yielding does not let lower priorities run" => yielding_keeps_priority,
    "threads of one priority share their CPU evenly without yielding" within 120 => even_slices,
    "a budget holds within 1 % on an idle CPU" within 120 => budget_alone,
    "budgets of competing threads hold within 1 % on every CPU at once" within 120 => budgets_compete,
    "a budget holds for a thread that sleeps and wakes" within 120 => budget_of_a_sleeper,
    "a thread out of budget does not run though its CPU is idle" => out_of_budget,
    "a server runs with the priority of its caller" => priority_travels,
    "a server's work is charged to its caller, through a chain of servers" => budget_travels,
    "a caller's budget bounds its server" => budget_bounds_the_server,
    "a server whose caller goes runs on with its own priority and budget" => donation_ends,
    "a server on another CPU runs on its own budget" on 2 => no_donation_across_cpus,
    "a woken thread runs soon with every CPU loaded" within 120 => wake_latency,
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

/// Waits until a thread has ended: what it used is charged when it leaves its CPU.
fn expect_end(light: &Light) -> Outcome {
    let thread = light.thread();
    expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of a thread")
}

/// Waits until a counter counts.
fn expect_work(word: &AtomicU64) -> Outcome {
    expect_that(|| load(word) > 0, "the work of a busy thread")
}

fn priorities_hold(_: &Context) -> Outcome {
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

fn waking_preempts(_: &Context) -> Outcome {
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

fn yielding_takes_turns(_: &Context) -> Outcome {
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
extern "C" fn endless_yielder(_: &Words) -> ! {
    loop {
        shared(1).fetch_add(1, Ordering::Relaxed);
        yield_thread();
    }
}

fn yielding_keeps_priority(_: &Context) -> Outcome {
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

fn even_slices(context: &Context) -> Outcome {
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

fn budget_alone(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for (budget_ns, period_ns) in [(2 * MS, 10 * MS), (MS, 20 * MS), (9 * MS, 10 * MS)] {
            check_shares(context, &[cpu], &[Share { budget_ns, period_ns, priority: 30 }], 25 * period_ns)?;
        }
    }
    Ok(())
}

fn budgets_compete(context: &Context) -> Outcome {
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

fn budget_of_a_sleeper(context: &Context) -> Outcome {
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

fn out_of_budget(_: &Context) -> Outcome {
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

/// Serves gate 0: works for as many ns of its own CPU's clock as the first word says. Word 1 counts.
extern "C" fn working_server(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let mut received = gate.receive();
    while let Ok(request) = received {
        let turns = request.message.words[0];
        for _ in 0..turns {
            shared(1).fetch_add(1, Ordering::Relaxed);
        }
        received = gate.reply_receive(Message::default());
    }
    exit_thread()
}

/// Calls gate 0 with words[1] as the work; word words[2] counts, words[3] times.
extern "C" fn work_caller(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    for _ in 0..words[3] {
        if gate.call(Message::new(0, [words[1], 0, 0, 0])).is_ok() {
            shared(words[2] as usize).fetch_add(1, Ordering::Release);
        }
    }
    exit_thread()
}

/// A server of work on a CPU, and a caller that has not started.
struct Pair {
    servers: Child,
    server: Light,
    gate: sys::Owned<Gate>,
    callers: Child,
    send: u64,
}

fn pair(cpu: u32, server: Builder) -> Outcome<Pair> {
    let (servers, callers) = (Child::new()?, Child::new()?);
    let gate = Gate::create()?;
    let (receive, send) = (servers.give(*gate, Rights::RECEIVE)?, callers.give(*gate, Rights::SEND)?);
    let server = server.spawn(servers.domain(), working_server, &[receive])?;
    that(server.thread().info()?.cpu == u64::from(cpu), "the server is on another CPU")?;
    for _ in 0..20 {
        pause();
    }
    Ok(Pair { servers, server, gate, callers, send })
}

fn priority_travels(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let pair = pair(cpu, Builder::new(cpu).priority(2))?;
        // Busy threads between the server's own priority and its caller's.
        let busy = Builder::new(cpu).priority(20).spawn(pair.callers.domain(), counter, &[5])?;
        expect_work(pair.callers.word(5)?)?;
        let high = Builder::new(cpu).priority(30);
        let caller = high.spawn(pair.callers.domain(), work_caller, &[pair.send, 10_000, 0, 10])?;
        expect_value(pair.callers.word(0)?, 10, "ten calls with the caller's priority")?;
        drop(caller);
        // With a caller of low priority the same server does not run.
        let served = load(pair.servers.word(1)?);
        let low = Builder::new(cpu).priority(10);
        let _low = low.spawn(pair.callers.domain(), work_caller, &[pair.send, 10_000, 1, 1])?;
        run_for(10 * MS)?;
        equal("work for the caller of low priority", load(pair.servers.word(1)?), served)?;
        // Its turn comes when nobody of higher priority wants the CPU.
        drop(busy);
        expect_value(pair.callers.word(1)?, 1, "the call of the lower priority")?;
    }
    Ok(())
}

fn budget_travels(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        // Two servers on the way: the first passes the call on.
        let last = pair(cpu, Builder::new(cpu))?;
        let (middle, callers) = (Child::new()?, Child::new()?);
        let gate = Gate::create()?;
        let words = [middle.give(*gate, Rights::RECEIVE)?, middle.give(*last.gate, Rights::SEND)?, 0];
        let between = middle.spawn(cpu, super::ipc::middle, &words)?;
        for _ in 0..20 {
            pause();
        }
        let before = [last.server.thread().info()?.consumed_ns, between.thread().info()?.consumed_ns];
        let send = callers.give(*gate, Rights::SEND)?;
        let caller = callers.spawn(cpu, work_caller, &[send, 300_000, 0, 5])?;
        expect_value(callers.word(0)?, 5, "the calls")?;
        expect_end(&caller)?;
        let used = caller.thread().info()?.consumed_ns;
        let servers = [
            last.server.thread().info()?.consumed_ns - before[0],
            between.thread().info()?.consumed_ns - before[1],
        ];
        that(used > MS, format_args!("the caller was charged with {used} ns"))?;
        that(
            servers.iter().all(|own| *own < used / 20),
            format_args!("the servers were charged with {servers:?} ns beside the caller's {used}"),
        )?;
    }
    Ok(())
}

fn budget_bounds_the_server(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let pair = pair(cpu, Builder::new(cpu))?;
        let plan = Builder::new(cpu).budget(MS, 20 * MS);
        let caller = plan.spawn(pair.callers.domain(), work_caller, &[pair.send, 100_000_000, 0, 1])?;
        let start = clock_now_ns();
        run_for(400 * MS)?;
        let used = caller.thread().info()?.consumed_ns;
        let periods = (clock_now_ns() - start) / (20 * MS) + 2;
        let is_kept = used <= periods * MS * 101 / 100 && used >= (periods - 3) * MS * 9 / 10;
        context.hold(is_kept, format_args!("{used} ns used in {periods} periods of 1 ms"))?;
        let own = pair.server.thread().info()?.consumed_ns;
        that(own < MS, format_args!("the server used {own} ns of its own"))?;
    }
    Ok(())
}

fn donation_ends(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let pair = pair(cpu, Builder::new(cpu).priority(10))?;
        let plan = Builder::new(cpu).priority(30).budget(MS, 3_600_000 * MS);
        let caller = plan.spawn(pair.callers.domain(), work_caller, &[pair.send, 1 << 40, 0, 1])?;
        // The caller's budget is used up: the server stands still.
        run_for(20 * MS)?;
        let done = load(pair.servers.word(1)?);
        run_for(5 * MS)?;
        equal("the server's work without budget", load(pair.servers.word(1)?), done)?;
        drop(caller);
        run_for(5 * MS)?;
        that(load(pair.servers.word(1)?) > done, "the server does not go on when its caller is gone")?;
        // On its own priority: busy threads above it keep it away.
        let busy = Builder::new(cpu).priority(11).spawn(pair.callers.domain(), counter, &[5])?;
        expect_work(pair.callers.word(5)?)?;
        let done = load(pair.servers.word(1)?);
        run_for(5 * MS)?;
        equal("the server's work below a busy thread", load(pair.servers.word(1)?), done)?;
        drop(busy);
        let own = pair.server.thread().info()?.consumed_ns;
        that(own > MS, format_args!("the server was charged with {own} ns only"))?;
    }
    Ok(())
}

fn no_donation_across_cpus(context: &Context) -> Outcome {
    let pair = pair(context.other_cpu(), Builder::new(context.other_cpu()))?;
    let before = pair.server.thread().info()?.consumed_ns;
    let caller = Builder::new(0).spawn(pair.callers.domain(), work_caller, &[pair.send, 1_000_000, 0, 3])?;
    expect_value(pair.callers.word(0)?, 3, "the calls")?;
    expect_end(&caller)?;
    let (server, caller) = (pair.server.thread().info()?.consumed_ns - before, caller.thread().info()?.consumed_ns);
    that(server > caller, format_args!("the server was charged with {server} ns, the caller with {caller}"))
}

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

fn wake_latency(context: &Context) -> Outcome {
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
