//! Memory objects and mappings.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_rt::sys::{Commit, Domain, DomainSettings, Gate, Memory, Object, Owned, System};
use dragonfly_rt::{Mapping, cpus};

use super::Context;
use crate::check::{Failure, Outcome, equal, refused, that};
use crate::light::{Builder, Child, PLAYGROUND, Words, shared, usual_settings};
use crate::probe::{self, expect_fault, expect_value};
use crate::random::Random;
use crate::raw;

super::tests! {
    "a new object is empty and takes frames when they are committed" => committing,
    "an object that is committed on demand takes a frame at each first touch" => demand,
    "fresh memory is zero, and so is memory that was used before" => fresh_memory_is_zero,
    "a demand page that the account cannot pay is a fault" => demand_without_quota,
    "memory is shared between domains at different addresses" => sharing,
    "a mapping of a part shows that part and nothing beside it" => parts,
    "what is mapped read-only cannot be written, what is not executable cannot be run" => rights_of_mappings,
    "nothing is ever mapped writable and executable" => no_writable_code,
    "a mapping has no right that its handle lacks" => mapping_needs_rights,
    "a mapping may not overlap another, at any end" => overlaps,
    "addresses and sizes that are not whole pages or out of range are refused" => bad_ranges,
    "removing a mapping takes all of it and only it" => unmapping,
    "what is not the start of a mapping cannot be removed" => unmapping_what_is_not_there,
    "a domain has 1,024 mappings and no more" => many_mappings,
    "a large object is committed and mapped by large pages where both fit" => large_pages,
    "a large object shows the same at every alignment" => alignments,
    "large and small pages of one object mix" => mixed_pages,
    "memory goes with its last mapping when its handle went before" => mapping_keeps_memory,
    "closing and committing while others map it leaves nothing behind" => info_counts,
    "memory of a destroyed owner is gone from everybody" => owner_goes,
    "two threads that touch the same fresh page see one page" on 2 => simultaneous_touch,
    "random maps, writes and unmaps agree with a model" within 120 => model,
}

const LARGE: u64 = 2 << 20;
const RW: Rights = Rights::READ.union(Rights::WRITE);
const RX: Rights = Rights::READ.union(Rights::EXECUTE);

fn committed(size: u64) -> Result<Owned<Memory>, Status> {
    let memory = Memory::create(size, Commit::Explicit)?;
    memory.commit(0, size)?;
    Ok(memory)
}

