//! Calls, replies and receives: what travels, and between whom.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, MESSAGE_DATA_SIZE, MessageKind, MessageTag, Rights, Status};
use dragonfly_random::Random;
use dragonfly_rt::sys::{self, Gate, Message, Object, exit_thread};
use dragonfly_rt::{cpus, message};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Buffer, Builder, Child, Words, handle, shared};
use crate::probe::{expect_message, expect_value, pause};
use crate::raw;

super::tests! {
    "a call is answered on each CPU" => a_call_is_answered,
    "a receiver finds a caller that came before it" => a_caller_comes_first,
    "a receiver finds callers from every CPU" => callers_from_every_cpu,
    "a reply and the next receive can be two calls" => separate_reply,
    "every size of data arrives whole, there and back" => data_of_every_size,
    "data beyond what the tag names does not travel" => no_more_data_than_named,
    "a short message leaves the receiver's buffer alone" => short_messages_touch_no_buffer,
    "the receiver sees the badge of the handle that was called" => badges_tell_callers_apart,
    "the kind of a message cannot be forged" => kinds_cannot_be_forged,
    "a tag that names too much is refused" => bad_tags,
    "callers are received by priority, and in turn within one" => callers_by_priority,
    "a call goes to a receiver on the caller's own CPU if one waits there" on 2 => near_receivers_first,
    "many callers and receivers on all CPUs lose no message" within 120 => storm,
    "a reply needs a caller" => reply_needs_a_caller,
    "a thread with an unanswered caller cannot receive, and can still answer" => unanswered_callers,
    "a call through a closed chain of three servers comes back" => nested_calls,
}

/// Serves gate 0: label and words come back counted up by one, data as it came.
pub extern "C" fn echo(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let mut received = gate.receive();
    while let Ok(request) = received {
        let message = request.message;
        shared(0).store(request.badge, Ordering::Relaxed);
        shared(1).fetch_add(1, Ordering::Relaxed);
        let tag = MessageTag::new(message.tag.label().wrapping_add(1), message.tag.bytes(), 0);
        received = gate.reply_receive(Message { tag, words: message.words.map(|word| word.wrapping_add(1)) });
    }
    exit_thread()
}

/// A child that serves a gate on a CPU, and this domain's end of the gate.
fn echo_server(cpu: u32) -> Outcome<(Child, sys::Owned<Gate>, crate::light::Light)> {
    let child = Child::new()?;
    let gate = Gate::create()?;
    let given = child.give(*gate, Rights::RECEIVE)?;
    let thread = child.spawn(cpu, echo, &[given])?;
    Ok((child, gate, thread))
}

fn a_call_is_answered(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let (child, gate, _thread) = echo_server(cpu)?;
        for round in 0..context.repeat(200, 2000, 50_000) {
            let words = [round, !round, round << 32, 1 << 63 | round];
            let reply = gate.call(Message::new(round as u32, words))?;
            equal("words", reply.words, words.map(|word| word.wrapping_add(1)))?;
            equal("label", reply.tag.label(), (round as u32).wrapping_add(1))?;
            that(reply.tag.is_short(), "the reply is short")?;
        }
        equal("calls", child.word(1)?.load(Ordering::Relaxed), context.repeat(200, 2000, 50_000))?;
    }
    Ok(())
}

