//! Taking memory away while others use it: no CPU goes on with an old translation.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, FaultReply, PAGE_SIZE, Rights};
use dragonfly_rt::sys::{self, Commit, Gate, Memory, Message, Object, exit_thread};
use dragonfly_rt::{Mapping, cpus};

use super::Context;
use crate::check::{Outcome, equal, that};
use crate::light::{Builder, Child, PLAYGROUND, Words, shared, word_at};
use crate::probe::{self, expect_fault, expect_that, expect_value};
use crate::raw;

super::tests! {
    "revoking a memory handle removes its mappings from every domain" => mappings_are_revoked,
    "revoking one copy removes the mappings made through it alone" => mappings_of_a_copy,
    "no CPU reads revoked memory once the call has returned" within 120 => readers_stop,
    "no CPU writes to unmapped memory once the call has returned" within 120 => writers_stop,
    "frames that were taken away are never written by their old users" within 120 => frames_are_safe,
    "large mappings are revoked in slices while they are in use" within 120 => large_mappings,
    "mapping and unmapping on all CPUs at once keeps every space apart" within 120 => everybody_at_once,
}

const RW: Rights = Rights::READ.union(Rights::WRITE);

fn mappings_are_revoked(_: &Context) -> Outcome {
    let memory = Memory::create(4 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 4 * PAGE_SIZE)?;
    let children: Vec<Child> = (0..5).map(|_| Child::new()).collect::<Outcome<_>>()?;
    for child in &children {
        memory.map(child.domain(), PLAYGROUND, 0, 4 * PAGE_SIZE, RW)?;
        memory.map(child.domain(), PLAYGROUND + (1 << 30), PAGE_SIZE, PAGE_SIZE, Rights::READ)?;
    }
    equal("mappings", memory.info()?.mappings, 10)?;
    memory.revoke()?;
    equal("mappings after the revocation", memory.info()?.mappings, 0)?;
    for child in &children {
        for cpu in 0..cpus() {
            for address in [PLAYGROUND, PLAYGROUND + (1 << 30)] {
                let read = probe::read(child.domain(), cpu, address)?;
                that(read.is_err_and(|fault| fault.is_page_fault(address, Rights::READ)), "it can still be read")?;
            }
        }
        memory.map(child.domain(), PLAYGROUND, 0, 4 * PAGE_SIZE, RW)?;
    }
    Ok(())
}

fn mappings_of_a_copy(_: &Context) -> Outcome {
    let memory = Memory::create(PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, PAGE_SIZE)?;
    let copy = memory.copy(Rights::all(), 0)?;
    let child = Child::new()?;
    memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, RW)?;
    copy.map(child.domain(), PLAYGROUND + PAGE_SIZE, 0, PAGE_SIZE, RW)?;
    copy.revoke()?;
    equal("through the other handle", probe::read(child.domain(), 0, PLAYGROUND)?, Ok(0))?;
    that(probe::read(child.domain(), 0, PLAYGROUND + PAGE_SIZE)?.is_err(), "what was revoked can be read")?;
    // Closing a handle leaves what was mapped through it.
    copy.map(child.domain(), PLAYGROUND + PAGE_SIZE, 0, PAGE_SIZE, RW)?;
    copy.close()?;
    equal("through the closed handle", probe::read(child.domain(), 0, PLAYGROUND + PAGE_SIZE)?, Ok(0))?;
    memory.revoke()?;
    that(probe::read(child.domain(), 0, PLAYGROUND + PAGE_SIZE)?.is_err(), "what was revoked above can be read")
}