fn committing(_: &Context) -> Outcome {
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

fn demand(_: &Context) -> Outcome {
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

fn fresh_memory_is_zero(context: &Context) -> Outcome {
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

fn demand_without_quota(_: &Context) -> Outcome {
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

fn sharing(_: &Context) -> Outcome {
    let memory = committed(4 * PAGE_SIZE)?;
    let mapping = Mapping::new(*memory, 0, 4 * PAGE_SIZE, RW)?;
    let children = [Child::new()?, Child::new()?];
    for (index, child) in children.iter().enumerate() {
        let address = PLAYGROUND + index as u64 * (1 << 30);
        memory.map(child.domain(), address, 0, 4 * PAGE_SIZE, RW)?;
        for cpu in 0..cpus() {
            let value = 100 * (index as u64 + 1) + u64::from(cpu);
            mapping.word(8)?.store(value, Ordering::Release);
            equal("what the child reads", probe::read(child.domain(), cpu, address + 8)?, Ok(value))?;
            probe::write(child.domain(), cpu, address + 3 * PAGE_SIZE, value)?.map_err(|fault| Failure::new(format_args!("{fault:x?}")))?;
            equal("what the child wrote", mapping.word(3 * PAGE_SIZE)?.load(Ordering::Acquire), value)?;
        }
    }
    equal("mappings", memory.info()?.mappings, 3)
}

fn parts(_: &Context) -> Outcome {
    let memory = committed(8 * PAGE_SIZE)?;
    let all = Mapping::new(*memory, 0, 8 * PAGE_SIZE, RW)?;
    for page in 0..8 {
        all.word(page * PAGE_SIZE)?.store(page + 1, Ordering::Relaxed);
    }
    let child = Child::new()?;
    // The same part twice, in another order, beside each other.
    memory.map(child.domain(), PLAYGROUND, 5 * PAGE_SIZE, 2 * PAGE_SIZE, Rights::READ)?;
    memory.map(child.domain(), PLAYGROUND + 2 * PAGE_SIZE, 0, PAGE_SIZE, Rights::READ)?;
    memory.map(child.domain(), PLAYGROUND + 3 * PAGE_SIZE, 5 * PAGE_SIZE, PAGE_SIZE, Rights::READ)?;
    for (index, wanted) in [6, 7, 1, 6].into_iter().enumerate() {
        let address = PLAYGROUND + index as u64 * PAGE_SIZE;
        equal(format_args!("page {index}"), probe::read(child.domain(), 0, address)?, Ok(wanted))?;
    }
    for address in [PLAYGROUND - 8, PLAYGROUND + 4 * PAGE_SIZE] {
        let beside = probe::read(child.domain(), 0, address)?;
        that(beside.is_err(), format_args!("{address:#x} beside the mappings can be read"))?;
    }
    Ok(())
}

fn rights_of_mappings(_: &Context) -> Outcome {
    let memory = committed(PAGE_SIZE)?;
    let mapping = Mapping::new(*memory, 0, PAGE_SIZE, RW)?;
    // A `ret`, so that running it comes back.
    mapping.write(0, &[0xc3])?;
    for cpu in 0..cpus() {
        for rights in [Rights::READ, RW, RX] {
            let child = Child::new()?;
            let domain = child.domain();
            memory.map(domain, PLAYGROUND, 0, PAGE_SIZE, rights)?;
            let tried = [
                (Rights::READ, probe::read(domain, cpu, PLAYGROUND + 64)?.map(drop)),
                (Rights::WRITE, probe::write(domain, cpu, PLAYGROUND + 64, 1)?.map(drop)),
                (Rights::EXECUTE, probe::execute(domain, cpu, PLAYGROUND)?.map(drop)),
            ];
            for (access, result) in tried {
                let wanted = rights.contains(access);
                equal(format_args!("{access:?} of {rights:?} on CPU {cpu} works"), result.is_ok(), wanted)?;
                if let Err(fault) = result {
                    that(fault.words[2] == u64::from(access.bits()), format_args!("{access:?} gave {fault:x?}"))?;
                }
            }
        }
    }
    Ok(())
}

fn no_writable_code(_: &Context) -> Outcome {
    let memory = committed(PAGE_SIZE)?;
    let child = Child::new()?;
    for bits in 0..1 << 11 {
        let Some(rights) = Rights::from_bits(bits) else { continue };
        let mapped = memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, rights);
        if [Rights::READ, RW, RX].contains(&rights) {
            equal(format_args!("{rights:?}"), mapped, Ok(()))?;
            raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), PLAYGROUND])?;
        } else {
            refused(format_args!("{rights:?}"), mapped, Status::BadArgument)?;
        }
    }
    for rights in [1 << 11, 1 << 31, 1 << 32 | 2, u64::MAX] {
        let words = [memory.handle().0.into(), child.domain().handle().0.into(), PLAYGROUND, 0, PAGE_SIZE, rights];
        refused(format_args!("rights {rights:#x}"), raw::call(Call::MemoryMap, &words), Status::BadArgument)?;
    }
    // The same frames may be writable here and executable there, which the makers of programs need.
    memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, RW)?;
    Ok(memory.map(child.domain(), PLAYGROUND + PAGE_SIZE, 0, PAGE_SIZE, RX)?)
}

