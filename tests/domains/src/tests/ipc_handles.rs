//! Handles that travel with messages.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, Handle, HandleTransfer, MESSAGE_HANDLES, MessageTag, Rights, Status};
use dragonfly_rt::sys::{self, Commit, Domain, Gate, Memory, Message, Notification, Object, exit_thread};
use dragonfly_rt::{cpus, message};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Buffer, Child, Light, Words, handle, shared};
use crate::probe::{LIMIT_NS, expect_message, expect_value, pause};
use crate::raw;

super::tests! {
    "a copied handle works for the receiver, and for the sender as before" => copies_travel,
    "a moved handle is the receiver's alone" => moves_travel,
    "eight handles travel at once, copies and moves mixed" => eight_at_once,
    "a handle is narrowed on its way" => narrowed_on_the_way,
    "a badge travels with its handle" => badges_travel,
    "a handle that may not be copied can be moved" => uncopyable_handles,
    "handles travel with a reply" => handles_in_replies,
    "data travels beside handles" => data_beside_handles,
    "what travelled is revoked with what it came from" => travelled_handles_are_revoked,
    "a receiver that accepts too few handles refuses the call and waits on" => refusing_receivers,
    "a caller that accepts too few handles is told and so is the server" => refusing_callers,
    "a bad handle among good ones gives BadHandle and brings none" => bad_handles_bring_none,
    "a receiver without room gives the caller the reason" => receivers_without_room,
    "a queued call whose handles went meanwhile fails for the caller alone" => handles_that_go_while_queued,
}

/// Serves gate 0 and accepts words[1] handles. Word 0 counts calls; words 8 to 15: what came in the buffer. With label
/// 1 it signals each handle that came, as a notification, by its place; with label 2 it sends all of them back moved.
extern "C" fn taker(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let buffer = Buffer::own();
    buffer.accept_handles(words[1] as u32);
    shared(1).store(1, Ordering::Release);
    let mut received = gate.receive();
    while let Ok(request) = received {
        let tag = request.message.tag;
        let count = tag.handles();
        let mut status = 0;
        for index in 0..count {
            let came = buffer.handle(index);
            shared(8 + index).store(u64::from(came.rights) << 32 | u64::from(came.handle.0), Ordering::Relaxed);
            if tag.label() == 1 {
                status = raw::number(Call::NotificationSignal as u64, [came.handle.0.into(), 1 << index, 0, 0, 0, 0]).0;
            }
        }
        let mut answer = MessageTag::new(0, 0, 0);
        if tag.label() == 2 {
            for index in 0..count {
                buffer.set_handle(index, HandleTransfer::give(buffer.handle(index).handle, Rights::all()));
            }
            answer = MessageTag::new(0, 0, count);
        }
        shared(0).fetch_add(1, Ordering::Release);
        received = gate.reply_receive(Message { tag: answer, words: [status, count as u64, 0, 0] });
        if let Err(failed) = received {
            shared(2).store(failed as u64, Ordering::Release);
        }
    }
    exit_thread()
}

struct Taker {
    child: Child,
    gate: sys::Owned<Gate>,
    _thread: Light,
}

fn start_taker(cpu: u32, accepts: u64) -> Outcome<Taker> {
    let child = Child::new()?;
    let gate = Gate::create()?;
    let given = child.give(*gate, Rights::RECEIVE)?;
    let thread = child.spawn(cpu, taker, &[given, accepts])?;
    expect_value(child.word(1)?, 1, "the server")?;
    settle();
    Ok(Taker { child, gate, _thread: thread })
}

fn settle() {
    for _ in 0..20 {
        pause();
    }
}

impl Taker {
    fn send(&self, label: u32, handles: &[HandleTransfer]) -> Result<Message, Status> {
        self.gate.call_timed(Message::with(label, [0; 4], &[], handles)?, LIMIT_NS)
    }

    /// What came in a place: handle and rights.
    fn came(&self, place: u64) -> Outcome<HandleTransfer> {
        let word = self.child.word(8 + place)?.load(Ordering::Relaxed);
        Ok(HandleTransfer { handle: Handle(word as u32), rights: (word >> 32) as u32 })
    }
}

fn copies_travel(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let taker = start_taker(cpu, 8)?;
        let notification = Notification::create()?;
        let reply = taker.send(1, &[HandleTransfer::copy(notification.handle(), Rights::SEND)])?;
        equal("status of the signal", reply.words[0], 0)?;
        equal("bits", notification.wait_timed(0)?, 1)?;
        notification.signal(2)?;
    }
    Ok(())
}

