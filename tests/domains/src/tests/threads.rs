//! The life of threads: how they are made, configured, started and ended, in every state.
#![expect(unsafe_code, reason = "makes threads at addresses that a test chooses, in other domains")]

use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, MIN_BUDGET_NS, Rights, Status, USER_END};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{
    Domain, DomainSettings, Gate, Message, Notification, Object, Thread, ThreadPlan, ThreadSettings, clock_now_ns,
    exit_thread, yield_thread,
};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Builder, Child, Entry, PRIORITY, Words, handle, shared, usual_settings};
use crate::probe::{self, expect_bits, expect_that, expect_value, pause};
use crate::raw;

super::tests! {
    "a thread runs on the CPU it was made for and tells its figures" => a_thread_runs_where_it_should,
    "a thread's state goes from stopped to alive to ended" => states_of_a_thread,
    "a thread starts once and is configured before" => start_once,
    "a thread on no CPU, or on one that its domain may not use, is refused" => bad_cpus,
    "a priority above the domain's or above all is refused" => bad_priorities,
    "an entry or a stack outside the domain's addresses is refused" => bad_addresses,
    "a message buffer must be a page that is free" => bad_buffers,
    "a budget that is too short, too long or longer than its period is refused" => bad_budgets,
    "a thread that ends itself is gone from its domain" => exit_by_itself,
    "a thread can destroy itself" => destroy_itself,
    "a destroyed thread is gone whatever it was doing" within 120 => destroyed_in_every_state,
    "destroying a thread twice is no error" => destroyed_twice,
    "the message buffer goes with its thread" => buffer_goes,
    "a thousand threads made and ended leave the account as it was" within 120 => many_threads,
    "the last thread's end is told, by whichever way it ends" => death_is_told,
    "consumed time counts running and nothing else" => consumed_time,
}

const SPIN_NS: u64 = 3_000_000;

/// Stores its CPU's work in word 0 and spins until word 1 is set.
extern "C" fn spinner(_: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    while shared(1).load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    exit_thread()
}

