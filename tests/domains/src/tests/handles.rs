//! Handles: copying, narrowing, closing, revoking, and that old ones stay dead.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, Handle, ObjectType, Rights, StartHandles, Status};
use dragonfly_rt::sys::{Commit, Domain, Gate, Memory, Notification, Object, System, exit_thread};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Child, Words, shared, usual_settings};
use crate::probe::expect_value;
use crate::raw;
use crate::runner::start_handles;

super::tests! {
    "a domain starts with its own handles in their slots" => start_handles_are_in_their_slots,
    "a new object's handle has all rights of its type" => new_objects_have_all_rights,
    "a copy has the rights asked for that the source has" => a_copy_is_narrowed,
    "no copy of a copy gets a right back" => rights_never_come_back,
    "a copy needs the right to copy and to grant" => copying_needs_rights,
    "a badge is given once and stays" => a_badge_is_given_once,
    "a closed handle is stale" => a_closed_handle_is_stale,
    "a slot that is used again has another handle" => a_used_slot_changes,
    "closing a handle leaves what was derived from it" => closing_leaves_copies,
    "revoking takes back all that was derived and leaves the handle" => revoking_takes_back,
    "revoking a copy leaves its siblings and what it came from" => revoking_leaves_siblings,
    "a copy of a closed handle is revoked with what that was derived from" => orphans_belong_to_their_grandparent,
    "revoking reaches through a chain of domains" => revoking_reaches_through_domains,
    "revoking many copies goes on until all are gone" => revoking_many,
    "a handle table holds 8,191 handles and then is full" within 120 => a_full_table,
    "an object goes with its last handle, whichever that is" => the_last_handle_frees,
    "two CPUs that close the last two handles leave nothing behind" on 2 => closing_on_two_cpus,
    "a handle means nothing in another domain" => handles_are_local,
    "numbers that were never handles are refused" => garbage_is_refused,
}

fn start_handles_are_in_their_slots(_: &Context) -> Outcome {
    let [domain, thread, system] = start_handles()?;
    equal("type of the first", domain.object, ObjectType::Domain)?;
    equal("type of the second", thread.object, ObjectType::Thread)?;
    equal("type of the third", system.object, ObjectType::System)?;
    equal("badges", [domain.badge, thread.badge, system.badge], [0; 3])
}

fn new_objects_have_all_rights(_: &Context) -> Outcome {
    let gate = Gate::create()?.handle_info()?;
    that(gate.rights.contains(Rights::COPY | Rights::SEND | Rights::RECEIVE), "rights of a gate")?;
    let notification = Notification::create()?.handle_info()?;
    that(notification.rights.contains(Rights::COPY | Rights::SEND | Rights::RECEIVE), "rights of a notification")?;
    let memory = Memory::create(4096, Commit::Explicit)?.handle_info()?;
    let wanted = Rights::COPY | Rights::READ | Rights::WRITE | Rights::EXECUTE;
    equal("rights of memory", memory.rights, wanted)?;
    let domain = Domain::create(Domain::OWN, &usual_settings())?;
    let wanted = Rights::COPY | Rights::READ | Rights::MANAGE | Rights::GRANT | Rights::DESTROY;
    that(domain.handle_info()?.rights.contains(wanted), "rights of a domain")?;
    Ok(domain.destroy()?)
}

fn a_copy_is_narrowed(_: &Context) -> Outcome {
    let memory = Memory::create(4096, Commit::Explicit)?;
    for bits in 0..1 << 12 {
        let Some(asked) = Rights::from_bits(bits) else { continue };
        let copy = memory.copy(asked, 0)?;
        equal(
            format_args!("rights of a copy asked for {asked:?}"),
            copy.handle_info()?.rights,
            memory_rights() & asked,
        )?;
    }
    Ok(())
}

fn memory_rights() -> Rights {
    Rights::COPY | Rights::READ | Rights::WRITE | Rights::EXECUTE
}

fn rights_never_come_back(_: &Context) -> Outcome {
    let memory = Memory::create(4096, Commit::Explicit)?;
    let narrow = memory.copy(Rights::COPY | Rights::READ, 0)?;
    let wide = narrow.copy(Rights::all(), 0)?;
    equal("rights", wide.handle_info()?.rights, Rights::COPY | Rights::READ)?;
    refused("committing without WRITE", wide.commit(0, 4096), Status::Denied)?;
    let none = wide.copy(Rights::empty(), 0)?;
    equal("rights", none.handle_info()?.rights, Rights::empty())?;
    refused("copying without COPY", none.copy(Rights::empty(), 0), Status::Denied)
}

