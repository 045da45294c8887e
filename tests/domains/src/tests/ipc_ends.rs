//! Calls that end in another way than by a reply: time-outs, and peers and gates that go.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{MessageTag, Rights, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::message;
use dragonfly_rt::sys::{self, Domain, DomainSettings, Gate, Message, Notification, Object, clock_now_ns, exit_thread};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Buffer, Child, Words, handle, shared, usual_settings};
use crate::probe::{LIMIT_NS, expect_bits, expect_message, expect_value, pause};

super::tests! {
    "a timed call without a receiver ends when its time is up" => nobody_receives,
    "a timed call without a reply ends when its time is up" => nobody_replies,
    "a call with no time is told at once when nobody receives" => no_time_to_call,
    "a call with little time to a receiver that waits is answered" => short_time_is_enough,
    "the time of the buffer holds only for calls that say so" => untimed_calls_wait,
    "a timed receive ends when its time is up and not before" => timed_receive,
    "a receive with no time takes a caller that waits" => receive_without_time,
    "a reply to a caller whose time ran out finds no caller" => late_reply,
    "a caller that is destroyed while it waits leaves the gate as it was" => caller_dies_in_queue,
    "a caller that is destroyed after the receive leaves its server able to go on" => caller_dies_at_server,
    "a server that ends aborts its caller" => server_dies,
    "a receiver that is destroyed while it waits takes no call with it" => receiver_dies_in_queue,
    "a gate that goes aborts those who call and those who receive" => gate_goes,
    "a gate that goes lets a call that was received be answered" => gate_goes_during_a_call,
    "revoking a handle does not break a call under way" => revoking_during_a_call,
    "a domain that goes aborts the calls to it" => domain_goes,
    "a chain of servers unwinds when its last one dies" => chain_unwinds,
    "time-outs and answers that meet lose nothing" => timeouts_race_answers,
}

const MS: u64 = 1_000_000;

fn settle() {
    for _ in 0..20 {
        pause();
    }
}

fn nobody_receives(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    for timeout_ns in [1, 1_000, MS, 10 * MS] {
        let start = clock_now_ns();
        refused("the call", gate.call_timed(Message::default(), timeout_ns), Status::TimedOut)?;
        let took = clock_now_ns() - start;
        that(took >= timeout_ns, format_args!("{timeout_ns} ns were over after {took} ns"))?;
    }
    refused("a receive", gate.receive_timed(0), Status::WouldBlock)
}

/// Receives from gate 0 and keeps the caller waiting: sleeps words[1] ns, then replies. Word 0: calls received, word 1:
/// status of the reply, word 2: replies.
extern "C" fn slow_server(words: &Words) -> ! {
    let (gate, sleep): (Gate, Notification) = (handle(words[0]), handle(words[2]));
    loop {
        if gate.receive().is_err() {
            break;
        }
        shared(0).fetch_add(1, Ordering::Release);
        let _ = sleep.wait_timed(words[1]);
        let status = sys::reply(Message::default());
        shared(1).store(status.map_or_else(|status| status as u64, |()| 0), Ordering::Relaxed);
        shared(2).fetch_add(1, Ordering::Release);
    }
    exit_thread()
}

fn slow_child(cpu: u32, gate: Gate, sleep_ns: u64) -> Outcome<(Child, crate::light::Light, sys::Owned<Notification>)> {
    let child = Child::new()?;
    let sleep = Notification::create()?;
    let words = [child.give(gate, Rights::RECEIVE)?, sleep_ns, child.give(*sleep, Rights::RECEIVE)?];
    let thread = child.spawn(cpu, slow_server, &words)?;
    Ok((child, thread, sleep))
}

fn nobody_replies(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let (child, _thread, _sleep) = slow_child(cpu, *gate, 20 * MS)?;
        let start = clock_now_ns();
        refused("the call", gate.call_timed(Message::default(), 2 * MS), Status::TimedOut)?;
        that(clock_now_ns() - start >= 2 * MS, "it ended early")?;
        expect_value(child.word(2)?, 1, "the late reply")?;
        // The server can be called again.
        gate.call(Message::default())?;
        equal("calls that the server got", child.word(0)?.load(Ordering::Relaxed), 2)?;
    }
    Ok(())
}

