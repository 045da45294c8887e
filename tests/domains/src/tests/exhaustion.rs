//! Running out of memory: each call that takes some says so, takes nothing then, and works again later.

use alloc::format;
use alloc::string::String;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status};
use dragonfly_rt::sys::{Commit, Domain, DomainSettings, Gate, Memory, Object, System, exit_thread};
use dragonfly_rt::{Mapping, cpus};

use super::Context;
use crate::check::{Failure, Outcome, equal, refused, that};
use crate::light::{Child, PLAYGROUND, SHARED, Words, shared, usual_settings, word_at};
use crate::probe::expect_value;
use crate::raw;

super::tests! {
    "every call that takes memory ends with a status when there is none, and all of it comes back" within 120 => every_call,
    "a call that fails for lack of memory takes nothing" within 120 => failures_take_nothing,
    "a domain that is out of memory can still give up what it has" => giving_up,
    "a parent out of quota cannot make children, and can again after one is gone" => parents,
    "a commit that fails leaves what it committed usable" => partial_commit,
    "one domain out of memory costs its neighbour nothing" => neighbours,
    "on all CPUs at once, an exhausted account stays within its quota" within 120 => all_cpus,
}

/// Where the table of handles is in the child: pages beside the shared one.
const TABLE: u64 = SHARED + 0x10_0000;
const TABLE_PAGES: u64 = 20;

/// Calls that take memory, as a number, the words, and how to give back what came.
const KINDS: u64 = 13;
/// The kind that makes domains with a quota of 1 MiB.
const LARGE_CHILDREN: u64 = 6;

/// Makes one object of a kind. Words: own domain, system handle, notification, memory of one page, gate.
fn make(kind: u64, index: u64, words: &Words) -> Result<u64, Status> {
    let [own, system, notification, memory, ..] = *words;
    let address = PLAYGROUND + index * 2 * PAGE_SIZE;
    let call = |call, words: &[u64]| raw::call(call, words).map(|results| results[0]);
    match kind {
        0 => call(Call::NotificationCreate, &[]),
        1 => call(Call::GateCreate, &[]),
        2 => call(Call::MemoryCreate, &[1 << 30, 1]),
        3 => {
            let made = call(Call::MemoryCreate, &[4 * PAGE_SIZE, 0])?;
            match raw::call_until_done(Call::MemoryCommit, &[made, 0, 4 * PAGE_SIZE]) {
                Ok(_) => Ok(made),
                Err(status) => raw::call_until_done(Call::HandleClose, &[made]).and(Err(status)),
            }
        }
        4 => call(Call::HandleCopy, &[notification, own, 0xfff]),
        5 => call(Call::DomainCreate, &[own, 40_000, 10, 1]),
        6 => call(Call::DomainCreate, &[own, 1 << 20, 10, 1]),
        7 => call(Call::ThreadCreate, &[own, 10 << 32, 0x20_0000, 0, address, 0]),
        8 => call(Call::DevicePorts, &[system, 0x80, 1]),
        9 => call(Call::DeviceMemory, &[system, 0xb_8000, PAGE_SIZE]),
        10 => call(Call::DeviceInterrupt, &[system, 3, 0]),
        11 => call(Call::MemoryMap, &[memory, own, address, 0, PAGE_SIZE, 2]).map(|_| address),
        // Far apart, so that each mapping needs tables of its own.
        _ => {
            let address = PLAYGROUND + index * (1 << 30);
            call(Call::MemoryMap, &[memory, own, address, 0, PAGE_SIZE, 2]).map(|_| address)
        }
    }
}

fn unmake(kind: u64, made: u64, own: u64) {
    match kind {
        5 | 6 => {
            let _ = raw::call_until_done(Call::DomainDestroy, &[made]);
        }
        7 => {
            let _ = raw::call_until_done(Call::ThreadDestroy, &[made]);
            let _ = raw::call_until_done(Call::HandleClose, &[made]);
        }
        11 | 12 => {
            let _ = raw::call_until_done(Call::MemoryUnmap, &[own, made]);
        }
        _ => {
            let _ = raw::call_until_done(Call::HandleClose, &[made]);
        }
    }
}