fn copying_needs_rights(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let fixed = gate.copy(Rights::SEND | Rights::RECEIVE, 0)?;
    refused("a copy without COPY", fixed.copy(Rights::SEND, 0), Status::Denied)?;
    let child = Domain::create(Domain::OWN, &usual_settings())?;
    let unfriendly = child.copy(Rights::all() - Rights::GRANT, 0)?;
    refused("a grant without GRANT", unfriendly.grant(*gate, Rights::SEND, 0), Status::Denied)?;
    let only_grant = child.copy(Rights::GRANT, 0)?;
    only_grant.grant(*gate, Rights::SEND, 0)?;
    Ok(child.destroy()?)
}

fn a_badge_is_given_once(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let badged = gate.copy(Rights::all(), 7)?;
    equal("badge", badged.handle_info()?.badge, 7)?;
    equal("badge of a copy", badged.copy(Rights::all(), 0)?.handle_info()?.badge, 7)?;
    refused("another badge", badged.copy(Rights::all(), 8), Status::BadArgument)?;
    refused("the same badge again", badged.copy(Rights::all(), 7), Status::BadArgument)?;
    equal("badge of the source", gate.handle_info()?.badge, 0)?;
    equal("the largest badge", gate.copy(Rights::all(), u64::MAX)?.handle_info()?.badge, u64::MAX)
}

fn a_closed_handle_is_stale(_: &Context) -> Outcome {
    let gate = Gate::create()?.keep();
    gate.close()?;
    refused("a look at it", gate.handle_info(), Status::BadHandle)?;
    refused("closing it", gate.close(), Status::BadHandle)?;
    refused("revoking it", gate.revoke(), Status::BadHandle)?;
    refused("receiving from it", gate.receive_timed(0), Status::BadHandle)
}

fn a_used_slot_changes(_: &Context) -> Outcome {
    let mut seen = Vec::new();
    let mut last = Gate::create()?.keep();
    for _ in 0..200 {
        seen.push(last);
        last.close()?;
        last = Gate::create()?.keep();
        that(!seen.contains(&last), format_args!("{last:x?} names a second object"))?;
        equal("slot", last.handle().slot(), seen.first().map_or(0, |first| first.handle().slot()))?;
    }
    for old in seen {
        refused("an old handle", old.handle_info(), Status::BadHandle)?;
    }
    Ok(last.close()?)
}

fn closing_leaves_copies(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let copy = notification.copy(Rights::all(), 0)?;
    let second = copy.copy(Rights::all(), 0)?;
    notification.close()?;
    copy.signal(5)?;
    copy.close()?;
    equal("bits", second.wait_timed(0)?, 5)
}

fn revoking_takes_back(_: &Context) -> Outcome {
    let notification = Notification::create()?;
    let copies = [notification.copy(Rights::all(), 0)?.keep(), notification.copy(Rights::SEND, 3)?.keep()];
    let third = copies[0].copy(Rights::all(), 0)?.keep();
    notification.revoke()?;
    for copy in [copies[0], copies[1], third] {
        refused("a revoked copy", copy.signal(1), Status::BadHandle)?;
    }
    notification.signal(6)?;
    equal("bits", notification.wait_timed(0)?, 6)?;
    // What is derived afterwards is good.
    notification.copy(Rights::all(), 0)?.signal(1)?;
    Ok(notification.revoke()?)
}

fn revoking_leaves_siblings(_: &Context) -> Outcome {
    let first = Notification::create()?;
    let (left, right) = (first.copy(Rights::all(), 0)?, first.copy(Rights::all(), 0)?);
    let below = left.copy(Rights::all(), 0)?.keep();
    left.revoke()?;
    refused("what was derived", below.signal(1), Status::BadHandle)?;
    for handle in [&first, &left, &right] {
        handle.signal(1)?;
    }
    Ok(())
}

fn orphans_belong_to_their_grandparent(_: &Context) -> Outcome {
    let first = Notification::create()?;
    let middle = first.copy(Rights::all(), 0)?;
    let last = [middle.copy(Rights::all(), 0)?.keep(), middle.copy(Rights::all(), 0)?.keep()];
    let sibling = first.copy(Rights::all(), 0)?;
    middle.close()?;
    last[0].signal(1)?;
    sibling.revoke()?;
    last[1].signal(1)?;
    first.revoke()?;
    for orphan in last {
        refused("the orphan", orphan.signal(1), Status::BadHandle)?;
    }
    refused("the sibling", sibling.signal(1), Status::BadHandle)
}