fn mapping_needs_rights(_: &Context) -> Outcome {
    let memory = committed(PAGE_SIZE)?;
    let child = Child::new()?;
    for have in [Rights::empty(), Rights::READ, RW, RX, Rights::WRITE | Rights::EXECUTE] {
        let copy = memory.copy(have, 0)?;
        for want in [Rights::READ, RW, RX] {
            let mapped = copy.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, want);
            let wanted = if have.contains(want) { Ok(()) } else { Err(Status::Denied) };
            equal(format_args!("{want:?} through {have:?}"), mapped, wanted)?;
            if mapped.is_ok() {
                raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), PLAYGROUND])?;
            }
        }
    }
    let weak = child.domain().copy(Rights::all() - Rights::MANAGE, 0)?;
    refused("without MANAGE", memory.map(*weak, PLAYGROUND, 0, PAGE_SIZE, Rights::READ), Status::Denied)?;
    let unmapped = raw::call(Call::MemoryUnmap, &[weak.handle().0.into(), PLAYGROUND]);
    refused("removing without MANAGE", unmapped, Status::Denied)
}

fn overlaps(_: &Context) -> Outcome {
    let memory = committed(8 * PAGE_SIZE)?;
    let child = Child::new()?;
    let map = |page: u64, pages: u64| {
        memory.map(child.domain(), PLAYGROUND + page * PAGE_SIZE, 0, pages * PAGE_SIZE, Rights::READ)
    };
    map(4, 2)?;
    for (page, pages) in [(4, 2), (4, 1), (5, 1), (3, 2), (3, 8), (5, 2), (0, 5)] {
        refused(format_args!("{pages} pages at {page}"), map(page, pages), Status::Overlap)?;
    }
    map(3, 1)?;
    map(6, 2)?;
    // A thread's message buffer and the program's text are in the way as well.
    let light = child.spawn(0, waiter, &[])?;
    let buffer = memory.map(child.domain(), light.message_buffer(), 0, PAGE_SIZE, Rights::READ);
    refused("a thread's message buffer", buffer, Status::Overlap)?;
    let text = memory.map(child.domain(), 0x20_0000, 0, PAGE_SIZE, Rights::READ);
    refused("the program's text", text, Status::Overlap)
}

extern "C" fn waiter(_: &Words) -> ! {
    shared(0).store(1, Ordering::Release);
    loop {
        dragonfly_rt::sys::yield_thread();
    }
}

fn bad_ranges(_: &Context) -> Outcome {
    let memory = committed(4 * PAGE_SIZE)?;
    let child = Child::new()?;
    let map = |address, offset, size| memory.map(child.domain(), address, offset, size, Rights::READ);
    for (address, offset, size) in [
        (PLAYGROUND, 0, 0),
        (PLAYGROUND, 0, 1),
        (PLAYGROUND, 0, PAGE_SIZE - 1),
        (PLAYGROUND, 1, PAGE_SIZE),
        (PLAYGROUND + 1, 0, PAGE_SIZE),
        (PLAYGROUND, 0, 5 * PAGE_SIZE),
        (PLAYGROUND, 4 * PAGE_SIZE, PAGE_SIZE),
        (PLAYGROUND, PAGE_SIZE, 4 * PAGE_SIZE),
        (PLAYGROUND, u64::MAX - 4095, PAGE_SIZE),
        (PLAYGROUND, PAGE_SIZE, u64::MAX - 4095),
        (0, 0, PAGE_SIZE),
        (USER_END, 0, PAGE_SIZE),
        (USER_END - PAGE_SIZE, 0, 2 * PAGE_SIZE),
        (1 << 47, 0, PAGE_SIZE),
        (0xffff_8000_0000_0000, 0, PAGE_SIZE),
        (u64::MAX - 4095, 0, PAGE_SIZE),
    ] {
        refused(format_args!("{size:#x} bytes from {offset:#x} at {address:#x}"), map(address, offset, size), Status::BadArgument)?;
    }
    map(PAGE_SIZE, 0, PAGE_SIZE)?;
    map(USER_END - PAGE_SIZE, 0, PAGE_SIZE)?;
    for (offset, size) in [(0, 0), (1, PAGE_SIZE), (0, 100), (4 * PAGE_SIZE, PAGE_SIZE), (0, 5 * PAGE_SIZE), (u64::MAX - 4095, 8192)] {
        refused(format_args!("committing {size:#x} at {offset:#x}"), memory.commit(offset, size), Status::BadArgument)?;
    }
    for size in [0, 1, 4095, 4097, (1 << 46) + PAGE_SIZE, 1 << 63, u64::MAX, u64::MAX - 4095] {
        refused(format_args!("an object of {size:#x}"), Memory::create(size, Commit::Explicit), Status::BadArgument)?;
    }
    for flags in [2, 3, 1 << 32, u64::MAX] {
        refused(format_args!("flags {flags:#x}"), raw::call(Call::MemoryCreate, &[PAGE_SIZE, flags]), Status::BadArgument)?;
    }
    equal("the largest object", Memory::create(1 << 46, Commit::OnDemand)?.info()?.size, 1 << 46)
}