/// Reads the word at words[0] for ever; puts what it saw last into word words[1].
extern "C" fn reader(words: &Words) -> ! {
    loop {
        let value = word_at(words[0]).load(Ordering::Relaxed);
        shared(words[1] as usize).store(value, Ordering::Relaxed);
        shared(100).fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes to the word at words[0] for ever; counts in word words[1].
extern "C" fn writer(words: &Words) -> ! {
    loop {
        let count = shared(words[1] as usize).fetch_add(1, Ordering::Relaxed);
        word_at(words[0]).store(count | 1 << 63, Ordering::Relaxed);
    }
}

/// Users of one page on each CPU, one in each of two domains on each.
fn users(memory: Memory, gate: Gate, entry: crate::light::Entry) -> Outcome<(Vec<Child>, Vec<crate::light::Light>)> {
    let (mut children, mut lights) = (Vec::new(), Vec::new());
    for number in 0..2 {
        let child = Child::new()?;
        memory.map(child.domain(), PLAYGROUND + number * PAGE_SIZE, 0, PAGE_SIZE, RW)?;
        for cpu in 0..cpus() {
            let plan = Builder::new(cpu).fault_gate(gate, 0).budget(200_000, 200_000);
            lights.push(plan.spawn(child.domain(), entry, &[PLAYGROUND + number * PAGE_SIZE, 1 + u64::from(cpu)])?);
        }
        children.push(child);
    }
    Ok((children, lights))
}

fn expect_all_faults(gate: Gate, count: usize) -> Outcome {
    for _ in 0..count {
        let fault = expect_fault(gate, "the fault of a user")?;
        that(fault.words[0] >> 30 == PLAYGROUND >> 30, format_args!("{fault:x?}"))?;
        sys::reply(Message::new(FaultReply::End as u32, [0; 4]))?;
    }
    Ok(())
}

fn readers_stop(context: &Context) -> Outcome {
    for round in 0..context.repeat(10, 50, 1000) {
        let memory = Memory::create(PAGE_SIZE, Commit::Explicit)?;
        memory.commit(0, PAGE_SIZE)?;
        let source = memory.copy(Rights::all(), 0)?;
        let mine = Mapping::new(*memory, 0, PAGE_SIZE, RW)?;
        let gate = Gate::create()?;
        let (children, lights) = users(*source, *gate, reader)?;
        mine.word(0)?.store(5, Ordering::Relaxed);
        for child in &children {
            for cpu in 0..cpus() {
                expect_value(child.word(1 + u64::from(cpu))?, 5, "a reader")?;
            }
        }
        source.revoke()?;
        mine.word(0)?.store(6, Ordering::SeqCst);
        expect_all_faults(*gate, lights.len())?;
        for child in &children {
            for cpu in 0..cpus() {
                let seen = child.word(1 + u64::from(cpu))?.load(Ordering::Relaxed);
                equal(format_args!("what CPU {cpu} saw last in round {round}"), seen, 5)?;
            }
        }
    }
    Ok(())
}

fn writers_stop(context: &Context) -> Outcome {
    for round in 0..context.repeat(10, 50, 1000) {
        let memory = Memory::create(PAGE_SIZE, Commit::Explicit)?;
        memory.commit(0, PAGE_SIZE)?;
        let mine = Mapping::new(*memory, 0, PAGE_SIZE, RW)?;
        let gate = Gate::create()?;
        let (children, lights) = users(*memory, *gate, writer)?;
        for child in &children {
            for cpu in 0..cpus() {
                let word = child.word(1 + u64::from(cpu))?;
                expect_that(|| word.load(Ordering::Relaxed) > 100, "a writer")?;
            }
        }
        for (number, child) in children.iter().enumerate() {
            let address = PLAYGROUND + number as u64 * PAGE_SIZE;
            raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), address])?;
        }
        mine.word(0)?.store(1, Ordering::SeqCst);
        expect_all_faults(*gate, lights.len())?;
        equal(format_args!("the word after round {round}"), mine.word(0)?.load(Ordering::SeqCst), 1)?;
    }
    Ok(())
}

/// The frames go back to the kernel and come out again as somebody else's, who finds only zeros and own values.
fn frames_are_safe(context: &Context) -> Outcome {
    for _ in 0..context.repeat(10, 50, 1000) {
        let memory = Memory::create(PAGE_SIZE, Commit::Explicit)?;
        memory.commit(0, PAGE_SIZE)?;
        let gate = Gate::create()?;
        let (children, lights) = users(*memory, *gate, writer)?;
        for child in &children {
            let word = child.word(1)?;
            expect_that(|| word.load(Ordering::Relaxed) > 100, "a writer")?;
        }
        memory.revoke()?;
        memory.close()?;
        // The freed frame is among the next ones.
        let next = Memory::create(64 * PAGE_SIZE, Commit::Explicit)?;
        next.commit(0, 64 * PAGE_SIZE)?;
        let mapping = Mapping::new(*next, 0, 64 * PAGE_SIZE, RW)?;
        for _ in 0..20 {
            for offset in (0..64 * PAGE_SIZE).step_by(PAGE_SIZE as usize) {
                equal("a fresh word", mapping.word(offset)?.load(Ordering::Relaxed), 0)?;
            }
        }
        expect_all_faults(*gate, lights.len())?;
        for offset in (0..64 * PAGE_SIZE).step_by(PAGE_SIZE as usize) {
            equal("a fresh word", mapping.word(offset)?.load(Ordering::Relaxed), 0)?;
        }
        drop(children);
    }
    Ok(())
}