/// Each domain passes a notification on to the next; then every link of the chain is cut once.
fn revoking_reaches_through_domains(_: &Context) -> Outcome {
    const LENGTH: usize = 5;
    for cut in 0..LENGTH {
        let own = Notification::create()?;
        let mut children = Vec::new();
        for _ in 0..LENGTH {
            children.push(Child::new()?);
        }
        // Each domain gets its copy from the one before, by a thread that runs there.
        let mut copies: Vec<Handle> = Vec::new();
        let mut previous: Option<&Child> = None;
        for child in &children {
            let copy = match previous.zip(copies.last()) {
                None => child.domain().grant(*own, Rights::all(), 0)?,
                Some((giver, handle)) => {
                    let to = giver.give(child.domain(), Rights::GRANT)?;
                    let _thread = giver.spawn(0, copier, &[handle.0.into(), to])?;
                    expect_value(giver.word(0)?, 1, "a copy for the next domain")?;
                    equal("status of the copy", giver.word(1)?.load(Ordering::Relaxed), 0)?;
                    Handle(giver.word(2)?.load(Ordering::Relaxed) as u32)
                }
            };
            copies.push(copy);
            previous = Some(child);
        }
        // A revocation by the domain at the cut.
        if let (Some(child), Some(handle)) = (children.get(cut), copies.get(cut)) {
            let _thread = child.spawn(0, revoker, &[handle.0.into()])?;
            expect_value(child.word(3)?, 1, "the revocation")?;
        }
        for (index, (child, copy)) in children.iter().zip(&copies).enumerate() {
            let _thread = child.spawn(0, signaller, &[copy.0.into()])?;
            expect_value(child.word(4)?, 1, "the signal")?;
            let status = child.word(5)?.load(Ordering::Relaxed);
            let wanted = if index <= cut { Status::Ok } else { Status::BadHandle };
            equal(format_args!("status in domain {index} when {cut} has revoked"), status, wanted as u64)?;
        }
        own.signal(1)?;
        own.revoke()?;
        for (child, copy) in children.iter().zip(&copies) {
            child.word(4)?.store(0, Ordering::Relaxed);
            let _thread = child.spawn(0, signaller, &[copy.0.into()])?;
            expect_value(child.word(4)?, 1, "the signal")?;
            equal("status after all was revoked", child.word(5)?.load(Ordering::Relaxed), Status::BadHandle as u64)?;
        }
    }
    Ok(())
}

/// Copies handle 0 with all rights into domain 1. Word 0: done, 1: status, 2: handle.
extern "C" fn copier(words: &Words) -> ! {
    let (status, results) =
        raw::number(Call::HandleCopy as u64, [words[0], words[1], Rights::all().bits().into(), 0, 0, 0]);
    shared(1).store(status, Ordering::Relaxed);
    shared(2).store(results[0], Ordering::Relaxed);
    shared(0).store(1, Ordering::Release);
    exit_thread()
}

/// Revokes handle 0. Word 3: done.
extern "C" fn revoker(words: &Words) -> ! {
    let _ = raw::call_until_done(Call::HandleRevoke, &[words[0]]);
    shared(3).store(1, Ordering::Release);
    exit_thread()
}

/// Signals notification 0. Word 4: done, 5: status.
extern "C" fn signaller(words: &Words) -> ! {
    let (status, _) = raw::number(Call::NotificationSignal as u64, [words[0], 1, 0, 0, 0, 0]);
    shared(5).store(status, Ordering::Relaxed);
    shared(4).store(1, Ordering::Release);
    exit_thread()
}

fn revoking_many(context: &Context) -> Outcome {
    let gate = Gate::create()?;
    let before = Domain::OWN.info()?;
    let count = context.repeat(500, 3000, 6000);
    let mut last = gate.copy(Rights::all(), 0)?.keep();
    for index in 0..count {
        // A tree that is both deep and wide.
        let copy = last.copy(Rights::all(), 0)?.keep();
        if index % 3 == 0 {
            last = copy;
        }
    }
    equal("handles", Domain::OWN.info()?.handles, before.handles + count + 1)?;
    let mut calls = 1;
    while raw::call(Call::HandleRevoke, &[gate.handle().0.into()]) == Err(Status::Again) {
        calls += 1;
    }
    that(calls > 1, "so much work in one call is not bounded")?;
    equal("handles after", Domain::OWN.info()?.handles, before.handles)
}

fn a_full_table(_: &Context) -> Outcome {
    let child =
        Domain::create(Domain::OWN, &dragonfly_rt::sys::DomainSettings { quota: 16 << 20, ..usual_settings() })?;
    let gate = Gate::create()?;
    let mut count = 0_u64;
    let last = loop {
        match child.grant(*gate, Rights::SEND, 0) {
            Ok(_) => count += 1,
            Err(status) => break status,
        }
    };
    equal("status", last, Status::NoHandles)?;
    equal("handles", count, 8191)?;
    equal("handles that the kernel counts", child.info()?.handles, 8191)?;
    gate.revoke()?;
    equal("handles after all are taken back", child.info()?.handles, 0)?;
    child.grant(*gate, Rights::SEND, 0)?;
    Ok(child.destroy()?)
}

