//! Random messages, and handles with them, to a server.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, MESSAGE_HANDLES, Rights};
use dragonfly_random::Random;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{DomainSettings, Gate, Message, Notification, Object, exit_thread};

use super::super::Context;
use super::{CALLS, MISTAKES, PROGRESS};
use crate::check::{Outcome, equal};
use crate::light::{Buffer, Builder, Child, Words, handle, shared, usual_settings};
use crate::probe::pause;
use crate::raw;

/// Calls gate 0 with anything, words[2] times, mostly for a short time only.
extern "C" fn messenger(words: &Words) -> ! {
    let mut random = Random::new(words[1]);
    let buffer = Buffer::own();
    for _ in 0..words[2] {
        let limit_ns = if random.once_in(4) { 30_000 } else { 5_000_000 };
        buffer.set_timeout_ns(random.below(limit_ns));
        buffer.accept_handles(random.choose(&[0, 8]));
        for index in 0..MESSAGE_HANDLES {
            let word = random.below(5) | random.number() << 32;
            buffer.word(2 + index).store(word, Ordering::Relaxed);
        }
        let (bytes, handles) = (random.choose(&[0, 8, 3840, 3841]), random.choose(&[0, 0, 1, 2, 8, 15]));
        let tag = random.number() << 32 | 1 << 16 | handles << 12 | bytes;
        let _ = raw::number(Call::Call as u64, [words[0], tag, random.number(), random.number(), 0, 0]);
    }
    shared(CALLS).fetch_add(1, Ordering::Release);
    exit_thread()
}

pub fn random_messages(context: &Context) -> Outcome {
    let seed = context.options.seed.unwrap_or(7);
    let gate = Gate::create()?;
    let server = Child::with(&DomainSettings { quota: 4 << 20, ..usual_settings() })?;
    let receive = server.give(*gate, Rights::RECEIVE)?;
    let _server = server.spawn(context.other_cpu(), accepting_echo, &[receive])?;
    let clients = Child::new()?;
    let notification = Notification::create()?;
    let send = clients.give(*gate, Rights::SEND | Rights::COPY)?;
    clients.give(*notification, Rights::all())?;
    clients.give(clients.domain(), Rights::COPY | Rights::READ)?;
    let mut lights = Vec::new();
    for cpu in 0..cpus() {
        let words = [send, seed + u64::from(cpu), context.repeat(2000, 10_000, 500_000)];
        lights.push(Builder::new(cpu).no_fault_gate().spawn(clients.domain(), messenger, &words)?);
    }
    let through = clients.word(CALLS as u64)?;
    while through.load(Ordering::Acquire) < cpus().into() {
        // Takes back what the clients have sent, or the server's table would be full soon.
        notification.revoke()?;
        clients.domain().revoke()?;
        pause();
    }
    equal("receives that failed", server.word(MISTAKES as u64)?.load(Ordering::Relaxed), 0)?;
    let reply = gate.call(Message::new(3, [1, 2, 3, 4]))?;
    equal("the server's answer", reply.words, [2, 3, 4, 5])?;
    context.note(format_args!("{} calls came through", server.word(PROGRESS as u64)?.load(Ordering::Relaxed)));
    Ok(())
}

/// Serves gate 0 and accepts all handles, which it closes; counts calls and receives that failed.
extern "C" fn accepting_echo(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let buffer = Buffer::own();
    buffer.accept_handles(8);
    let mut received = gate.receive();
    loop {
        let mut answer = Message::default();
        match received {
            Ok(request) => {
                shared(PROGRESS).fetch_add(1, Ordering::Relaxed);
                for index in 0..request.message.tag.handles() {
                    let _ = raw::call_until_done(Call::HandleClose, &[buffer.handle(index).handle.0.into()]);
                }
                answer = Message::new(0, request.message.words.map(|word| word.wrapping_add(1)));
            }
            Err(_) => drop(shared(MISTAKES).fetch_add(1, Ordering::Relaxed)),
        }
        received = gate.reply_receive(answer);
    }
}