fn unmapping(_: &Context) -> Outcome {
    let memory = committed(64 * PAGE_SIZE)?;
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let domain = u64::from(child.domain().handle().0);
        for (number, pages) in [1_u64, 16, 3].into_iter().enumerate() {
            memory.map(child.domain(), PLAYGROUND + number as u64 * 16 * PAGE_SIZE, 0, pages * PAGE_SIZE, RW)?;
        }
        let middle = PLAYGROUND + 16 * PAGE_SIZE;
        equal("before", probe::read(child.domain(), cpu, middle)?, Ok(0))?;
        raw::call_until_done(Call::MemoryUnmap, &[domain, middle])?;
        for page in 0..16 {
            let address = middle + page * PAGE_SIZE;
            let read = probe::read(child.domain(), cpu, address)?;
            that(read.is_err_and(|fault| fault.is_page_fault(address, Rights::READ)), "an unmapped page can be read")?;
        }
        equal("the one below", probe::read(child.domain(), cpu, PLAYGROUND)?, Ok(0))?;
        equal("the one above", probe::read(child.domain(), cpu, PLAYGROUND + 34 * PAGE_SIZE)?, Ok(0))?;
        equal("mappings", memory.info()?.mappings, 2)?;
        memory.map(child.domain(), middle, 0, PAGE_SIZE, RW)?;
        equal("mapped anew", probe::read(child.domain(), cpu, middle)?, Ok(0))?;
    }
    Ok(())
}

fn unmapping_what_is_not_there(_: &Context) -> Outcome {
    let memory = committed(4 * PAGE_SIZE)?;
    let child = Child::new()?;
    let domain = u64::from(child.domain().handle().0);
    memory.map(child.domain(), PLAYGROUND, 0, 4 * PAGE_SIZE, RW)?;
    for address in [
        0,
        PLAYGROUND - PAGE_SIZE,
        PLAYGROUND + PAGE_SIZE,
        PLAYGROUND + 1,
        PLAYGROUND + 4 * PAGE_SIZE,
        USER_END,
        1 << 47,
        0xffff_8000_0000_0000,
        u64::MAX,
    ] {
        let removed = raw::call(Call::MemoryUnmap, &[domain, address]);
        refused(format_args!("removing {address:#x}"), removed, Status::NotMapped)?;
    }
    raw::call_until_done(Call::MemoryUnmap, &[domain, PLAYGROUND])?;
    refused("a second time", raw::call(Call::MemoryUnmap, &[domain, PLAYGROUND]), Status::NotMapped)
}