fn moves_travel(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let taker = start_taker(cpu, 8)?;
        let notification = Notification::create()?;
        let moved = notification.copy(Rights::all(), 0)?.keep();
        let handles = Domain::OWN.info()?.handles;
        let reply = taker.send(1, &[HandleTransfer::give(moved.handle(), Rights::SEND)])?;
        equal("status of the signal", reply.words[0], 0)?;
        equal("bits", notification.wait_timed(0)?, 1)?;
        refused("the moved handle", moved.signal(1), Status::BadHandle)?;
        equal("handles", Domain::OWN.info()?.handles, handles - 1)?;
        // The only handle of an object can be moved as well: the object stays.
        let last = Notification::create()?.keep();
        let reply = taker.send(1, &[HandleTransfer::give(last.handle(), Rights::SEND)])?;
        equal("status of the signal of the last", reply.words[0], 0)?;
        refused("the moved last handle", last.signal(1), Status::BadHandle)?;
    }
    Ok(())
}

fn eight_at_once(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let taker = start_taker(cpu, 8)?;
        let notification = Notification::create()?;
        let mut transfers = Vec::new();
        for index in 0..MESSAGE_HANDLES {
            let handle = notification.copy(Rights::all(), 0)?.keep().handle();
            let is_move = index % 2 == 0;
            let transfer = if is_move { HandleTransfer::give } else { HandleTransfer::copy };
            transfers.push(transfer(handle, Rights::SEND));
        }
        let before = taker.child.domain().info()?.handles;
        taker.send(1, &transfers)?;
        equal("bits", notification.wait_timed(0)?, 0xff)?;
        equal("handles of the receiver", taker.child.domain().info()?.handles, before + 8)?;
        for (index, transfer) in transfers.iter().enumerate() {
            let gone = Notification::from_handle(transfer.handle).signal(1) == Err(Status::BadHandle);
            equal(format_args!("handle {index} gone"), gone, index % 2 == 0)?;
        }
        notification.revoke()?;
        equal("handles after the revocation", taker.child.domain().info()?.handles, before)?;
    }
    Ok(())
}

fn narrowed_on_the_way(_: &Context) -> Outcome {
    let taker = start_taker(0, 8)?;
    let memory = Memory::create(4096, Commit::Explicit)?;
    let narrow = memory.copy(Rights::COPY | Rights::READ | Rights::WRITE, 0)?;
    for (asked, wanted) in [
        (Rights::all(), Rights::COPY | Rights::READ | Rights::WRITE),
        (Rights::READ | Rights::EXECUTE, Rights::READ),
        (Rights::empty(), Rights::empty()),
    ] {
        taker.send(0, &[HandleTransfer::copy(narrow.handle(), asked)])?;
        equal("rights that the receiver sees", taker.came(0)?.rights, wanted.bits())?;
    }
    let (moved, asked) = (memory.copy(Rights::all(), 0)?.keep(), Rights::WRITE);
    taker.send(0, &[HandleTransfer::give(moved.handle(), asked)])?;
    equal("rights of a moved handle", taker.came(0)?.rights, asked.bits())
}

fn badges_travel(_: &Context) -> Outcome {
    let taker = start_taker(0, 8)?;
    let notification = Notification::create()?;
    let badged = notification.copy(Rights::all(), 0x700)?;
    taker.send(1, &[HandleTransfer::copy(badged.handle(), Rights::SEND)])?;
    equal("bits", notification.wait_timed(0)?, 0x700)
}

fn uncopyable_handles(_: &Context) -> Outcome {
    let taker = start_taker(0, 8)?;
    let notification = Notification::create()?;
    let fixed = notification.copy(Rights::SEND, 0)?.keep();
    refused("a copy", taker.send(1, &[HandleTransfer::copy(fixed.handle(), Rights::SEND)]), Status::Denied)?;
    taker.send(1, &[HandleTransfer::give(fixed.handle(), Rights::SEND)])?;
    equal("bits", notification.wait_timed(0)?, 1)
}

