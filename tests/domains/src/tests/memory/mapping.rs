//! What a mapping shows, what it needs, and what is refused.

use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_rt::sys::{Commit, DomainSettings, Memory, Object};
use dragonfly_rt::{Mapping, cpus};

use super::{RW, RX, committed};
use crate::check::{Failure, Outcome, equal, refused, that};
use crate::light::{Child, PLAYGROUND, Words, shared, usual_settings};
use crate::probe;
use crate::raw;
use crate::tests::Context;

pub fn sharing(_: &Context) -> Outcome {
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
            probe::write(child.domain(), cpu, address + 3 * PAGE_SIZE, value)?
                .map_err(|fault| Failure::new(format_args!("{fault:x?}")))?;
            equal("what the child wrote", mapping.word(3 * PAGE_SIZE)?.load(Ordering::Acquire), value)?;
        }
    }
    equal("mappings", memory.info()?.mappings, 3)
}

pub fn parts(_: &Context) -> Outcome {
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

pub fn rights_of_mappings(_: &Context) -> Outcome {
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

pub fn no_writable_code(_: &Context) -> Outcome {
    let memory = committed(PAGE_SIZE)?;
    let child = Child::new()?;
    for bits in 0..1 << 12 {
        let Some(rights) = Rights::from_bits(bits) else { continue };
        let mapped = memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, rights);
        if [Rights::READ, RW, RX].contains(&rights) {
            equal(format_args!("{rights:?}"), mapped, Ok(()))?;
            raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), PLAYGROUND])?;
        } else {
            refused(format_args!("{rights:?}"), mapped, Status::BadArgument)?;
        }
    }
    for rights in [1 << 12, 1 << 31, 1 << 32 | 2, u64::MAX] {
        let words = [memory.handle().0.into(), child.domain().handle().0.into(), PLAYGROUND, 0, PAGE_SIZE, rights];
        refused(format_args!("rights {rights:#x}"), raw::call(Call::MemoryMap, &words), Status::BadArgument)?;
    }
    // The same frames may be writable here and executable there, which the makers of programs need.
    memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, RW)?;
    Ok(memory.map(child.domain(), PLAYGROUND + PAGE_SIZE, 0, PAGE_SIZE, RX)?)
}

pub fn mapping_needs_rights(_: &Context) -> Outcome {
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

pub fn overlaps(_: &Context) -> Outcome {
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

pub fn bad_ranges(_: &Context) -> Outcome {
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
        refused(
            format_args!("{size:#x} bytes from {offset:#x} at {address:#x}"),
            map(address, offset, size),
            Status::BadArgument,
        )?;
    }
    map(PAGE_SIZE, 0, PAGE_SIZE)?;
    map(USER_END - PAGE_SIZE, 0, PAGE_SIZE)?;
    for (offset, size) in
        [(0, 0), (1, PAGE_SIZE), (0, 100), (4 * PAGE_SIZE, PAGE_SIZE), (0, 5 * PAGE_SIZE), (u64::MAX - 4095, 8192)]
    {
        refused(format_args!("committing {size:#x} at {offset:#x}"), memory.commit(offset, size), Status::BadArgument)?;
    }
    for size in [0, 1, 4095, 4097, (1 << 46) + PAGE_SIZE, 1 << 63, u64::MAX, u64::MAX - 4095] {
        refused(format_args!("an object of {size:#x}"), Memory::create(size, Commit::Explicit), Status::BadArgument)?;
    }
    for flags in [2, 3, 1 << 32, u64::MAX] {
        refused(
            format_args!("flags {flags:#x}"),
            raw::call(Call::MemoryCreate, &[PAGE_SIZE, flags]),
            Status::BadArgument,
        )?;
    }
    equal("the largest object", Memory::create(1 << 46, Commit::OnDemand)?.info()?.size, 1 << 46)
}

pub fn many_mappings(_: &Context) -> Outcome {
    let memory = committed(PAGE_SIZE)?;
    let child = Child::with(&DomainSettings { quota: 8 << 20, ..usual_settings() })?;
    let before = memory.info()?.mappings;
    let status = loop {
        let number = memory.info()?.mappings - before;
        if let Err(status) = memory.map(child.domain(), PLAYGROUND + number * 2 * PAGE_SIZE, 0, PAGE_SIZE, Rights::READ)
        {
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