fn many_mappings(_: &Context) -> Outcome {
    let memory = committed(PAGE_SIZE)?;
    let child = Child::with(&DomainSettings { quota: 8 << 20, ..usual_settings() })?;
    let before = memory.info()?.mappings;
    let status = loop {
        let number = memory.info()?.mappings - before;
        if let Err(status) = memory.map(child.domain(), PLAYGROUND + number * 2 * PAGE_SIZE, 0, PAGE_SIZE, Rights::READ) {
            break status;
        }
    };
    equal("status", status, Status::NoHandles)?;
    // The program's text and data and the shared page are mappings too.
    let made = memory.info()?.mappings - before;
    that((1000..=1024).contains(&made), format_args!("{made} mappings"))?;
    equal("the first", probe_page(&child, PLAYGROUND)?, Ok(0))?;
    child.destroy()?;
    equal("mappings after the domain went", memory.info()?.mappings, before)
}

/// A read that needs no mapping of its own: through a thread that runs already would be best, but its stack is a
/// mapping. So one mapping is removed first.
fn probe_page(child: &Child, address: u64) -> Outcome<Result<u64, probe::Fault>> {
    let domain = u64::from(child.domain().handle().0);
    for number in 1..4 {
        raw::call_until_done(Call::MemoryUnmap, &[domain, PLAYGROUND + number * 2 * PAGE_SIZE])?;
    }
    probe::read(child.domain(), 0, address)
}

/// Page-table leaves that this domain's threads run with, the kernel's included: those stay the same.
fn leaves() -> Outcome<u64> {
    let (mut sum, mut from) = (0, 0);
    loop {
        let step = System::OWN.audit_page_tables(from)?;
        sum += step.leaves;
        match step.next {
            Some(next) => from = next,
            None => return Ok(sum),
        }
    }
}

fn large_pages(_: &Context) -> Outcome {
    let memory = committed(4 * LARGE)?;
    let touch = |mapping: &Mapping| -> Outcome {
        for offset in (0..mapping.size()).step_by(PAGE_SIZE as usize) {
            mapping.word(offset)?.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    // Once beforehand: what the program itself touches first is in the figures then.
    touch(&Mapping::new(*memory, 0, 4 * LARGE, RW)?)?;
    leaves()?;
    let before = leaves()?;
    let mapping = Mapping::new(*memory, 0, 4 * LARGE, RW)?;
    touch(&mapping)?;
    equal("leaves for four large pages", leaves()? - before, 4)?;
    drop(mapping);
    equal("leaves after", leaves()?, before)?;
    // An offset that is no multiple of the large page: small pages.
    let mapping = Mapping::new(*memory, PAGE_SIZE, LARGE, RW)?;
    touch(&mapping)?;
    equal("leaves for a large part at an odd offset", leaves()? - before, 512)
}

fn alignments(_: &Context) -> Outcome {
    let size = 3 * LARGE;
    let memory = committed(size)?;
    {
        let all = Mapping::new(*memory, 0, size, RW)?;
        for offset in (0..size).step_by(PAGE_SIZE as usize) {
            all.word(offset)?.store(offset + 1, Ordering::Relaxed);
        }
    }
    let child = Child::new()?;
    for (shift, offset, length) in [
        (0, 0, size),
        (PAGE_SIZE, 0, size),
        (0, PAGE_SIZE, size - PAGE_SIZE),
        (PAGE_SIZE, PAGE_SIZE, size - PAGE_SIZE),
        (LARGE - PAGE_SIZE, LARGE - PAGE_SIZE, LARGE + 2 * PAGE_SIZE),
        (0, LARGE, LARGE),
    ] {
        let address = PLAYGROUND + shift;
        memory.map(child.domain(), address, offset, length, Rights::READ)?;
        for at in [0, PAGE_SIZE, LARGE - PAGE_SIZE, LARGE, LARGE + PAGE_SIZE, length - PAGE_SIZE] {
            if at < length {
                let found = probe::read(child.domain(), 0, address + at)?;
                equal(format_args!("{at:#x} from {offset:#x} at {address:#x}"), found, Ok(offset + at + 1))?;
            }
        }
        raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), address])?;
    }
    Ok(())
}