fn handles_in_replies(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let taker = start_taker(cpu, 8)?;
        let notification = Notification::create()?;
        let given = [
            HandleTransfer::copy(notification.handle(), Rights::SEND | Rights::COPY),
            HandleTransfer::copy(notification.handle(), Rights::RECEIVE | Rights::COPY),
        ];
        message::buffer().accept_handles(2);
        let reply = taker.send(2, &given)?;
        message::buffer().accept_handles(0);
        equal("handles of the reply", reply.tag.handles(), 2)?;
        let (Some(first), Some(second)) = (reply.handle(0), reply.handle(1)) else {
            return Err(crate::check::Failure::new("the reply's handles are not in the buffer"));
        };
        let (first, second) = (Notification::from_handle(first.handle), Notification::from_handle(second.handle));
        refused("waiting without RECEIVE", first.wait_timed(0), Status::Denied)?;
        first.signal(4)?;
        equal("bits", second.wait_timed(0)?, 4)?;
        first.close()?;
        second.close()?;
    }
    Ok(())
}

fn data_beside_handles(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let notification = Notification::create()?;
        let words = [child.give(*gate, Rights::SEND)?, child.give(*notification, Rights::all())?];
        let _thread = child.spawn(cpu, sender_of_both, &words)?;
        message::buffer().accept_handles(8);
        let received = expect_message(*gate, "the message")?;
        message::buffer().accept_handles(0);
        let mut data = [0; 800];
        equal("bytes", received.message.read(&mut data), 800)?;
        that(data.iter().all(|byte| *byte == 0x77), "the data has changed")?;
        let came = received.message.handle(0).map(|came| Notification::from_handle(came.handle));
        sys::reply(Message::default())?;
        match came {
            Some(came) => came.signal(1)?,
            None => return Err(crate::check::Failure::new("no handle came")),
        }
        equal("bits", notification.wait_timed(0)?, 1)?;
    }
    Ok(())
}

extern "C" fn sender_of_both(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let buffer = Buffer::own();
    for index in 0..100 {
        buffer.data(index).store(0x7777_7777_7777_7777, Ordering::Relaxed);
    }
    buffer.set_handle(0, HandleTransfer::copy(Handle(words[1] as u32), Rights::SEND));
    let _ = gate.call(Message { tag: MessageTag::new(0, 800, 1), words: [0; 4] });
    exit_thread()
}

fn travelled_handles_are_revoked(_: &Context) -> Outcome {
    let taker = start_taker(0, 8)?;
    let notification = Notification::create()?;
    let (middle, moved) = (notification.copy(Rights::all(), 0)?, notification.copy(Rights::all(), 0)?.keep());
    let given =
        [HandleTransfer::copy(middle.handle(), Rights::SEND), HandleTransfer::give(moved.handle(), Rights::SEND)];
    let before = taker.child.domain().info()?.handles;
    taker.send(0, &given)?;
    equal("handles of the receiver", taker.child.domain().info()?.handles, before + 2)?;
    middle.revoke()?;
    equal("handles after the copy's source was revoked", taker.child.domain().info()?.handles, before + 1)?;
    notification.revoke()?;
    equal("handles after all were revoked", taker.child.domain().info()?.handles, before)
}

fn refusing_receivers(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for accepts in [0, 1, 7] {
            let taker = start_taker(cpu, accepts)?;
            let notification = Notification::create()?;
            let one = HandleTransfer::copy(notification.handle(), Rights::SEND);
            let many = [one; MESSAGE_HANDLES];
            let (good, bad) = (&many[..accepts as usize], &many[..=accepts as usize]);
            for _ in 0..3 {
                refused("one handle too many", taker.send(1, bad), Status::Refused)?;
                taker.send(1, good)?;
            }
            equal("calls that came", taker.child.word(0)?.load(Ordering::Relaxed), 3)?;
        }
        // A number of accepted handles that is too large counts as the largest.
        let taker = start_taker(cpu, u64::from(u32::MAX))?;
        let notification = Notification::create()?;
        taker.send(1, &[HandleTransfer::copy(notification.handle(), Rights::SEND); MESSAGE_HANDLES])?;
    }
    Ok(())
}