fn the_last_handle_frees(_: &Context) -> Outcome {
    let used = Domain::OWN.info()?.used;
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let memory = Memory::create(1 << 20, Commit::Explicit)?.keep();
        memory.commit(0, 1 << 20)?;
        let second = memory.copy(Rights::all(), 0)?.keep();
        let third = second.copy(Rights::all(), 0)?.keep();
        let handles = [memory, second, third];
        for index in order {
            that(Domain::OWN.info()?.used >= used + (1 << 20), "the memory went before its last handle")?;
            handles[index].close()?;
        }
        equal("memory used after the last handle is closed", Domain::OWN.info()?.used, used)?;
    }
    Ok(())
}

fn closing_on_two_cpus(context: &Context) -> Outcome {
    let repeat = context.repeat(200, 1000, 20_000);
    let child = Child::new()?;
    let own = child.give(child.domain(), Rights::all())?;
    let _other = child.spawn(context.other_cpu(), closer, &[])?;
    let go = child.word(0)?;
    let used = child.domain().info()?.used;
    for round in 1..=repeat {
        // Both handles are in the child's table; the other CPU closes one, a thread here the other.
        let maker = child.spawn(0, gate_maker, &[own])?;
        expect_value(child.word(3)?, round, "two handles")?;
        go.store(round, Ordering::Release);
        expect_value(child.word(4)?, round, "the other CPU's close")?;
        expect_value(child.word(5)?, round, "this CPU's close")?;
        drop(maker);
    }
    equal("memory used by the domain", child.domain().info()?.used, used)
}

/// Makes a gate with two handles (words 1 and 2), closes the second when word 0 says so.
extern "C" fn gate_maker(words: &Words) -> ! {
    let round = shared(3).load(Ordering::Relaxed) + 1;
    let made = raw::call(Call::GateCreate, &[]).map_or(0, |results| results[0]);
    let copy =
        raw::call(Call::HandleCopy, &[made, words[0], Rights::all().bits().into()]).map_or(0, |results| results[0]);
    shared(1).store(made, Ordering::Relaxed);
    shared(2).store(copy, Ordering::Relaxed);
    shared(3).store(round, Ordering::Release);
    while shared(0).load(Ordering::Acquire) != round {
        dragonfly_rt::sys::yield_thread();
    }
    let _ = raw::call_until_done(Call::HandleClose, &[copy]);
    shared(5).store(round, Ordering::Release);
    exit_thread()
}

/// Closes the handle in word 1 each time that word 0 counts up.
extern "C" fn closer(_: &Words) -> ! {
    let mut round = 1;
    loop {
        while shared(0).load(Ordering::Acquire) != round {
            core::hint::spin_loop();
        }
        let _ = raw::call_until_done(Call::HandleClose, &[shared(1).load(Ordering::Relaxed)]);
        shared(4).store(round, Ordering::Release);
        round += 1;
    }
}

fn handles_are_local(_: &Context) -> Outcome {
    let child = Child::new()?;
    let notification = Notification::create()?;
    // In the child the same number names nothing.
    let number = u64::from(notification.handle().0);
    let _thread = child.spawn(0, signaller, &[number])?;
    expect_value(child.word(4)?, 1, "the signal")?;
    equal("status", child.word(5)?.load(Ordering::Relaxed), Status::BadHandle as u64)?;
    equal("bits", notification.wait_timed(0), Err(Status::WouldBlock))
}

fn garbage_is_refused(_: &Context) -> Outcome {
    let mut numbers: Vec<u64> = (0..32).map(|bit| 1_u64 << bit).filter(|number| *number > 4096).collect();
    numbers.extend([0, 0xffff, 0xffff_0001, u64::from(u32::MAX), 1 << 32 | 1, 1 << 63 | 1, u64::MAX]);
    for number in numbers {
        for call in [Call::HandleInfo, Call::HandleClose, Call::HandleRevoke, Call::DomainInfo, Call::Receive] {
            refused(format_args!("{call:?} of {number:#x}"), raw::call(call, &[number]), Status::BadHandle)?;
        }
    }
    let own = u64::from(StartHandles::DOMAIN.0);
    for wrong in [own | 1 << 16, own | 1 << 32, own | 1 << 63] {
        refused(format_args!("{wrong:#x}"), raw::call(Call::HandleInfo, &[wrong]), Status::BadHandle)?;
    }
    System::OWN.handle_info().map(drop).map_err(Into::into)
}