/// Calls gate 0 with label and words of its own, and stores what comes back: word 0 counts, then the words.
extern "C" fn one_call(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let result = gate.call(Message::new(words[1] as u32, [words[2], words[3], words[4], words[5]]));
    match result {
        Ok(reply) => {
            for (index, word) in reply.words.into_iter().enumerate() {
                shared(8 + index).store(word, Ordering::Relaxed);
            }
            shared(12).store(reply.tag.0, Ordering::Relaxed);
            shared(1).store(0, Ordering::Relaxed);
        }
        Err(status) => shared(1).store(status as u64, Ordering::Relaxed),
    }
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn settle() {
    for _ in 0..20 {
        pause();
    }
}

fn a_caller_comes_first(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let given = child.give_badged(*gate, Rights::SEND, 77)?;
        let _thread = child.spawn(cpu, one_call, &[given, 9, 1, 2, 3, 4])?;
        settle();
        let received = expect_message(*gate, "the call")?;
        equal("badge", received.badge, 77)?;
        equal("message", received.message, Message::new(9, [1, 2, 3, 4]))?;
        sys::reply(Message::new(10, [5, 6, 7, 8]))?;
        expect_value(child.word(0)?, 1, "the end of the call")?;
        for index in 0..4 {
            equal("a word of the reply", child.word(8 + index)?.load(Ordering::Relaxed), 5 + index)?;
        }
        equal("the tag of the reply", MessageTag(child.word(12)?.load(Ordering::Relaxed)), MessageTag::new(10, 0, 0))?;
    }
    Ok(())
}

fn callers_from_every_cpu(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let child = Child::new()?;
    let mut threads = Vec::new();
    for cpu in 0..cpus() {
        let given = child.give_badged(*gate, Rights::SEND, u64::from(cpu) + 1)?;
        threads.push(child.spawn(cpu, one_call, &[given, cpu.into(), 0, 0, 0, 0])?);
    }
    let mut seen = vec![false; threads.len()];
    for _ in 0..cpus() {
        let received = expect_message(*gate, "a call")?;
        equal("badge", received.badge, u64::from(received.message.tag.label()) + 1)?;
        if let Some(seen) = seen.get_mut(received.message.tag.label() as usize) {
            *seen = true;
        }
        sys::reply(Message::default())?;
    }
    that(seen.iter().all(|seen| *seen), "a CPU's call came twice")?;
    expect_value(child.word(0)?, cpus().into(), "the ends of the calls")
}

fn separate_reply(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let child = Child::new()?;
    let given = child.give(*gate, Rights::SEND)?;
    for round in 1..5 {
        let _thread = child.spawn(0, one_call, &[given, 1, 0, 0, 0, 0])?;
        expect_message(*gate, "the call")?;
        sys::reply(Message::default())?;
        refused("a second reply", sys::reply(Message::default()), Status::NoCaller)?;
        expect_value(child.word(0)?, round, "the end of the call")?;
    }
    Ok(())
}

fn data_of_every_size(context: &Context) -> Outcome {
    let mut random = Random::new(1);
    for cpu in 0..cpus() {
        let (_child, gate, _thread) = echo_server(cpu)?;
        let mut sizes = vec![0, 1, 7, 8, 9, 63, 64, 65, 1000, 3832, 3833, 3839, 3840];
        sizes.extend((0..context.repeat(20, 200, 3840)).map(|_| random.below(3841) as usize));
        for size in sizes {
            let data: Vec<u8> = (0..size).map(|_| random.number() as u8).collect();
            let reply = gate.call(Message::with(3, [1, 2, 3, 4], &data, &[])?)?;
            equal("bytes named by the reply", reply.tag.bytes(), size)?;
            let mut back = vec![0; size];
            reply.read(&mut back);
            that(back == data, format_args!("{size} bytes came back changed from CPU {cpu}"))?;
        }
    }
    Ok(())
}

/// Serves gate 0: after each call stores the first words of its buffer that are not [`FILL`], and answers with
/// words[1] bytes of another filling.
extern "C" fn buffer_looker(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let buffer = Buffer::own();
    fill(buffer, FILL);
    let mut received = gate.receive();
    while received.is_ok() {
        let changed = (0..Buffer::DATA_WORDS).rev().find(|index| buffer.data(*index).load(Ordering::Relaxed) != FILL);
        shared(2).store(changed.map_or(0, |last| last as u64 + 1), Ordering::Relaxed);
        fill(buffer, FILL);
        received = gate.reply_receive(Message { tag: MessageTag::new(0, words[1] as usize, 0), words: [0; 4] });
    }
    exit_thread()
}

const FILL: u64 = 0xf1f1_f1f1_f1f1_f1f1;