fn no_time_to_call(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    refused("the call", gate.call_timed(Message::default(), 0), Status::WouldBlock)
}

fn short_time_is_enough(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let child = Child::new()?;
    let given = child.give(*gate, Rights::RECEIVE)?;
    let _thread = child.spawn(0, super::ipc::echo, &[given])?;
    settle();
    for _ in 0..100 {
        gate.call_timed(Message::default(), LIMIT_NS)?;
    }
    Ok(())
}

fn untimed_calls_wait(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let (_child, _thread, _sleep) = slow_child(0, *gate, 3 * MS)?;
    message::buffer().set_timeout_ns(1);
    gate.call(Message::default())?;
    Ok(())
}

fn timed_receive(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    for timeout_ns in [1, 1_000, MS, 10 * MS] {
        let start = clock_now_ns();
        refused("the receive", gate.receive_timed(timeout_ns), Status::TimedOut)?;
        let took = clock_now_ns() - start;
        that(took >= timeout_ns, format_args!("{timeout_ns} ns were over after {took} ns"))?;
    }
    refused("a receive without time", gate.receive_timed(0), Status::WouldBlock)
}

/// Calls gate 0 within words[1] ns. Word 0: about to, word 1: status, word 2 counts ends.
extern "C" fn timed_caller(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    Buffer::own().set_timeout_ns(words[1]);
    shared(0).fetch_add(1, Ordering::Release);
    let result = gate.call(Message { tag: MessageTag::new(7, 0, 0).timed(), words: [1, 2, 3, 4] });
    shared(1).store(result.map_or_else(|status| status as u64, |_| 0), Ordering::Relaxed);
    shared(2).fetch_add(1, Ordering::Release);
    exit_thread()
}

const NEVER: u64 = u64::MAX;

fn receive_without_time(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        let _thread = child.spawn(cpu, timed_caller, &[given, NEVER])?;
        expect_value(child.word(0)?, 1, "the caller")?;
        settle();
        equal("the message", gate.receive_timed(0)?.message.words, [1, 2, 3, 4])?;
        sys::reply(Message::default())?;
        expect_value(child.word(2)?, 1, "the end of the call")?;
    }
    Ok(())
}

fn late_reply(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        let _thread = child.spawn(cpu, timed_caller, &[given, 20 * MS])?;
        expect_message(*gate, "the call")?;
        expect_value(child.word(2)?, 1, "the end of the call")?;
        equal("status of the call", child.word(1)?.load(Ordering::Relaxed), Status::TimedOut as u64)?;
        refused("the reply", sys::reply(Message::default()), Status::NoCaller)?;
        refused("the next receive", gate.receive_timed(0), Status::WouldBlock)?;
    }
    Ok(())
}

fn caller_dies_in_queue(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        let [first, second] =
            [child.spawn(cpu, timed_caller, &[given, NEVER])?, child.spawn(cpu, timed_caller, &[given, LIMIT_NS])?];
        expect_value(child.word(0)?, 2, "the callers")?;
        settle();
        drop(first);
        expect_message(*gate, "the other's call")?;
        sys::reply(Message::default())?;
        expect_value(child.word(2)?, 1, "the end of the other's call")?;
        drop(second);
        refused("a receive", gate.receive_timed(0), Status::WouldBlock)?;
    }
    Ok(())
}

fn caller_dies_at_server(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        let thread = child.spawn(cpu, timed_caller, &[given, NEVER])?;
        expect_message(*gate, "the call")?;
        drop(thread);
        refused("the reply", sys::reply(Message::default()), Status::NoCaller)?;
        refused("a receive", gate.receive_timed(1000), Status::TimedOut)?;
        // The same with the server waiting for something else, on the caller's scheduling context.
        let (server, _thread, _sleep) = slow_child(cpu, *gate, 10 * MS)?;
        let thread = child.spawn(cpu, timed_caller, &[given, NEVER])?;
        expect_value(server.word(0)?, 1, "the call at the server")?;
        drop(thread);
        expect_value(server.word(2)?, 1, "the server's reply")?;
        equal("its status", server.word(1)?.load(Ordering::Relaxed), Status::NoCaller as u64)?;
        gate.call(Message::default())?;
    }
    Ok(())
}