fn a_thread_runs_where_it_should(_: &Context) -> Outcome {
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

fn states_of_a_thread(_: &Context) -> Outcome {
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

fn settings() -> ThreadSettings {
    ThreadSettings { budget_ns: 10_000_000, period_ns: 10_000_000, fault_gate: None, report_exhaustion: false }
}

fn start_once(_: &Context) -> Outcome {
    let child = Child::new()?;
    let light = Builder::new(0).prepare(child.domain(), spinner, &[])?;
    let thread = light.thread();
    thread.configure(&settings())?;
    thread.configure(&settings())?;
    thread.start()?;
    refused("a second start", thread.start(), Status::BadState)?;
    refused("configuring it now", thread.configure(&settings()), Status::BadState)?;
    child.word(1)?.store(1, Ordering::Release);
    expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "its end")?;
    refused("a start after its end", thread.start(), Status::BadState)?;
    refused("configuring it after its end", thread.configure(&settings()), Status::BadState)?;
    let stopped = Builder::new(0).prepare(child.domain(), spinner, &[])?;
    stopped.thread().destroy()?;
    refused("a start after it was destroyed", stopped.start(), Status::BadState)
}

/// Makes a thread that is never started; gives the status.
fn make(domain: Domain, change: impl FnOnce(&mut ThreadPlan)) -> Result<(), Status> {
    let mut plan = ThreadPlan {
        cpu: 0,
        priority: PRIORITY,
        entry: 0x20_0000,
        stack: 0x7000_0000,
        message_buffer: 0x7000_0000,
        argument: 0,
    };
    change(&mut plan);
    // SAFETY: the domain is another one.
    unsafe { domain.create_thread(&plan) }?.destroy()
}

fn bad_cpus(_: &Context) -> Outcome {
    let child = Child::new()?;
    for cpu in [cpus(), cpus() + 1, 63, 64, 65, 1 << 16, u32::MAX] {
        if cpu >= cpus() {
            refused(format_args!("CPU {cpu}"), make(child.domain(), |plan| plan.cpu = cpu), Status::BadCpu)?;
        }
    }
    for only in 0..cpus() {
        let child = Child::with(&DomainSettings { cpus: 1 << only, ..usual_settings() })?;
        for cpu in 0..cpus() {
            let made = make(child.domain(), |plan| plan.cpu = cpu);
            equal(format_args!("CPU {cpu} for {only}"), made, if cpu == only { Ok(()) } else { Err(Status::BadCpu) })?;
        }
    }
    Ok(())
}

fn bad_priorities(_: &Context) -> Outcome {
    let child = Child::with(&DomainSettings { max_priority: 20, ..usual_settings() })?;
    for priority in [0, 1, 19, 20] {
        make(child.domain(), |plan| plan.priority = priority)?;
    }
    for priority in [21, 63, 64, 255] {
        let made = make(child.domain(), |plan| plan.priority = priority);
        refused(format_args!("priority {priority}"), made, Status::BadArgument)?;
    }
    let domain = u64::from(child.domain().handle().0);
    let made = raw::call(Call::ThreadCreate, &[domain, 1 << 63 | 1 << 40, 0x20_0000, 0x7000_0000, 0x7000_0000]);
    refused("a priority in the upper bits", made, Status::BadArgument)
}

fn bad_addresses(_: &Context) -> Outcome {
    let child = Child::new()?;
    let domain = child.domain();
    for entry in [0, 1, 4095, USER_END, USER_END + 1, 1 << 47, 1 << 63, 0xffff_8000_0000_0000, u64::MAX] {
        refused(format_args!("entry {entry:#x}"), make(domain, |plan| plan.entry = entry), Status::BadArgument)?;
    }
    for entry in [4096, USER_END - 1, 0x1234_5678_9abc] {
        make(domain, |plan| plan.entry = entry)?;
    }
    for stack in [USER_END + 1, 1 << 47, 1 << 63, 0xffff_8000_0000_0000, u64::MAX] {
        refused(format_args!("stack {stack:#x}"), make(domain, |plan| plan.stack = stack), Status::BadArgument)?;
    }
    for stack in [0, 7, USER_END] {
        make(domain, |plan| plan.stack = stack)?;
    }
    Ok(())
}

fn bad_buffers(_: &Context) -> Outcome {
    let child = Child::new()?;
    let domain = child.domain();
    for buffer in [0, 1, 0x7000_0001, 0x7000_0800, USER_END, 1 << 47, 0xffff_ffff_ffff_f000, u64::MAX] {
        let made = make(domain, |plan| plan.message_buffer = buffer);
        refused(format_args!("buffer {buffer:#x}"), made, Status::BadArgument)?;
    }
    // The program's text is there, and the shared page.
    for buffer in [0x20_0000, crate::light::SHARED] {
        let made = make(domain, |plan| plan.message_buffer = buffer);
        refused(format_args!("buffer {buffer:#x}"), made, Status::Overlap)?;
    }
    let light = Builder::new(0).prepare(domain, spinner, &[])?;
    let made = make(domain, |plan| plan.message_buffer = light.message_buffer());
    refused("another thread's buffer", made, Status::Overlap)?;
    make(domain, |plan| plan.message_buffer = USER_END - 4096)?;
    make(domain, |plan| plan.message_buffer = 4096)?;
    Ok(())
}

fn bad_budgets(_: &Context) -> Outcome {
    let child = Child::new()?;
    let light = Builder::new(0).prepare(child.domain(), spinner, &[])?;
    let configure = |budget_ns, period_ns| light.thread().configure(&ThreadSettings { budget_ns, period_ns, ..settings() });
    const HOUR: u64 = 3_600_000_000_000;
    for (budget, period) in [
        (0, 0),
        (0, 1_000_000),
        (MIN_BUDGET_NS - 1, 1_000_000),
        (1_000_001, 1_000_000),
        (MIN_BUDGET_NS, HOUR + 1),
        (HOUR + 1, HOUR + 1),
        (u64::MAX, u64::MAX),
        (MIN_BUDGET_NS, 0),
    ] {
        refused(format_args!("{budget} of {period}"), configure(budget, period), Status::BadArgument)?;
    }
    for (budget, period) in [(MIN_BUDGET_NS, MIN_BUDGET_NS), (MIN_BUDGET_NS, HOUR), (HOUR, HOUR)] {
        configure(budget, period)?;
    }
    let word = u64::from(light.thread().handle().0);
    for flags in [2, 3, 1 << 32, u64::MAX] {
        let configured = raw::call(Call::ThreadConfigure, &[word, 1_000_000, 1_000_000, 0, 0, flags]);
        refused(format_args!("flags {flags:#x}"), configured, Status::BadArgument)?;
    }
    Ok(())
}

extern "C" fn quitter(_: &Words) -> ! {
    exit_thread()
}

fn exit_by_itself(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let light = child.spawn(cpu, quitter, &[])?;
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "its end")?;
        expect_that(|| child.domain().info().is_ok_and(|info| info.threads == 0), "its leaving the domain")?;
    }
    Ok(())
}