/// Makes objects of kind words[5] until that fails (word 1: how many, word 2: status), then as often as words[6] says
/// gives one back and makes it again (word 3: how often that failed), then gives all back.
extern "C" fn glutton(words: &Words) -> ! {
    let kind = words[5];
    let mut count = 0;
    let status = loop {
        if count == TABLE_PAGES * 512 {
            break u64::MAX;
        }
        match make(kind, count, words) {
            Ok(made) => word_at(TABLE + count * 8).store(made, Ordering::Relaxed),
            Err(status) => break status as u64,
        }
        count += 1;
    };
    shared(1).store(count, Ordering::Relaxed);
    shared(2).store(status, Ordering::Relaxed);
    for _ in 0..words[6].min(count) {
        let place = word_at(TABLE + (count - 1) * 8);
        unmake(kind, place.load(Ordering::Relaxed), words[0]);
        match make(kind, count - 1, words) {
            Ok(made) => place.store(made, Ordering::Relaxed),
            Err(_) => {
                shared(3).fetch_add(1, Ordering::Relaxed);
                count -= 1;
            }
        }
    }
    // In an order that is neither the first nor the last first.
    for step in 0..count {
        let index = step * 7919 % count.max(1);
        let place = word_at(TABLE + if count % 7919 == 0 { step } else { index } * 8);
        unmake(kind, place.swap(0, Ordering::Relaxed), words[0]);
    }
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

/// A child with a table for handles, and the words that [`make`] needs.
fn hungry_child(quota: u64) -> Outcome<(Child, [u64; 5])> {
    let child = Child::with(&DomainSettings { quota, ..usual_settings() })?;
    let table = Memory::create(TABLE_PAGES * PAGE_SIZE, Commit::Explicit)?;
    table.commit(0, TABLE_PAGES * PAGE_SIZE)?;
    table.map(child.domain(), TABLE, 0, TABLE_PAGES * PAGE_SIZE, Rights::READ | Rights::WRITE)?;
    let page = Memory::create(PAGE_SIZE, Commit::Explicit)?.keep();
    page.commit(0, PAGE_SIZE)?;
    let words = [
        child.give(child.domain(), Rights::all())?,
        child.give(System::OWN, Rights::all())?,
        child.give(dragonfly_rt::sys::Notification::create()?.keep(), Rights::all())?,
        child.give(page, Rights::all())?,
        child.give(Gate::create()?.keep(), Rights::all())?,
    ];
    // The table stays mapped though its handle is closed.
    Ok((child, words))
}

fn every_call(context: &Context) -> Outcome {
    for quota in [96 * 1024, 400 * 1024, 2 << 20] {
        let mut counts = String::new();
        // A large child does not fit into a small parent at all.
        for kind in (0..KINDS).filter(|kind| *kind != LARGE_CHILDREN || quota > 1 << 20) {
            let (child, words) = hungry_child(quota)?;
            let words = [words[0], words[1], words[2], words[3], words[4], kind, context.repeat(20, 100, 1000)];
            // The stack and buffer of the thread are part of what is there before.
            let mut after_first = None;
            let mut first_count = None;
            for round in 1..=3 {
                let light = child.spawn(0, glutton, &words)?;
                expect_value(child.word(0)?, round, "the end of the child's memory")
                    .map_err(|failure| failure.in_case(format_args!("kind {kind} with {quota} bytes")))?;
                let [count, status, failed] =
                    [1, 2, 3].map(|index| child.word(index).map_or(0, |word| word.load(Ordering::Relaxed)));
                let expected = [Status::QuotaExceeded, Status::OutOfMemory, Status::NoHandles];
                let case = format!("kind {kind} with {quota} bytes, round {round}");
                that(
                    expected.iter().any(|expected| *expected as u64 == status),
                    format_args!("{case}: status {status} after {count} objects"),
                )?;
                that(count > 0, format_args!("{case}: not one object could be made"))?;
                equal(format_args!("{case}: makes that failed after one was given back"), failed, 0)?;
                drop(light);
                let used = child.domain().info()?.used;
                let handles = child.domain().info()?.handles;
                equal(format_args!("{case}: handles"), handles, 5)?;
                // The first round may leave pages of tables; no later one may.
                match (after_first, first_count) {
                    (None, _) | (_, None) => {
                        after_first = Some(used);
                        first_count = Some(count);
                    }
                    (Some(before), Some(first)) => {
                        equal(format_args!("{case}: memory used afterwards"), used, before)?;
                        that(
                            count <= first && count + 16 >= first,
                            format_args!("{case}: {count} objects after {first}"),
                        )?;
                    }
                }
            }
            counts.push_str(&format!(" {kind}: {}", first_count.unwrap_or(0)));
            child.destroy()?;
        }
        context.note(format_args!("objects of each kind in {quota} bytes:{counts}"));
    }
    Ok(())
}

fn failures_take_nothing(_: &Context) -> Outcome {
    // Quotas that grow by a little: each fails at another point within the call.
    for kind in (0..KINDS).filter(|kind| *kind != LARGE_CHILDREN) {
        let mut succeeded = 0;
        for step in 0..60 {
            let quota = 48 * 1024 + step * 1_000;
            let child = match hungry_child(quota) {
                Ok(child) => child,
                // The quota does not even hold the start.
                Err(_) => continue,
            };
            let (child, words) = child;
            let words = [words[0], words[1], words[2], words[3], words[4], kind];
            let Ok(_light) = child.spawn(0, one_of_a_kind, &words) else { continue };
            expect_value(child.word(0)?, 1, "the call")
                .map_err(|failure| failure.in_case(format_args!("kind {kind} with {quota} bytes")))?;
            let [before, after, status] =
                [1, 2, 3].map(|index| child.word(index).map_or(0, |word| word.load(Ordering::Relaxed)));
            if status == 0 {
                succeeded += 1;
            }
            // A page of the handle table stays, and page tables that were made before the failure.
            let left = after - before;
            that(
                left <= 4 * PAGE_SIZE,
                format_args!("kind {kind} with {quota} bytes: {left} bytes are gone, status {status}"),
            )?;
        }
        that(succeeded > 0, format_args!("kind {kind} never succeeded"))?;
    }
    Ok(())
}

/// Makes and unmakes one object of kind words[5]; words 1 and 2: memory used before and after, 3: status.
extern "C" fn one_of_a_kind(words: &Words) -> ! {
    let used = || raw::call(Call::DomainInfo, &[words[0]]).map_or(0, |results| results[1]);
    shared(1).store(used(), Ordering::Relaxed);
    match make(words[5], 0, words) {
        Ok(made) => {
            shared(3).store(0, Ordering::Relaxed);
            unmake(words[5], made, words[0]);
        }
        Err(status) => shared(3).store(status as u64, Ordering::Relaxed),
    }
    shared(2).store(used(), Ordering::Relaxed);
    shared(0).store(1, Ordering::Release);
    exit_thread()
}

fn giving_up(_: &Context) -> Outcome {
    let child = Child::with(&DomainSettings { quota: 200 * 1024, ..usual_settings() })?;
    let gate = Gate::create()?;
    let last = loop {
        if let Err(status) = child.domain().grant(*gate, Rights::SEND, 0) {
            break status;
        }
    };
    equal("status", last, Status::QuotaExceeded)?;
    let full = child.domain().info()?;
    gate.revoke()?;
    let empty = child.domain().info()?;
    that(empty.used < full.used && empty.handles == 0, format_args!("{full:?} became {empty:?}"))?;
    child.give(*gate, Rights::SEND)?;
    child.destroy()
}

fn parents(_: &Context) -> Outcome {
    let parent = Domain::create(Domain::OWN, &DomainSettings { quota: 1 << 20, ..usual_settings() })?;
    let settings = DomainSettings { quota: 200 * 1024, ..usual_settings() };
    let mut children = alloc::vec::Vec::new();
    let status = loop {
        match Domain::create(*parent, &settings) {
            Ok(child) => children.push(child),
            Err(status) => break status,
        }
    };
    equal("status", status, Status::QuotaExceeded)?;
    that((3..=5).contains(&children.len()), format_args!("{} children of a fifth", children.len()))?;
    if let Some(child) = children.pop() {
        child.destroy()?;
    }
    children.push(Domain::create(*parent, &settings)?);
    refused("one more", Domain::create(*parent, &settings), Status::QuotaExceeded)?;
    Ok(parent.destroy()?)
}

fn partial_commit(_: &Context) -> Outcome {
    // This domain's own quota bounds the commit.
    let own = Domain::OWN.info()?;
    let pages = (own.quota - own.used) / PAGE_SIZE;
    let memory = Memory::create((pages + 1000) * PAGE_SIZE, Commit::Explicit)?;
    let status = memory.commit(0, (pages + 1000) * PAGE_SIZE);
    that(
        matches!(status, Err(Status::QuotaExceeded | Status::OutOfMemory)),
        format_args!("committing more than there is gave {status:?}"),
    )?;
    let committed = memory.info()?.committed;
    that(committed > pages * PAGE_SIZE / 2, format_args!("only {committed} bytes of {pages} pages are committed"))?;
    drop(memory);
    let now = Domain::OWN.info()?;
    that(now.used <= own.used + 4 * PAGE_SIZE, format_args!("{} bytes used, {} before", now.used, own.used))?;
    let memory = Memory::create(64 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 64 * PAGE_SIZE)?;
    let mapping = Mapping::new(*memory, 0, 64 * PAGE_SIZE, Rights::READ)?;
    equal("a fresh word", mapping.word(0)?.load(Ordering::Relaxed), 0)
}

fn neighbours(_: &Context) -> Outcome {
    let (poor, words) = hungry_child(128 * 1024)?;
    let words = [words[0], words[1], words[2], words[3], words[4], 0, 1_000_000];
    let neighbour = Child::new()?;
    let used = neighbour.domain().info()?.used;
    let _light = poor.spawn(0, glutton, &words)?;
    let gate = Gate::create()?;
    for _ in 0..50 {
        neighbour.give(*gate, Rights::SEND)?;
        gate.revoke()?;
        crate::probe::pause();
    }
    let after = neighbour.domain().info()?.used;
    that(after <= used + PAGE_SIZE + 2048, format_args!("the neighbour uses {after} bytes, {used} before"))
}

/// Makes and unmakes objects of all kinds in turns, words[6] times; word 0 counts threads that are through.
extern "C" fn nibbler(words: &Words) -> ! {
    let mut made = [(0, 0); 32];
    for round in 0..words[6] {
        let place = &mut made[(round % 32) as usize];
        if place.1 != 0 {
            unmake(place.0, place.1, words[0]);
        }
        let kind = (round * 7 + words[5]) % 11;
        *place = (kind, make(kind, words[5] * 64 + round % 32, words).unwrap_or(0));
    }
    for (kind, handle) in made {
        if handle != 0 {
            unmake(kind, handle, words[0]);
        }
    }
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn all_cpus(context: &Context) -> Outcome {
    let (child, words) = hungry_child(700 * 1024)?;
    let mut lights = alloc::vec::Vec::new();
    for number in 0..cpus().min(8) * 2 {
        let words =
            [words[0], words[1], words[2], words[3], words[4], number.into(), context.repeat(300, 5000, 100_000)];
        lights.push(child.spawn(number % cpus(), nibbler, &words)?);
    }
    let done = child.word(0)?;
    while done.load(Ordering::Acquire) < lights.len() as u64 {
        let info = child.domain().info()?;
        if info.used > info.quota {
            return Err(Failure::new(format_args!("{} bytes used of {}", info.used, info.quota)));
        }
        crate::probe::pause();
    }
    equal("handles", child.domain().info()?.handles, 5)?;
    child.destroy()
}
