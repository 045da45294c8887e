//! Notifications and timers.

use core::sync::atomic::Ordering;

use dragonfly_abi::{FOREVER, MessageKind, Rights, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Gate, Notification, Object, clock_now_ns, exit_thread};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Builder, Child, Words, handle, shared};
use crate::probe::{LIMIT_NS, expect_bits, expect_message, expect_value, pause};

super::tests! {
    "bits add up until a wait takes them all" => bits_add_up,
    "a wait with nothing set and no time is told so at once" => polling,
    "a wait ends when its time is up and not before" => timed_wait,
    "a signal without bits does nothing" => no_bits,
    "a badged handle signals its badge and nothing else" => badges_are_bits,
    "a signal wakes a waiter on its own CPU" => waking_on_each_cpu,
    "signals from all CPUs at once all arrive" => signals_from_all_cpus,
    "one signal wakes one waiter, the one that has waited longest" => one_waiter_at_a_time,
    "a notification that goes aborts those who wait for it" => closing_aborts,
    "a waiter that is destroyed takes no signal with it" => dead_waiters_take_nothing,
    "a waiter whose time ran out takes no signal with it" => late_waiters_take_nothing,
    "a receiver gets the bits of the bound notification" => binding,
    "bits set before the receive are not lost" => binding_keeps_bits,
    "a call and bits both reach a gate's receiver" => binding_with_calls,
    "a second binding is refused until the first goes" => binding_is_single,
    "a timer signals at its deadline and not before" => timer_is_on_time,
    "a deadline that has passed signals at once" => past_deadline,
    "a timer that is disarmed or armed anew forgets its first deadline" => timer_is_replaced,
    "a timer fires once" => timer_fires_once,
    "each thread has a timer of its own, on every CPU" => timers_of_many_threads,
    "a timer signals the badge of a badged handle" => timer_with_badge,
    "a thread's timer ends with the thread" => timer_ends_with_thread,
}

fn bits_add_up(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    for bit in 0..64 {
        notification.signal(1 << bit)?;
        notification.signal(1 << bit)?;
    }
    equal("bits", notification.wait()?, u64::MAX)?;
    refused("the next wait", notification.wait_timed(0), Status::WouldBlock)
}

fn polling(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    refused("a poll", notification.wait_timed(0), Status::WouldBlock)?;
    notification.signal(4)?;
    equal("a poll with bits", notification.wait_timed(0)?, 4)
}

fn timed_wait(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    for timeout_ns in [1, 1_000, 1_000_000, 20_000_000] {
        let start = clock_now_ns();
        refused("a timed wait", notification.wait_timed(timeout_ns), Status::TimedOut)?;
        let took = clock_now_ns() - start;
        that(took >= timeout_ns, format_args!("{timeout_ns} ns were over after {took} ns"))?;
    }
    Ok(())
}

fn no_bits(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    notification.signal(0)?;
    refused("a poll", notification.wait_timed(0), Status::WouldBlock)
}

fn badges_are_bits(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let badged = notification.copy(Rights::SEND, 0x30)?;
    badged.signal(0xffff)?;
    equal("bits", notification.wait()?, 0x30)?;
    badged.signal(0)?;
    equal("bits of a signal without any", notification.wait()?, 0x30)
}

/// Waits for notification 0 and signals notification 1 with one bit more, for ever.
extern "C" fn relay(words: &Words) -> ! {
    let (from, to): (Notification, Notification) = (handle(words[0]), handle(words[1]));
    while let Ok(bits) = from.wait() {
        shared(0).fetch_add(1, Ordering::Relaxed);
        if to.signal(bits << 1).is_err() {
            break;
        }
    }
    exit_thread()
}

fn waking_on_each_cpu(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let (there, back) = (Notification::create()?, Notification::create()?);
        let words = [child.give(*there, Rights::RECEIVE)?, child.give(*back, Rights::SEND)?];
        let _thread = child.spawn(cpu, relay, &words)?;
        for round in 0..context.repeat(100, 1000, 20_000) {
            let bits = 1 << (round % 60);
            there.signal(bits)?;
            equal(format_args!("bits from CPU {cpu}"), expect_bits(*back, "the answer")?, bits << 1)?;
        }
    }
    Ok(())
}