/// Destroys thread 0, which is itself, and stores 2 in word 0 if that comes back.
extern "C" fn self_destroyer(words: &Words) -> ! {
    while shared(1).load(Ordering::Acquire) == 0 {
        yield_thread();
    }
    let _ = raw::call_until_done(Call::ThreadDestroy, &[words[0].wrapping_add(shared(2).load(Ordering::Relaxed))]);
    shared(0).store(2, Ordering::Release);
    exit_thread()
}

fn destroy_itself(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let light = child.spawn(cpu, self_destroyer, &[0])?;
        let given = child.give(light.thread(), Rights::DESTROY)?;
        child.word(2)?.store(given, Ordering::Relaxed);
        child.word(1)?.store(1, Ordering::Release);
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "its end")?;
        equal("what came after it", child.word(0)?.load(Ordering::Relaxed), 0)?;
    }
    Ok(())
}

// What threads are doing when they are destroyed. Word 0: about to.

extern "C" fn in_a_loop(_: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    loop {
        core::hint::spin_loop();
    }
}

extern "C" fn in_calls(_: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    loop {
        let _ = dragonfly_rt::sys::nop();
        let _ = clock_now_ns();
        yield_thread();
    }
}

extern "C" fn in_receive(words: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    let gate: Gate = handle(words[0]);
    let _ = gate.receive();
    exit_thread()
}

extern "C" fn in_timed_receive(words: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    let gate: Gate = handle(words[0]);
    let _ = gate.receive_timed(1 << 40);
    exit_thread()
}

extern "C" fn in_send(words: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    let gate: Gate = handle(words[0]);
    let _ = gate.call(Message::default());
    exit_thread()
}

extern "C" fn in_wait(words: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    let notification: Notification = handle(words[1]);
    let _ = notification.wait();
    exit_thread()
}

extern "C" fn in_timed_wait(words: &Words) -> ! {
    let notification: Notification = handle(words[1]);
    let _ = notification.arm_timer(clock_now_ns() + (1 << 40), 1);
    shared(0).store(1, Ordering::Release);
    let _ = notification.wait_timed(1 << 41);
    exit_thread()
}

extern "C" fn in_short_waits(words: &Words) -> ! {
    let notification: Notification = handle(words[1]);
    shared(0).store(1, Ordering::Release);
    loop {
        let _ = notification.wait_timed(20_000);
    }
}

extern "C" fn in_reply(words: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    let gate: Gate = handle(words[2]);
    let _ = gate.call(Message::default());
    exit_thread()
}

extern "C" fn in_a_fault(_: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    // SAFETY: the fault is what the thread is there for.
    unsafe { probe::read_word(8) };
    exit_thread()
}

/// Receives one call from gate 0 and keeps its caller.
extern "C" fn keeper(words: &Words) -> ! {
    let gate: Gate = handle(words[2]);
    let _ = gate.receive();
    let notification: Notification = handle(words[1]);
    let _ = notification.wait();
    exit_thread()
}

fn destroyed_in_every_state(context: &Context) -> Outcome {
    let states: [(&str, Entry); 10] = [
        ("in a loop", in_a_loop),
        ("in calls", in_calls),
        ("in a receive", in_receive),
        ("in a timed receive", in_timed_receive),
        ("in a send", in_send),
        ("in a wait", in_wait),
        ("in a timed wait with its timer armed", in_timed_wait),
        ("in short waits", in_short_waits),
        ("waiting for a reply", in_reply),
        ("in a fault", in_a_fault),
    ];
    for (name, entry) in states {
        for cpu in 0..cpus() {
            // Waits of different lengths, so that the end comes at different points.
            for round in 0..context.repeat(3, 10, 200) {
                destroy_one(cpu, entry, round).map_err(|failure| failure.in_case(format_args!("{name} on CPU {cpu}")))?;
            }
        }
    }
    // Ready, but never on its CPU: a busy thread of higher priority is.
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let _busy = Builder::new(cpu).priority(40).spawn(child.domain(), in_a_loop, &[])?;
        let ready = Builder::new(cpu).priority(2).spawn(child.domain(), in_calls, &[])?;
        let thread = ready.thread();
        pause();
        thread.destroy()?;
        equal("state", thread.info()?.state, 2)?;
        // Out of budget.
        let poor = Builder::new(cpu).priority(45).budget(MIN_BUDGET_NS, 60_000_000_000);
        let poor = poor.spawn(child.domain(), in_a_loop, &[])?;
        let thread = poor.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.consumed_ns >= MIN_BUDGET_NS), "the end of its budget")?;
        thread.destroy()?;
        equal("state", thread.info()?.state, 2)?;
    }
    Ok(())
}