/// Receives from gate 0 once and ends.
extern "C" fn quitter(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let _ = gate.receive();
    exit_thread()
}

fn server_dies(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::RECEIVE)?;
        let _thread = child.spawn(cpu, quitter, &[given])?;
        refused("a call to a server that ends", gate.call(Message::default()), Status::Aborted)?;
        // The same by destroying it.
        let (server, thread, _sleep) = slow_child(cpu, *gate, NEVER)?;
        let caller = Child::new()?;
        let given = caller.give(*gate, Rights::SEND)?;
        let _caller = caller.spawn(0, timed_caller, &[given, NEVER])?;
        expect_value(server.word(0)?, 1, "the call at the server")?;
        drop(thread);
        expect_value(caller.word(2)?, 1, "the end of the call")?;
        equal("its status", caller.word(1)?.load(Ordering::Relaxed), Status::Aborted as u64)?;
    }
    Ok(())
}

fn receiver_dies_in_queue(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::RECEIVE)?;
        let thread = child.spawn(cpu, quitter, &[given])?;
        settle();
        drop(thread);
        refused("a call", gate.call_timed(Message::default(), 0), Status::WouldBlock)?;
        let _thread = child.spawn(cpu, super::ipc::echo, &[given])?;
        gate.call(Message::default())?;
    }
    Ok(())
}

/// Receives from gate 0 within words[1] ns. Word 0: about to, word 1: status, word 2 counts ends.
extern "C" fn timed_receiver(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    shared(0).fetch_add(1, Ordering::Release);
    let result = gate.receive_timed(words[1]);
    shared(1).store(result.map_or_else(|status| status as u64, |_| 0), Ordering::Relaxed);
    shared(2).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn gate_goes(context: &Context) -> Outcome {
    for entry in [timed_caller as crate::light::Entry, timed_receiver] {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND | Rights::RECEIVE)?;
        let mut threads = Vec::new();
        // More than one slice of the kernel's work.
        let count = context.repeat(10, 80, 150);
        for number in 0..count {
            let timeout_ns = if number % 2 == 0 { NEVER } else { LIMIT_NS };
            threads.push(child.spawn(number as u32 % cpus(), entry, &[given, timeout_ns])?);
        }
        expect_value(child.word(0)?, count, "all waiters")?;
        settle();
        gate.revoke()?;
        gate.close()?;
        expect_value(child.word(2)?, count, "the ends of all waits")?;
        equal("status", child.word(1)?.load(Ordering::Relaxed), Status::Aborted as u64)?;
    }
    Ok(())
}

fn gate_goes_during_a_call(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        let _thread = child.spawn(cpu, timed_caller, &[given, NEVER])?;
        expect_message(*gate, "the call")?;
        gate.revoke()?;
        gate.close()?;
        sys::reply(Message::default())?;
        expect_value(child.word(2)?, 1, "the end of the call")?;
        equal("status", child.word(1)?.load(Ordering::Relaxed), 0)?;
    }
    Ok(())
}

fn revoking_during_a_call(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        // Also one that is still in the queue.
        let _threads =
            [child.spawn(cpu, timed_caller, &[given, NEVER])?, child.spawn(cpu, timed_caller, &[given, NEVER])?];
        expect_value(child.word(0)?, 2, "the callers")?;
        settle();
        expect_message(*gate, "the first call")?;
        gate.revoke()?;
        sys::reply(Message::default())?;
        expect_message(*gate, "the second call")?;
        sys::reply(Message::default())?;
        expect_value(child.word(2)?, 2, "the ends of the calls")?;
        equal("status", child.word(1)?.load(Ordering::Relaxed), 0)?;
    }
    Ok(())
}

/// Makes a gate, gives it to domain 0 with all rights (word 3: the handle there), and receives from it once.
extern "C" fn gate_owner(words: &Words) -> ! {
    if let Ok(gate) = Gate::create() {
        let to: Domain = handle(words[0]);
        if let Ok(given) = to.grant(*gate, Rights::all(), 0) {
            shared(3).store(given.0.into(), Ordering::Release);
        }
        let _ = gate.receive();
        shared(0).store(1, Ordering::Release);
        let _ = gate.receive();
        let _ = Notification::create().map(|notification| notification.wait());
    }
    exit_thread()
}

