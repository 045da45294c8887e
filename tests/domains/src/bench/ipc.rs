//! Calls, messages, wake-ups, switches.

use core::sync::atomic::Ordering;

use dragonfly_abi::{MessageTag, Rights};
use dragonfly_rt::sys::{self, DomainSettings, Gate, Message, Notification, exit_thread, yield_thread};

use super::{RUNS, WARM_UP, least, least_of};
use crate::check::{Failure, Outcome, that};
use crate::light::{Builder, Child, Words, handle, shared, usual_settings};
use crate::machine::tsc;
use crate::probe::{expect_value, pause};

/// Priority above this program's own.
const ABOVE: u8 = 60;

/// A call that does nothing.
pub(super) fn null_system_call() -> Outcome<u64> {
    least(|| Ok(sys::nop()?))
}

/// Serves gate 0: the reply has as many bytes as the call.
extern "C" fn server(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let mut received = gate.receive();
    while let Ok(request) = received {
        received = gate.reply_receive(request.message);
    }
    exit_thread()
}

/// A call to another domain and its reply.
pub(super) fn round_trip(cpu: u32, bytes: usize) -> Outcome<u64> {
    let child = Child::new()?;
    let gate = Gate::create()?;
    let given = child.give(*gate, Rights::RECEIVE)?;
    let _server = child.spawn(cpu, server, &[given])?;
    let message = Message { tag: MessageTag::new(1, bytes, 0), words: [1, 2, 3, 4] };
    let is_answer = |reply: Message| that(reply.words == message.words, "a wrong reply");
    least_of(|| Ok(gate.call(message)?), is_answer)
}

/// Waits for notification 0 again and again; stores when it woke in word 1 and counts in word 0.
extern "C" fn waiter(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    while notification.wait().is_ok() {
        let now = tsc();
        shared(1).store(now, Ordering::Relaxed);
        shared(0).fetch_add(1, Ordering::Release);
    }
    exit_thread()
}

/// From a signal until a thread of higher priority in another domain runs.
pub(super) fn notification_wake() -> Outcome<u64> {
    let child = Child::with(&DomainSettings { max_priority: ABOVE, ..usual_settings() })?;
    let notification = Notification::create()?;
    let given = child.give(*notification, Rights::RECEIVE)?;
    let _waiter = Builder::new(0).priority(ABOVE).spawn(child.domain(), waiter, &[given])?;
    pause();
    let (woken, at) = (child.word(0)?, child.word(1)?);
    let mut best = u64::MAX;
    for round in 1..=WARM_UP + RUNS {
        let start = tsc();
        notification.signal(1)?;
        if woken.load(Ordering::Acquire) != round {
            return Err(Failure::new("the woken thread did not run at once"));
        }
        let ticks = at.load(Ordering::Relaxed).wrapping_sub(start);
        if round > WARM_UP {
            best = best.min(ticks);
        }
    }
    Ok(best)
}

/// Yields and measures every second switch; word 1: the least of them, word 0: done.
extern "C" fn measuring_yielder(_: &Words) -> ! {
    let mut best = u64::MAX;
    for round in 0..WARM_UP + RUNS {
        let start = tsc();
        yield_thread();
        let ticks = tsc().wrapping_sub(start);
        if round >= WARM_UP {
            best = best.min(ticks);
        }
    }
    shared(1).store(best, Ordering::Relaxed);
    shared(0).store(1, Ordering::Release);
    exit_thread()
}

extern "C" fn yielder(_: &Words) -> ! {
    loop {
        yield_thread();
    }
}

/// From a thread of one domain to one of another of the same priority, by a yield.
pub(super) fn thread_switch() -> Outcome<u64> {
    let children = [Child::new()?, Child::new()?];
    let _other = children[1].spawn(0, yielder, &[])?;
    let _measuring = children[0].spawn(0, measuring_yielder, &[])?;
    expect_value(children[0].word(0)?, 1, "the switches")?;
    // There and back.
    Ok(children[0].word(1)?.load(Ordering::Relaxed).div_ceil(2))
}