fn mixed_pages(_: &Context) -> Outcome {
    let used = Domain::OWN.info()?.used;
    {
        let memory = Memory::create(4 * LARGE, Commit::OnDemand)?;
        let mapping = Mapping::new(*memory, 0, 4 * LARGE, RW)?;
        // One page here and there first, then all of it.
        for page in [1, 512, 1024 + 511, 3 * 512] {
            mapping.word(page * PAGE_SIZE)?.store(page, Ordering::Relaxed);
        }
        memory.commit(0, 4 * LARGE)?;
        equal("committed", memory.info()?.committed, 4 * LARGE)?;
        for page in 0..4 * 512 {
            let wanted = if [1, 512, 1024 + 511, 3 * 512].contains(&page) { page } else { 0 };
            equal(format_args!("page {page}"), mapping.word(page * PAGE_SIZE)?.load(Ordering::Relaxed), wanted)?;
        }
    }
    // The tables of the place where it was mapped may stay until the domain ends.
    let left = Domain::OWN.info()?.used - used;
    that(left <= 8 * PAGE_SIZE, format_args!("{left} bytes are not back"))
}

fn mapping_keeps_memory(_: &Context) -> Outcome {
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

fn info_counts(_: &Context) -> Outcome {
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
    let given = raw::call(Call::HandleCopy, &[made, words[0], Rights::all().bits().into()]).map_or(0, |results| results[0]);
    shared(1).store(given, Ordering::Relaxed);
    shared(0).store(1, Ordering::Release);
    loop {
        dragonfly_rt::sys::yield_thread();
    }
}

fn owner_goes(_: &Context) -> Outcome {
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

fn simultaneous_touch(context: &Context) -> Outcome {
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

/// Random mappings of one object in this domain, beside a model of what each page holds.
fn model(context: &Context) -> Outcome {
    const PAGES: u64 = 1200;
    let mut random = Random::new(context.options.seed.unwrap_or(3));
    let memory = Memory::create(PAGES * PAGE_SIZE, Commit::OnDemand)?;
    let mut content = vec![0_u64; PAGES as usize];
    let mut mappings: Vec<(u64, Mapping, bool)> = Vec::new();
    for step in 1..=context.repeat(1000, 10_000, 200_000) {
        match random.below(10) {
            0 | 1 => {
                let first = random.below(PAGES);
                let most = random.choose(&[1, 8, 600]);
                let pages = 1 + random.below((PAGES - first).min(most));
                let is_writable = random.once_in(2);
                let rights = if is_writable { RW } else { Rights::READ };
                let mapping = Mapping::new(*memory, first * PAGE_SIZE, pages * PAGE_SIZE, rights)?;
                mappings.push((first, mapping, is_writable));
            }
            2 if !mappings.is_empty() => {
                drop(mappings.swap_remove(random.below(mappings.len() as u64) as usize));
            }
            3 => {
                let first = random.below(PAGES);
                memory.commit(first * PAGE_SIZE, (1 + random.below((PAGES - first).min(16))) * PAGE_SIZE)?;
            }
            _ if !mappings.is_empty() => {
                let Some((first, mapping, is_writable)) = mappings.get(random.below(mappings.len() as u64) as usize) else {
                    continue;
                };
                let page = random.below(mapping.size() / PAGE_SIZE);
                let word = mapping.word(page * PAGE_SIZE)?;
                let Some(wanted) = content.get_mut((first + page) as usize) else { continue };
                equal(format_args!("page {} in step {step}", first + page), word.load(Ordering::Relaxed), *wanted)?;
                if *is_writable {
                    *wanted = step;
                    word.store(step, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        if mappings.len() > 40 {
            mappings.clear();
        }
    }
    equal("mappings", memory.info()?.mappings, mappings.len() as u64)
}