/// Signals each bit from words 1 to 2 of notification 0.
extern "C" fn signaller(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    for bit in words[1]..words[2] {
        let _ = notification.signal(1 << bit);
    }
    exit_thread()
}

fn signals_from_all_cpus(context: &Context) -> Outcome {
    for _ in 0..context.repeat(20, 200, 2000) {
        let notification = Notification::create()?;
        let child = Child::new()?;
        let given = child.give(*notification, Rights::SEND)?;
        let mut threads = alloc::vec::Vec::new();
        let share = 64 / u64::from(cpus()).min(64);
        for cpu in 0..cpus().min(64) {
            let first = u64::from(cpu) * share;
            threads.push(child.spawn(cpu, signaller, &[given, first, first + share])?);
        }
        let all = share * u64::from(cpus().min(64));
        let wanted = if all >= 64 { u64::MAX } else { (1 << all) - 1 };
        let mut bits = 0;
        while bits != wanted {
            let new = expect_bits(*notification, "the other bits")?;
            equal("bits that came twice", bits & new, 0)?;
            bits |= new;
        }
    }
    Ok(())
}

/// Says in word 1 that it is about to wait; waits for notification 0; puts the bits into word 2 + words[1].
extern "C" fn waiter(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    shared(1).fetch_add(1, Ordering::Release);
    let found = notification.wait_timed(words[2]);
    let value = match found {
        Ok(bits) => bits,
        Err(status) => 1 << 32 | status as u64,
    };
    shared(2 + words[1] as usize).store(value, Ordering::Release);
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn failed(status: Status) -> u64 {
    1 << 32 | status as u64
}

fn one_waiter_at_a_time(context: &Context) -> Outcome {
    let child = Child::new()?;
    let notification = Notification::create()?;
    let given = child.give(*notification, Rights::RECEIVE)?;
    let mut threads = alloc::vec::Vec::new();
    for index in 0..4 {
        let cpu = if index % 2 == 0 { 0 } else { context.other_cpu() };
        threads.push(child.spawn(cpu, waiter, &[given, index, FOREVER])?);
        expect_value(child.word(1)?, index + 1, "a waiter")?;
        // From the word it is a few instructions to the wait.
        settle();
    }
    for index in 0..4 {
        notification.signal(0x10 + index)?;
        expect_value(child.word(0)?, index + 1, "a woken waiter")?;
        equal("its bits", child.word(2 + index)?.load(Ordering::Acquire), 0x10 + index)?;
    }
    refused("bits that are left", notification.wait_timed(0), Status::WouldBlock)
}

/// Gives threads that are about to wait the time to do so.
fn settle() {
    for _ in 0..20 {
        pause();
    }
}

fn closing_aborts(context: &Context) -> Outcome {
    for cpu in [0, context.other_cpu()] {
        let child = Child::new()?;
        // The child has but a copy: the object goes when its maker, this domain, closes and revokes.
        let notification = Notification::create()?;
        let given = child.give(*notification, Rights::RECEIVE)?;
        let _threads =
            [child.spawn(cpu, waiter, &[given, 0, FOREVER])?, child.spawn(cpu, waiter, &[given, 1, LIMIT_NS])?];
        expect_value(child.word(1)?, 2, "two waiters")?;
        settle();
        notification.revoke()?;
        notification.close()?;
        expect_value(child.word(0)?, 2, "the end of both waits")?;
        for index in [2, 3] {
            equal("the wait", child.word(index)?.load(Ordering::Acquire), failed(Status::Aborted))?;
        }
    }
    Ok(())
}

fn dead_waiters_take_nothing(context: &Context) -> Outcome {
    for cpu in [0, context.other_cpu()] {
        let child = Child::new()?;
        let notification = Notification::create()?;
        let given = child.give(*notification, Rights::RECEIVE)?;
        let thread = child.spawn(cpu, waiter, &[given, 0, FOREVER])?;
        expect_value(child.word(1)?, 1, "a waiter")?;
        settle();
        drop(thread);
        notification.signal(9)?;
        equal("bits", notification.wait_timed(0)?, 9)?;
    }
    Ok(())
}

fn late_waiters_take_nothing(context: &Context) -> Outcome {
    for cpu in [0, context.other_cpu()] {
        let child = Child::new()?;
        let notification = Notification::create()?;
        let given = child.give(*notification, Rights::RECEIVE)?;
        let _thread = child.spawn(cpu, waiter, &[given, 0, 100_000])?;
        expect_value(child.word(0)?, 1, "the end of the wait")?;
        equal("the wait", child.word(2)?.load(Ordering::Acquire), failed(Status::TimedOut))?;
        notification.signal(9)?;
        equal("bits", notification.wait_timed(0)?, 9)?;
    }
    Ok(())
}

fn binding(context: &Context) -> Outcome {
    for cpu in [0, context.other_cpu()] {
        let (gate, notification) = (Gate::create()?, Notification::create()?);
        gate.bind(*notification)?;
        let child = Child::new()?;
        let given = child.give(*notification, Rights::SEND)?;
        let _thread = child.spawn(cpu, signaller, &[given, 3, 6])?;
        let mut bits = 0;
        while bits != 0x38 {
            let received = expect_message(*gate, "the bits")?;
            equal("kind", received.message.tag.kind(), MessageKind::Notification)?;
            equal("badge", received.badge, 0)?;
            equal(
                "other words",
                [received.message.words[1], received.message.words[2], received.message.words[3]],
                [0; 3],
            )?;
            bits |= received.message.words[0];
        }
    }
    Ok(())
}

fn binding_keeps_bits(_: &Context) -> Outcome {
    let (gate, notification) = (Gate::create()?, Notification::create()?);
    notification.signal(1)?;
    gate.bind(*notification)?;
    notification.signal(2)?;
    let received = gate.receive_timed(0)?;
    equal("bits", received.message.words[0], 3)?;
    refused("the next receive", gate.receive_timed(0), Status::WouldBlock)?;
    // A wait on the notification itself still works.
    notification.signal(4)?;
    equal("bits of a wait", notification.wait_timed(0)?, 4)?;
    refused("a receive after the wait", gate.receive_timed(0), Status::WouldBlock)
}

/// Calls gate 0 and stores 1 in word 0 when it is answered.
extern "C" fn caller(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let answered = gate.call(dragonfly_rt::sys::Message::new(5, [1, 2, 3, 4])).is_ok();
    shared(0).store(u64::from(answered), Ordering::Release);
    exit_thread()
}

fn binding_with_calls(context: &Context) -> Outcome {
    let (gate, notification) = (Gate::create()?, Notification::create()?);
    gate.bind(*notification)?;
    let child = Child::new()?;
    let given = child.give(*gate, Rights::SEND)?;
    let _thread = child.spawn(context.other_cpu(), caller, &[given])?;
    settle();
    notification.signal(1)?;
    let kinds = [expect_message(*gate, "the first")?, expect_message(*gate, "the second")?]
        .map(|received| received.message.tag.kind());
    that(kinds.contains(&MessageKind::Notification) && kinds.contains(&MessageKind::Call), "both came")?;
    dragonfly_rt::sys::reply(dragonfly_rt::sys::Message::default())?;
    expect_value(child.word(0)?, 1, "the answer")
}

fn binding_is_single(_: &Context) -> Outcome {
    let (gate, other_gate) = (Gate::create()?, Gate::create()?);
    let (notification, other) = (Notification::create()?, Notification::create()?);
    gate.bind(*notification)?;
    refused("the same binding again", gate.bind(*notification), Status::Busy)?;
    refused("another notification for the gate", gate.bind(*other), Status::Busy)?;
    refused("another gate for the notification", other_gate.bind(*notification), Status::Busy)?;
    notification.close()?;
    gate.bind(*other)?;
    other.signal(2)?;
    equal("bits", gate.receive_timed(0)?.message.words[0], 2)?;
    gate.close()?;
    other_gate.bind(*other).map_err(Into::into)
}

fn timer_is_on_time(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    for delay in [0, 1_000, 300_000, 5_000_000] {
        let deadline = clock_now_ns() + delay;
        notification.arm_timer(deadline, 2)?;
        equal("bits", expect_bits(*notification, "the timer")?, 2)?;
        let now = clock_now_ns();
        that(now >= deadline, format_args!("a timer of {delay} ns came {} ns early", deadline.saturating_sub(now)))?;
    }
    Ok(())
}

fn past_deadline(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    for deadline in [0, 1, clock_now_ns() - 1] {
        notification.arm_timer(deadline, 1)?;
        equal("bits", expect_bits(*notification, "the timer")?, 1)?;
    }
    Ok(())
}

fn timer_is_replaced(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let soon = clock_now_ns() + 2_000_000;
    notification.arm_timer(soon, 1)?;
    notification.arm_timer(soon + 5_000_000, 2)?;
    equal("bits", expect_bits(*notification, "the timer")?, 2)?;
    that(clock_now_ns() >= soon + 5_000_000, "it came at its first deadline")?;
    notification.arm_timer(clock_now_ns() + 2_000_000, 1)?;
    notification.disarm_timer()?;
    refused("a wait for a disarmed timer", notification.wait_timed(10_000_000), Status::TimedOut)?;
    notification.disarm_timer()?;
    // The time before the end of time is no deadline like FOREVER, but as far off.
    notification.arm_timer(FOREVER - 1, 1)?;
    refused("a wait for the end of time", notification.wait_timed(1_000_000), Status::TimedOut)?;
    Ok(notification.disarm_timer()?)
}

fn timer_fires_once(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    notification.arm_timer(clock_now_ns() + 100_000, 1)?;
    equal("bits", expect_bits(*notification, "the timer")?, 1)?;
    refused("a second time", notification.wait_timed(5_000_000), Status::TimedOut)
}

/// Arms its timer words[1] times with rising delays; counts in word 0; words 1: how many came early.
extern "C" fn timer_user(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    for round in 0..words[1] {
        let deadline = clock_now_ns() + round % 7 * 50_000;
        let came =
            notification.arm_timer(deadline, 1 << (round % 64)).is_ok() && notification.wait() == Ok(1 << (round % 64));
        if !came || clock_now_ns() < deadline {
            shared(1).fetch_add(1, Ordering::Relaxed);
        }
    }
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn timers_of_many_threads(context: &Context) -> Outcome {
    let child = Child::new()?;
    let mut threads = alloc::vec::Vec::new();
    let mut own = alloc::vec::Vec::new();
    for cpu in 0..cpus() {
        for _ in 0..5 {
            let notification = Notification::create()?;
            let given = child.give(*notification, Rights::SEND | Rights::RECEIVE)?;
            threads.push(child.spawn(cpu, timer_user, &[given, context.repeat(50, 300, 5000)])?);
            own.push(notification);
        }
    }
    expect_value(child.word(0)?, threads.len() as u64, "all timers")?;
    equal("timers that were early or wrong", child.word(1)?.load(Ordering::Relaxed), 0)
}

fn timer_with_badge(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let badged = notification.copy(Rights::SEND, 0x80)?;
    badged.arm_timer(0, 0xff)?;
    equal("bits", expect_bits(*notification, "the timer")?, 0x80)
}

/// Arms its timer on notification 0 for 3 ms from now and ends.
extern "C" fn arm_and_end(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    let armed = notification.arm_timer(clock_now_ns() + 3_000_000, 1).is_ok();
    shared(0).store(u64::from(armed), Ordering::Release);
    exit_thread()
}

fn timer_ends_with_thread(context: &Context) -> Outcome {
    for cpu in [0, context.other_cpu()] {
        let child = Child::new()?;
        let notification = Notification::create()?;
        let given = child.give(*notification, Rights::SEND)?;
        let thread = Builder::new(cpu).spawn(child.domain(), arm_and_end, &[given])?;
        expect_value(child.word(0)?, 1, "the armed timer")?;
        drop(thread);
        refused("a signal of a dead thread's timer", notification.wait_timed(8_000_000), Status::TimedOut)?;
    }
    Ok(())
}
