//! Servers that run with the priority and on the budget of their callers.

use core::sync::atomic::Ordering;

use dragonfly_abi::Rights;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{self, Gate, Message, clock_now_ns, exit_thread};

use super::{MS, counter, expect_work, load, run_for};
use crate::check::{Outcome, equal, that};
use crate::light::{Builder, Child, Light, Words, handle, shared};
use crate::probe::{expect_that, expect_value, pause};
use crate::tests::{Context, ipc};

/// Waits until a thread has ended: what it used is charged when it leaves its CPU.
fn expect_end(light: &Light) -> Outcome {
    let thread = light.thread();
    expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of a thread")
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

pub fn priority_travels(_: &Context) -> Outcome {
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

pub fn budget_travels(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        // Two servers on the way: the first passes the call on.
        let last = pair(cpu, Builder::new(cpu))?;
        let (middle, callers) = (Child::new()?, Child::new()?);
        let gate = Gate::create()?;
        let words = [middle.give(*gate, Rights::RECEIVE)?, middle.give(*last.gate, Rights::SEND)?, 0];
        let between = middle.spawn(cpu, ipc::middle, &words)?;
        for _ in 0..20 {
            pause();
        }
        let before = [last.server.thread().info()?.consumed_ns, between.thread().info()?.consumed_ns];
        let send = callers.give(*gate, Rights::SEND)?;
        let caller = callers.spawn(cpu, work_caller, &[send, 300_000, 0, 5])?;
        expect_value(callers.word(0)?, 5, "the calls")?;
        expect_end(&caller)?;
        let used = caller.thread().info()?.consumed_ns;
        let servers =
            [last.server.thread().info()?.consumed_ns - before[0], between.thread().info()?.consumed_ns - before[1]];
        that(used > MS, format_args!("the caller was charged with {used} ns"))?;
        that(
            servers.iter().all(|own| *own < used / 20),
            format_args!("the servers were charged with {servers:?} ns beside the caller's {used}"),
        )?;
    }
    Ok(())
}

pub fn budget_bounds_the_server(context: &Context) -> Outcome {
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

pub fn donation_ends(_: &Context) -> Outcome {
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

pub fn no_donation_across_cpus(context: &Context) -> Outcome {
    let pair = pair(context.other_cpu(), Builder::new(context.other_cpu()))?;
    let before = pair.server.thread().info()?.consumed_ns;
    let caller = Builder::new(0).spawn(pair.callers.domain(), work_caller, &[pair.send, 1_000_000, 0, 3])?;
    expect_value(pair.callers.word(0)?, 3, "the calls")?;
    expect_end(&caller)?;
    let (server, caller) = (pair.server.thread().info()?.consumed_ns - before, caller.thread().info()?.consumed_ns);
    that(server > caller, format_args!("the server was charged with {server} ns, the caller with {caller}"))
}
