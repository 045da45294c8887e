//! How long memory lasts: handles, mappings and owners that go.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status};
use dragonfly_rt::sys::{Commit, Domain, Memory, Object};
use dragonfly_rt::{Mapping, cpus};

use super::{RW, committed};
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Child, PLAYGROUND, Words, shared};
use crate::probe::{self, expect_value};
use crate::raw;
use crate::tests::Context;

pub fn mapping_keeps_memory(_: &Context) -> Outcome {
    let child = Child::new()?;
    let used = Domain::OWN.info()?.used;
    let memory = committed(64 * PAGE_SIZE)?;
    memory.map(child.domain(), PLAYGROUND, 0, 64 * PAGE_SIZE, RW)?;
    memory.close()?;
    equal("a read after the handle is closed", probe::read(child.domain(), 0, PLAYGROUND)?, Ok(0))?;
    raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), PLAYGROUND])?;
    equal("memory used after the last mapping is gone", Domain::OWN.info()?.used, used)?;
    // The same when the mapping goes with its domain.
    let memory = committed(64 * PAGE_SIZE)?;
    memory.map(child.domain(), PLAYGROUND, 0, 64 * PAGE_SIZE, RW)?;
    memory.close()?;
    child.destroy()?;
    that(Domain::OWN.info()?.used <= used, "memory is used after the domain with the last mapping is gone")
}

pub fn info_counts(_: &Context) -> Outcome {
    let memory = Memory::create(4 * PAGE_SIZE, Commit::OnDemand)?;
    let mut mappings = Vec::new();
    for count in 1..=20 {
        mappings.push(Mapping::new(*memory, 0, 4 * PAGE_SIZE, RW)?);
        equal("mappings", memory.info()?.mappings, count)?;
    }
    if let (Some(first), Some(last)) = (mappings.first(), mappings.last()) {
        first.word(16)?.store(9, Ordering::Relaxed);
        equal("what another mapping shows", last.word(16)?.load(Ordering::Relaxed), 9)?;
    }
    equal("committed", memory.info()?.committed, PAGE_SIZE)?;
    while mappings.pop().is_some() {
        equal("mappings", memory.info()?.mappings, mappings.len() as u64)?;
    }
    let blind = memory.copy(Rights::all() - Rights::READ, 0)?;
    refused("asking without READ", blind.info(), Status::Denied)
}

/// Makes committed memory, gives its handle to domain 0 and puts the number there into word 1.
extern "C" fn memory_maker(words: &Words) -> ! {
    let made = raw::call(Call::MemoryCreate, &[4 * PAGE_SIZE, 0]).map_or(0, |results| results[0]);
    let _ = raw::call_until_done(Call::MemoryCommit, &[made, 0, 4 * PAGE_SIZE]);
    let given =
        raw::call(Call::HandleCopy, &[made, words[0], Rights::all().bits().into()]).map_or(0, |results| results[0]);
    shared(1).store(given, Ordering::Relaxed);
    shared(0).store(1, Ordering::Release);
    loop {
        dragonfly_rt::sys::yield_thread();
    }
}

pub fn owner_goes(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let (owner, user) = (Child::new()?, Child::new()?);
        let own = owner.give(Domain::OWN, Rights::GRANT)?;
        let _thread = owner.spawn(0, memory_maker, &[own])?;
        expect_value(owner.word(0)?, 1, "the memory")?;
        let memory: Memory = crate::light::handle(owner.word(1)?.load(Ordering::Relaxed));
        memory.map(user.domain(), PLAYGROUND, 0, 4 * PAGE_SIZE, RW)?;
        equal("before", probe::read(user.domain(), cpu, PLAYGROUND)?, Ok(0))?;
        owner.destroy()?;
        refused("the handle", memory.info(), Status::BadHandle)?;
        let read = probe::read(user.domain(), cpu, PLAYGROUND)?;
        that(read.is_err_and(|fault| fault.is_page_fault(PLAYGROUND, Rights::READ)), "the memory is still mapped")?;
    }
    Ok(())
}