fn fill(buffer: Buffer, value: u64) {
    for index in 0..Buffer::DATA_WORDS {
        buffer.data(index).store(value, Ordering::Relaxed);
    }
}

fn no_more_data_than_named(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for size in [1, 8, 9, 100, 3832] {
            let child = Child::new()?;
            let gate = Gate::create()?;
            let given = child.give(*gate, Rights::RECEIVE)?;
            let _thread = child.spawn(cpu, buffer_looker, &[given, size as u64])?;
            let mine = [0x22; MESSAGE_DATA_SIZE];
            message::buffer().write(&mine)?;
            gate.call(Message { tag: MessageTag::new(0, size, 0), words: [0; 4] })?;
            // Whole words travel.
            let words = child.word(2)?.load(Ordering::Relaxed);
            equal("words that the receiver got", words, size.div_ceil(8) as u64)?;
            let mut back = [0; MESSAGE_DATA_SIZE];
            message::buffer().read(&mut back);
            let end = size.next_multiple_of(8);
            that(back.iter().take(end).all(|byte| *byte == 0xf1), "the reply's data is not all there")?;
            that(back.iter().skip(end).all(|byte| *byte == 0x22), "the reply brought more than it named")?;
        }
    }
    Ok(())
}

fn short_messages_touch_no_buffer(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let given = child.give(*gate, Rights::RECEIVE)?;
        let _thread = child.spawn(cpu, buffer_looker, &[given, 0])?;
        let mine = [0x22; MESSAGE_DATA_SIZE];
        message::buffer().write(&mine)?;
        gate.call(Message::new(1, [1, 2, 3, 4]))?;
        equal("words that the receiver got", child.word(2)?.load(Ordering::Relaxed), 0)?;
        let mut back = [0; MESSAGE_DATA_SIZE];
        message::buffer().read(&mut back);
        that(back == mine, "the caller's buffer was written to")?;
    }
    Ok(())
}

fn badges_tell_callers_apart(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let (child, gate, _thread) = echo_server(cpu)?;
        for badge in [1, 0xffff_ffff_ffff_ffff, 0x8000_0000_0000_0000, 12345] {
            gate.copy(Rights::SEND, badge)?.call(Message::default())?;
            equal("badge", child.word(0)?.load(Ordering::Relaxed), badge)?;
        }
        gate.call(Message::default())?;
        equal("badge of a handle without", child.word(0)?.load(Ordering::Relaxed), 0)?;
    }
    Ok(())
}

fn kinds_cannot_be_forged(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let child = Child::new()?;
    let given = child.give(*gate, Rights::SEND)?;
    let mut count = 0;
    for cpu in 0..cpus() {
        for bits in 0..4_u64 {
            let _thread = child.spawn(cpu, tag_caller, &[given, MessageTag::new(7, 0, 0).0 | bits << 24])?;
            let received = expect_message(*gate, "the call")?;
            equal("kind", received.message.tag.kind(), MessageKind::Call)?;
            equal("label", received.message.tag.label(), 7)?;
            let (status, _) = raw::number(Call::Reply as u64, [0, MessageTag::new(8, 0, 0).0 | bits << 24, 0, 0, 0, 0]);
            equal("status of the reply", status, 0)?;
            count += 1;
            expect_value(child.word(0)?, count, "the end of the call")?;
            let tag = MessageTag(child.word(1)?.load(Ordering::Relaxed));
            equal("kind of the reply", tag.kind(), MessageKind::Call)?;
            equal("label of the reply", tag.label(), 8)?;
        }
    }
    Ok(())
}