fn destroy_one(cpu: u32, entry: Entry, round: u64) -> Outcome {
    let child = Child::new()?;
    let (gate, faults, served) = (Gate::create()?, Gate::create()?, Gate::create()?);
    let notification = Notification::create()?;
    let words = [
        child.give(*gate, Rights::SEND | Rights::RECEIVE)?,
        child.give(*notification, Rights::all())?,
        child.give(*served, Rights::SEND | Rights::RECEIVE)?,
    ];
    let _keeper = child.spawn(cpu, keeper, &words)?;
    pause();
    let used = child.domain().info()?.used;
    let light = Builder::new(cpu).fault_gate(*faults, 0).spawn(child.domain(), entry, &words)?;
    expect_value(child.word(0)?, 1, "the thread")?;
    for _ in 0..round % 5 {
        pause();
    }
    let thread = light.thread();
    thread.destroy()?;
    equal("state", thread.info()?.state, 2)?;
    equal("threads of the domain", child.domain().info()?.threads, 1)?;
    that(child.domain().info()?.used < used + 64 * 1024, "its memory is not back")?;
    refused("a receive from its gate", gate.receive_timed(0), Status::WouldBlock)?;
    refused("a wait for its bits", notification.wait_timed(0), Status::WouldBlock)
}

fn destroyed_twice(_: &Context) -> Outcome {
    let child = Child::new()?;
    for cpu in 0..cpus() {
        let light = child.spawn(cpu, in_a_loop, &[])?;
        light.thread().destroy()?;
        light.thread().destroy()?;
        let weak = light.thread().copy(Rights::all() - Rights::DESTROY, 0)?;
        refused("without the right", weak.destroy(), Status::Denied)?;
    }
    Ok(())
}

fn buffer_goes(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let light = child.spawn(cpu, in_a_loop, &[])?;
        let buffer = light.message_buffer();
        let value = probe::read(child.domain(), cpu, buffer)?;
        that(value.is_ok(), "the buffer cannot be read while its thread lives")?;
        light.thread().destroy()?;
        let value = probe::read(child.domain(), cpu, buffer)?;
        that(value.is_err_and(|fault| fault.is_page_fault(buffer, Rights::READ)), "the buffer is still mapped")?;
    }
    Ok(())
}

fn many_threads(context: &Context) -> Outcome {
    let child = Child::new()?;
    // The first makes page tables and slots that stay.
    for cpu in 0..cpus() {
        make_and_end(&child, cpu)?;
    }
    let used = child.domain().info()?.used;
    let own = Domain::OWN.info()?.used;
    for round in 0..context.repeat(200, 1000, 20_000) {
        make_and_end(&child, round as u32 % cpus())?;
    }
    equal("memory used by the domain", child.domain().info()?.used, used)?;
    equal("memory used by its maker", Domain::OWN.info()?.used, own)
}

fn make_and_end(child: &Child, cpu: u32) -> Outcome {
    let plan = ThreadPlan {
        cpu,
        priority: PRIORITY,
        entry: quit_at_once as *const () as u64,
        stack: 0,
        message_buffer: 0x7000_0000,
        argument: 0,
    };
    // SAFETY: the domain is another one.
    let thread = unsafe { child.domain().create_thread(&plan) }?;
    thread.start()?;
    let handle: Thread = *thread;
    expect_that(|| handle.info().is_ok_and(|info| info.state == 2), "its end")?;
    Ok(())
}

/// Ends without a stack.
#[unsafe(naked)]
extern "C" fn quit_at_once() -> ! {
    core::arch::naked_asm!("mov eax, {exit}", "syscall", "ud2", exit = const Call::ThreadExit as u32)
}

fn death_is_told(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for way in 0..3 {
            let death = Notification::create()?;
            let child = Child::with(&DomainSettings { death: Some((*death, 0x40)), ..usual_settings() })?;
            let bystander = Builder::new(cpu).spawn(child.domain(), in_a_loop, &[])?;
            let light = match way {
                0 => child.spawn(cpu, quitter, &[])?,
                1 => child.spawn(cpu, in_a_loop, &[])?,
                _ => Builder::new(cpu).no_fault_gate().spawn(child.domain(), in_a_fault, &[])?,
            };
            pause();
            if way == 1 {
                light.thread().destroy()?;
            }
            expect_that(|| light.thread().info().is_ok_and(|info| info.state == 2), "its end")
                .map_err(|failure| failure.in_case(format_args!("way {way}")))?;
            refused("the death of a domain that lives", death.wait_timed(0), Status::WouldBlock)?;
            bystander.thread().destroy()?;
            equal("bits", expect_bits(*death, "the death")?, 0x40)?;
        }
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

fn consumed_time(context: &Context) -> Outcome {
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