fn refusing_callers(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let taker = start_taker(cpu, 8)?;
        let notification = Notification::create()?;
        let before = Domain::OWN.info()?.handles;
        message::buffer().accept_handles(0);
        let sent = taker.send(2, &[HandleTransfer::copy(notification.handle(), Rights::all())]);
        refused("a reply with a handle", sent, Status::Refused)?;
        equal("handles", Domain::OWN.info()?.handles, before)?;
        // A server that replies apart learns the same.
        let gate = Gate::create()?;
        let child = Child::new()?;
        let given = child.give(*gate, Rights::SEND)?;
        let _thread = child.spawn(cpu, plain_caller, &[given])?;
        expect_message(*gate, "the call")?;
        let reply = Message::with(0, [0; 4], &[], &[HandleTransfer::copy(notification.handle(), Rights::all())])?;
        refused("the reply", sys::reply(reply), Status::Refused)?;
        expect_value(child.word(0)?, 1, "the end of the call")?;
        equal("status of the call", child.word(1)?.load(Ordering::Relaxed), Status::Refused as u64)?;
        refused("another reply", sys::reply(Message::default()), Status::NoCaller)?;
    }
    Ok(())
}

/// Calls gate 0; word 1: status; word 0 counts.
extern "C" fn plain_caller(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let status = gate.call(Message::default()).map_or_else(|status| status as u64, |_| 0);
    shared(1).store(status, Ordering::Relaxed);
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn bad_handles_bring_none(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let taker = start_taker(cpu, 8)?;
        let notification = Notification::create()?;
        let good = HandleTransfer::copy(notification.handle(), Rights::SEND);
        let moved = notification.copy(Rights::all(), 0)?;
        let fixed = notification.copy(Rights::SEND, 0)?;
        let before = taker.child.domain().info()?;
        for (bad, status) in [
            (HandleTransfer::copy(Handle::NULL, Rights::SEND), Status::BadHandle),
            (HandleTransfer::copy(Handle(0xffff_ffff), Rights::SEND), Status::BadHandle),
            (HandleTransfer::copy(fixed.handle(), Rights::SEND), Status::Denied),
        ] {
            for place in 0..MESSAGE_HANDLES {
                let mut transfers = [good; MESSAGE_HANDLES];
                transfers[0] = HandleTransfer::give(moved.handle(), Rights::SEND);
                transfers[place] = bad;
                refused(format_args!("a bad handle in place {place}"), taker.send(1, &transfers), status)?;
                equal("handles of the receiver", taker.child.domain().info()?.handles, before.handles)?;
                // What was to be moved is still here.
                moved.handle_info()?;
            }
        }
        // The receiver was not disturbed.
        equal("calls that came", taker.child.word(0)?.load(Ordering::Relaxed), 0)?;
        taker.send(1, &[good])?;
        equal("calls that came", taker.child.word(0)?.load(Ordering::Relaxed), 1)?;
    }
    Ok(())
}

fn receivers_without_room(_: &Context) -> Outcome {
    let taker = start_taker(0, 8)?;
    let notification = Notification::create()?;
    let (one, domain) = (HandleTransfer::copy(notification.handle(), Rights::SEND), taker.child.domain());
    // Fill the receiver's account.
    let filler = Notification::create()?;
    let reason = loop {
        if let Err(status) = domain.grant(*filler, Rights::SEND, 0) {
            break status;
        }
    };
    refused("a handle too many", taker.send(1, &[one]), reason)?;
    that(matches!(reason, Status::QuotaExceeded | Status::NoHandles), format_args!("the reason is {reason:?}"))?;
    filler.revoke()?;
    taker.send(1, &[one]).map(drop).map_err(Into::into)
}

fn handles_that_go_while_queued(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let gate = Gate::create()?;
        let child = Child::new()?;
        let notification = Notification::create()?;
        let words = [child.give(*gate, Rights::SEND)?, child.give(*notification, Rights::all())?];
        let _thread = child.spawn(cpu, sender_of_one, &words)?;
        expect_value(child.word(2)?, 1, "the call")?;
        settle();
        notification.revoke()?;
        message::buffer().accept_handles(8);
        refused("a receive", gate.receive_timed(5_000_000), Status::TimedOut)?;
        message::buffer().accept_handles(0);
        expect_value(child.word(0)?, 1, "the end of the call")?;
        equal("status of the call", child.word(1)?.load(Ordering::Relaxed), Status::BadHandle as u64)?;
    }
    Ok(())
}

/// Sends handle 1 to gate 0; word 2: about to; word 1: status; word 0 counts.
extern "C" fn sender_of_one(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    Buffer::own().set_handle(0, HandleTransfer::copy(Handle(words[1] as u32), Rights::SEND));
    shared(2).store(1, Ordering::Release);
    let result = gate.call(Message { tag: MessageTag::new(0, 0, 1), words: [0; 4] });
    shared(1).store(result.map_or_else(|status| status as u64, |_| 0), Ordering::Relaxed);
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}