/// Calls gate 0 with any tag; word 1: the reply's tag, word 0 counts.
extern "C" fn tag_caller(words: &Words) -> ! {
    let results = raw::call(Call::Call, &[words[0], words[1]]);
    shared(1).store(results.map_or(u64::MAX, |results| results[1]), Ordering::Relaxed);
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn bad_tags(_: &Context) -> Outcome {
    let (_child, gate, _thread) = echo_server(0)?;
    let word = u64::from(gate.handle().0);
    for bytes in [3841_u64, 4000, 4095] {
        refused("too many bytes", raw::call(Call::Call, &[word, bytes]), Status::BadArgument)?;
    }
    for handles in 9..16_u64 {
        refused("too many handles", raw::call(Call::Call, &[word, handles << 12]), Status::BadArgument)?;
        refused("a reply with too many", raw::call(Call::Reply, &[0, handles << 12]), Status::BadArgument)?;
        refused("a reply and receive", raw::call(Call::ReplyReceive, &[word, handles << 12]), Status::BadArgument)?;
    }
    gate.call(Message::default()).map(drop).map_err(Into::into)
}

fn callers_by_priority(context: &Context) -> Outcome {
    let gate = Gate::create()?;
    let child = Child::new()?;
    let given = child.give(*gate, Rights::SEND)?;
    let mut threads = Vec::new();
    // Label: priority * 16 + order of arrival.
    let priorities = [10_u8, 20, 10, 5, 20, 31, 5, 10];
    for (order, priority) in priorities.into_iter().enumerate() {
        let cpu = if order % 2 == 0 { 0 } else { context.other_cpu() };
        let label = u64::from(priority) * 16 + order as u64;
        let plan = Builder::new(cpu).priority(priority);
        threads.push(plan.spawn(child.domain(), one_call, &[given, label, 0, 0, 0, 0])?);
        settle();
    }
    let mut order = Vec::new();
    for _ in priorities {
        order.push(expect_message(*gate, "a call")?.message.tag.label());
        sys::reply(Message::default())?;
    }
    let mut wanted = order.clone();
    wanted.sort_by_key(|label| (core::cmp::Reverse(label / 16), label % 16));
    equal("order", order, wanted)
}

/// Serves gate 0 and answers with words[1].
extern "C" fn name_server(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    shared(2).fetch_add(1, Ordering::Release);
    let mut received = gate.receive();
    while received.is_ok() {
        received = gate.reply_receive(Message::new(0, [words[1], 0, 0, 0]));
    }
    exit_thread()
}

fn near_receivers_first(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let child = Child::new()?;
    let given = child.give(*gate, Rights::RECEIVE)?;
    let mut threads = Vec::new();
    // The test's own CPU, 0, comes last.
    for cpu in (0..cpus().min(8)).rev() {
        threads.push(child.spawn(cpu, name_server, &[given, u64::from(cpu) + 100])?);
        expect_value(child.word(2)?, threads.len() as u64, "a receiver")?;
        settle();
    }
    for _ in 0..50 {
        equal("who answered", gate.call(Message::default())?.words[0], 100)?;
        // Let the server get back to its receive.
        pause();
    }
    Ok(())
}

/// Calls gate 0 words[1] times with checked words. Word 0 counts threads that are through, word 1 mistakes.
extern "C" fn storm_caller(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let buffer = Buffer::own();
    for round in 0..words[1] {
        let value = words[2] << 32 | round;
        let bytes = if round % 4 == 0 { 256 } else { 0 };
        for index in 0..bytes / 8 {
            buffer.data(index).store(value ^ index as u64, Ordering::Relaxed);
        }
        let reply = gate.call(Message { tag: MessageTag::new(1, bytes, 0), words: [value, 2, 3, 4] });
        let is_good = reply.is_ok_and(|reply| {
            reply.words == [value + 1, 3, 4, 5]
                && (0..bytes / 8).all(|index| buffer.data(index).load(Ordering::Relaxed) == value ^ index as u64)
        });
        if !is_good {
            shared(3).fetch_add(1, Ordering::Relaxed);
        }
    }
    shared(2).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn storm(context: &Context) -> Outcome {
    let gate = Gate::create()?;
    let (servers, clients) = (Child::new()?, Child::new()?);
    let receive = servers.give(*gate, Rights::RECEIVE)?;
    let send = clients.give(*gate, Rights::SEND)?;
    let rounds = context.repeat(300, 3000, 100_000);
    let mut threads = Vec::new();
    for cpu in 0..cpus() {
        for number in 0..2 {
            threads.push(servers.spawn(cpu, echo, &[receive])?);
            let words = [send, rounds, u64::from(cpu) * 2 + number];
            let plan = Builder::new(cpu).priority(20 + 10 * number as u8);
            threads.push(plan.spawn(clients.domain(), storm_caller, &words)?);
        }
    }
    let all = u64::from(cpus()) * 2;
    while clients.word(2)?.load(Ordering::Acquire) < all {
        pause();
    }
    equal("wrong replies", clients.word(3)?.load(Ordering::Relaxed), 0)?;
    equal("calls served", servers.word(1)?.load(Ordering::Relaxed), all * rounds)
}

fn reply_needs_a_caller(_: &Context) -> Outcome {
    refused("a reply", sys::reply(Message::default()), Status::NoCaller)?;
    refused("a reply with data", raw::call(Call::Reply, &[0, 100]), Status::NoCaller)?;
    let gate = Gate::create()?;
    // Without a caller, reply and receive is a receive; the time-out is the buffer's.
    message::buffer().set_timeout_ns(0);
    let tag = MessageTag::new(0, 0, 0).timed();
    refused("a receive", gate.reply_receive(Message { tag, words: [0; 4] }), Status::WouldBlock)?;
    message::buffer().set_timeout_ns(1000);
    refused("a receive", gate.reply_receive(Message { tag, words: [0; 4] }), Status::TimedOut)
}

fn unanswered_callers(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let (gate, other) = (Gate::create()?, Gate::create()?);
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        let _thread = child.spawn(cpu, one_call, &[given, 1, 0, 0, 0, 0])?;
        expect_message(*gate, "the call")?;
        refused("a receive", gate.receive_timed(0), Status::Busy)?;
        refused("a receive elsewhere", other.receive_timed(1000), Status::Busy)?;
        // Waiting for other things is allowed.
        pause();
        sys::reply(Message::new(0, [3, 0, 0, 0]))?;
        expect_value(child.word(0)?, 1, "the end of the call")?;
        equal("the answer", child.word(8)?.load(Ordering::Relaxed), 3)?;
        refused("a receive after the answer", gate.receive_timed(0), Status::WouldBlock)?;
    }
    Ok(())
}

/// Serves gate 0 by asking gate 1, and adds words[2].
pub extern "C" fn middle(words: &Words) -> ! {
    let (gate, next): (Gate, Gate) = (handle(words[0]), handle(words[1]));
    let mut received = gate.receive();
    while let Ok(request) = received {
        let answer = match next.call(request.message) {
            Ok(answer) => Message::new(answer.tag.label(), answer.words.map(|word| word.wrapping_add(words[2]))),
            Err(status) => Message::new(u32::MAX, [status as u64; 4]),
        };
        received = gate.reply_receive(answer);
    }
    exit_thread()
}

fn nested_calls(context: &Context) -> Outcome {
    let cpu_lists: &[[u32; 3]] =
        &[[0, 0, 0], [0, context.other_cpu(), 0], [context.other_cpu(), 0, context.other_cpu()]];
    for on in cpu_lists {
        let gates = [Gate::create()?, Gate::create()?, Gate::create()?];
        let servers = [Child::new()?, Child::new()?, Child::new()?];
        let mut threads = Vec::new();
        for index in 0..2 {
            let words = [
                servers[index].give(*gates[index], Rights::RECEIVE)?,
                servers[index].give(*gates[index + 1], Rights::SEND)?,
                10,
            ];
            threads.push(servers[index].spawn(on[index], middle, &words)?);
        }
        let last = servers[2].give(*gates[2], Rights::RECEIVE)?;
        threads.push(servers[2].spawn(on[2], echo, &[last])?);
        for round in 0..context.repeat(50, 1000, 20_000) {
            let reply = gates[0].call(Message::new(1, [round, 0, 0, 0]))?;
            equal("the answer", reply.words, [round + 21, 21, 21, 21])?;
        }
    }
    Ok(())
}