fn domain_goes(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let death = Notification::create()?;
        let server = Child::with(&DomainSettings { death: Some((*death, 1)), ..usual_settings() })?;
        let own = server.give(Domain::OWN, Rights::GRANT)?;
        let _thread = server.spawn(cpu, gate_owner, &[own])?;
        crate::probe::expect_that(|| server.word(3).is_ok_and(|word| word.load(Ordering::Acquire) != 0), "the gate")?;
        let gate: Gate = handle(server.word(3)?.load(Ordering::Acquire));
        let callers = Child::new()?;
        let given = callers.give(gate, Rights::SEND)?;
        // One call that is received, one in the queue.
        let _threads = [
            callers.spawn(0, timed_caller, &[given, NEVER])?,
            callers.spawn(cpus() - 1, timed_caller, &[given, NEVER])?,
        ];
        expect_value(server.word(0)?, 1, "a call at the server")?;
        settle();
        server.destroy()?;
        expect_bits(*death, "the server's death")?;
        expect_value(callers.word(2)?, 2, "the ends of the calls")?;
        equal("status", callers.word(1)?.load(Ordering::Relaxed), Status::Aborted as u64)?;
        refused("a call to the gate", gate.call(Message::default()), Status::BadHandle)?;
    }
    Ok(())
}

fn chain_unwinds(context: &Context) -> Outcome {
    for on in [[0, 0, 0], [0, context.other_cpu(), 0]] {
        let gates = [Gate::create()?, Gate::create()?, Gate::create()?];
        let servers = [Child::new()?, Child::new()?];
        let mut threads = Vec::new();
        for index in 0..2 {
            let words = [
                servers[index].give(*gates[index], Rights::RECEIVE)?,
                servers[index].give(*gates[index + 1], Rights::SEND)?,
                10,
            ];
            threads.push(servers[index].spawn(on[index], super::ipc::middle, &words)?);
        }
        let last = Child::new()?;
        let given = last.give(*gates[2], Rights::RECEIVE)?;
        let _thread = last.spawn(on[2], quitter, &[given])?;
        let reply = gates[0].call(Message::new(1, [0; 4]))?;
        // The middle servers pass the status on as an answer.
        equal("label", reply.tag.label(), u32::MAX)?;
        equal("status", reply.words[0], Status::Aborted as u64 + 10)?;
    }
    Ok(())
}

/// Calls gate 0 with rising time-outs around what the answer takes; word 0: calls answered, word 1: timed out, word 2:
/// anything else, word 3: done.
extern "C" fn racing_caller(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    for round in 0..words[1] {
        Buffer::own().set_timeout_ns(1 + round * 37 % 20_000);
        let result = gate.call(Message { tag: MessageTag::new(3, 0, 0).timed(), words: [round, 0, 0, 0] });
        let counted = match result {
            Ok(reply) if reply.words[0] == round + 1 => 0,
            Err(Status::TimedOut) => 1,
            _ => 2,
        };
        shared(counted).fetch_add(1, Ordering::Relaxed);
    }
    shared(3).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn timeouts_race_answers(context: &Context) -> Outcome {
    for (from, to) in [(0, 0), (0, context.other_cpu()), (context.other_cpu(), 0)] {
        let gate = Gate::create()?;
        let (server, clients) = (Child::new()?, Child::new()?);
        let (receive, send) = (server.give(*gate, Rights::RECEIVE)?, clients.give(*gate, Rights::SEND)?);
        let rounds = context.repeat(300, 3000, 100_000);
        let _server = server.spawn(to, super::ipc::echo, &[receive])?;
        let _clients = [
            clients.spawn(from, racing_caller, &[send, rounds])?,
            clients.spawn(from, racing_caller, &[send, rounds])?,
        ];
        while clients.word(3)?.load(Ordering::Acquire) < 2 {
            pause();
        }
        equal("wrong results", clients.word(2)?.load(Ordering::Relaxed), 0)?;
        let ended = [clients.word(0)?.load(Ordering::Relaxed), clients.word(1)?.load(Ordering::Relaxed)];
        equal("calls that ended", ended[0] + ended[1], 2 * rounds)?;
        gate.call(Message::default())?;
    }
    Ok(())
}
