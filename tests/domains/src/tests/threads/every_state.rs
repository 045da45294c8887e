//! Threads that are destroyed, whatever they are doing.
#![expect(unsafe_code, reason = "one of them faults at a read")]

use core::sync::atomic::Ordering;

use dragonfly_abi::{MIN_BUDGET_NS, Rights, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Gate, Message, Notification, clock_now_ns, exit_thread, move_thread, yield_thread};

use crate::check::{Outcome, equal, refused, that};
use crate::light::{Builder, Child, Entry, Words, handle, shared};
use crate::probe::{self, expect_that, expect_value, pause};
use crate::tests::Context;

// What threads are doing when they are destroyed. Word 0: about to.

pub extern "C" fn in_a_loop(_: &Words) -> ! {
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

extern "C" fn in_moves(words: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    loop {
        for cpu in 0..words[3] as u32 {
            let _ = move_thread(cpu);
        }
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

pub extern "C" fn in_a_fault(_: &Words) -> ! {
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

pub fn destroyed_in_every_state(context: &Context) -> Outcome {
    let states: [(&str, Entry); 11] = [
        ("in a loop", in_a_loop),
        ("in calls", in_calls),
        ("in moves", in_moves),
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
                destroy_one(cpu, entry, round)
                    .map_err(|failure| failure.in_case(format_args!("{name} on CPU {cpu}")))?;
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
        cpus().into(),
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
