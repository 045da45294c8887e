//! Frames: when an object takes them, who pays, and what is in them at first.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights};
use dragonfly_rt::sys::{Commit, Domain, DomainSettings, Gate, Memory};
use dragonfly_rt::{Mapping, cpus};

use super::{RW, committed};
use crate::check::{Failure, Outcome, equal, that};
use crate::light::{Builder, Child, PLAYGROUND, Words, shared, usual_settings};
use crate::probe::{self, expect_fault, expect_value};
use crate::raw;
use crate::tests::Context;

pub fn committing(_: &Context) -> Outcome {
    let used = Domain::OWN.info()?.used;
    let memory = Memory::create(16 * PAGE_SIZE, Commit::Explicit)?;
    let info = memory.info()?;
    equal("size, committed, mappings", (info.size, info.committed, info.mappings), (16 * PAGE_SIZE, 0, 0))?;
    let child = Child::new()?;
    memory.map(child.domain(), PLAYGROUND, 0, 16 * PAGE_SIZE, RW)?;
    let address = PLAYGROUND + 3 * PAGE_SIZE;
    let touched = probe::read(child.domain(), 0, address)?;
    that(touched.is_err_and(|fault| fault.is_page_fault(address, Rights::READ)), "an empty page could be read")?;
    memory.commit(3 * PAGE_SIZE, 2 * PAGE_SIZE)?;
    equal("committed", memory.info()?.committed, 2 * PAGE_SIZE)?;
    equal("what a committed page holds", probe::read(child.domain(), 0, address)?, Ok(0))?;
    memory.commit(0, 16 * PAGE_SIZE)?;
    memory.commit(0, 16 * PAGE_SIZE)?;
    equal("committed", memory.info()?.committed, 16 * PAGE_SIZE)?;
    equal("mappings", memory.info()?.mappings, 1)?;
    that(Domain::OWN.info()?.used >= used + 16 * PAGE_SIZE, "the maker does not pay")?;
    child.destroy()?;
    memory.close()?;
    equal("memory used after all is gone", Domain::OWN.info()?.used, used)
}

pub fn demand(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let memory = Memory::create(1 << 30, Commit::OnDemand)?;
        let child = Child::new()?;
        memory.map(child.domain(), PLAYGROUND, 0, 1 << 30, RW)?;
        equal("committed", memory.info()?.committed, 0)?;
        for (index, page) in [0_u64, 1, 7, 511, 512, 513, 100_000, (1 << 18) - 1].into_iter().enumerate() {
            let address = PLAYGROUND + page * PAGE_SIZE + 8 * index as u64;
            equal("a first read", probe::read(child.domain(), cpu, address)?, Ok(0))?;
            equal("a write", probe::write(child.domain(), cpu, address, page + 1)?.map(drop), Ok(()))?;
            equal("a read", probe::read(child.domain(), cpu, address)?, Ok(page + 1))?;
            equal("committed", memory.info()?.committed, (index as u64 + 1) * PAGE_SIZE)?;
        }
        // Some pages can be committed beforehand as well.
        memory.commit(2 * PAGE_SIZE, 2 * PAGE_SIZE)?;
        equal("committed", memory.info()?.committed, 10 * PAGE_SIZE)?;
    }
    Ok(())
}

pub fn fresh_memory_is_zero(context: &Context) -> Outcome {
    const SIZE: u64 = 4 << 20;
    for round in 0..context.repeat(3, 10, 100) {
        let memory = if round % 2 == 0 { committed(SIZE)? } else { Memory::create(SIZE, Commit::OnDemand)? };
        let mapping = Mapping::new(*memory, 0, SIZE, RW)?;
        for offset in (0..SIZE).step_by(8) {
            let word = mapping.word(offset)?;
            let found = word.swap(0x5ec7_e75e_c7e7_5ec7, Ordering::Relaxed);
            if found != 0 {
                return Err(Failure::new(format_args!("{found:#x} at {offset:#x} in round {round}")));
            }
        }
    }
    Ok(())
}

pub fn demand_without_quota(_: &Context) -> Outcome {
    // The child makes the object itself, so that it pays.
    let child = Child::with(&DomainSettings { quota: 256 * 1024, ..usual_settings() })?;
    let own = child.give(child.domain(), Rights::all())?;
    let gate = Gate::create()?;
    let light = Builder::new(0).fault_gate(*gate, 0).spawn(child.domain(), demander, &[own])?;
    let fault = expect_fault(*gate, "the fault")?;
    let touched = child.word(0)?.load(Ordering::Relaxed);
    that(touched > 5, format_args!("only {touched} pages could be touched"))?;
    that(
        fault.is_page_fault(PLAYGROUND + touched * PAGE_SIZE, Rights::WRITE),
        format_args!("page {touched}: {fault:x?}"),
    )?;
    let info = child.domain().info()?;
    that(info.used <= info.quota && info.quota - info.used < 3 * PAGE_SIZE, format_args!("the account has {info:?}"))?;
    dragonfly_rt::sys::reply(dragonfly_rt::sys::Message::new(2, [0; 4]))?;
    drop(light);
    child.destroy()
}

/// Makes an object on demand, maps it into domain 0, which is its own, and writes to page after page. Word 0 counts.
extern "C" fn demander(words: &Words) -> ! {
    let made = raw::call(Call::MemoryCreate, &[1 << 30, 1]).map_or(0, |results| results[0]);
    let _ = raw::call(Call::MemoryMap, &[made, words[0], PLAYGROUND, 0, 1 << 30, RW.bits().into()]);
    loop {
        let page = shared(0).load(Ordering::Relaxed);
        crate::light::word_at(PLAYGROUND + page * PAGE_SIZE).store(1, Ordering::Relaxed);
        shared(0).fetch_add(1, Ordering::Relaxed);
    }
}

/// Adds 1 to the first word of each page at words[0], words[1] pages, all threads in step by word 0.
extern "C" fn adder(words: &Words) -> ! {
    for page in 0..words[1] {
        shared(0).fetch_add(1, Ordering::Release);
        while shared(0).load(Ordering::Acquire) < (page + 1) * words[2] {
            core::hint::spin_loop();
        }
        crate::light::word_at(words[0] + page * PAGE_SIZE).fetch_add(1, Ordering::Relaxed);
    }
    shared(1).fetch_add(1, Ordering::Release);
    dragonfly_rt::sys::exit_thread()
}

pub fn simultaneous_touch(context: &Context) -> Outcome {
    let pages = context.repeat(100, 1000, 16_000);
    let memory = Memory::create(pages * PAGE_SIZE, Commit::OnDemand)?;
    let child = Child::with(&DomainSettings { quota: 4 << 20, ..usual_settings() })?;
    memory.map(child.domain(), PLAYGROUND, 0, pages * PAGE_SIZE, RW)?;
    let mut lights = Vec::new();
    for cpu in 0..cpus() {
        lights.push(child.spawn(cpu, adder, &[PLAYGROUND, pages, cpus().into()])?);
    }
    expect_value(child.word(1)?, cpus().into(), "all pages")?;
    equal("committed", memory.info()?.committed, pages * PAGE_SIZE)?;
    let mapping = Mapping::new(*memory, 0, pages * PAGE_SIZE, Rights::READ)?;
    for page in 0..pages {
        let found = mapping.word(page * PAGE_SIZE)?.load(Ordering::Relaxed);
        equal(format_args!("page {page}"), found, cpus().into())?;
    }
    Ok(())
}