/// Writes to every page from words[0] on, words[1] pages, again and again; word 0 counts.
extern "C" fn sweeper(words: &Words) -> ! {
    loop {
        for page in 0..words[1] {
            word_at(words[0] + page * PAGE_SIZE).fetch_add(1, Ordering::Relaxed);
        }
        shared(0).fetch_add(1, Ordering::Relaxed);
    }
}

fn large_mappings(context: &Context) -> Outcome {
    const PAGES: u64 = 1536;
    for round in 0..context.repeat(3, 10, 200) {
        // Small pages and large ones.
        let memory = Memory::create(PAGES * PAGE_SIZE, Commit::OnDemand)?;
        if round % 2 == 0 {
            memory.commit(0, PAGES * PAGE_SIZE)?;
        }
        let child = Child::new()?;
        memory.map(child.domain(), PLAYGROUND, 0, PAGES * PAGE_SIZE, RW)?;
        let gate = Gate::create()?;
        let mut lights = Vec::new();
        for cpu in 0..cpus() {
            let plan = Builder::new(cpu).fault_gate(*gate, 0);
            lights.push(plan.spawn(child.domain(), sweeper, &[PLAYGROUND, PAGES])?);
        }
        let sweeps = child.word(0)?;
        expect_that(|| sweeps.load(Ordering::Relaxed) > 3, "some sweeps")?;
        memory.revoke()?;
        equal("mappings", memory.info()?.mappings, 0)?;
        expect_all_faults(*gate, lights.len())?;
        memory.map(child.domain(), PLAYGROUND, 0, PAGES * PAGE_SIZE, RW)?;
        for page in [0, 1, 511, 512, PAGES - 1] {
            let read = probe::read(child.domain(), 0, PLAYGROUND + page * PAGE_SIZE)?;
            that(read.is_ok_and(|value| value > 3), "what was written is lost")?;
        }
    }
    Ok(())
}

/// Maps memory 0 into domain 1, which is its own, at words[2]; checks a word; unmaps; words[3] times. Word 0 counts
/// threads that are through, word 1 mistakes.
extern "C" fn mapper(words: &Words) -> ! {
    let [memory, domain, address, rounds, ..] = *words;
    for round in 0..rounds {
        let pages = 1 + round % 70;
        let mapped = raw::call(Call::MemoryMap, &[memory, domain, address, 0, pages * PAGE_SIZE, RW.bits().into()]);
        let last = word_at(address + (pages - 1) * PAGE_SIZE);
        let is_good = mapped.is_ok() && last.load(Ordering::Relaxed) == pages;
        let unmapped = raw::call_until_done(Call::MemoryUnmap, &[domain, address]);
        if !is_good || unmapped.is_err() {
            shared(1).fetch_add(1, Ordering::Relaxed);
        }
    }
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn everybody_at_once(context: &Context) -> Outcome {
    let memory = Memory::create(70 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 70 * PAGE_SIZE)?;
    {
        let mine = Mapping::new(*memory, 0, 70 * PAGE_SIZE, RW)?;
        for page in 0..70 {
            mine.word(page * PAGE_SIZE)?.store(page + 1, Ordering::Relaxed);
        }
    }
    let children = [Child::new()?, Child::new()?];
    let mut lights = Vec::new();
    for child in &children {
        let given = [child.give(*memory, RW)?, child.give(child.domain(), Rights::MANAGE)?];
        for cpu in 0..cpus() {
            let address = PLAYGROUND + u64::from(cpu) * (1 << 21);
            let words = [given[0], given[1], address, context.repeat(70, 700, 50_000)];
            lights.push(Builder::new(cpu).budget(100_000, 100_000).spawn(child.domain(), mapper, &words)?);
        }
    }
    for child in &children {
        let done = child.word(0)?;
        while done.load(Ordering::Acquire) < u64::from(cpus()) {
            probe::pause();
        }
        equal("mistakes", child.word(1)?.load(Ordering::Relaxed), 0)?;
    }
    equal("mappings", memory.info()?.mappings, 0)
}
