//! Large pages, alone and beside small ones.

use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights};
use dragonfly_rt::Mapping;
use dragonfly_rt::sys::{Commit, Domain, Memory, Object, System};

use super::{RW, committed};
use crate::check::{Outcome, equal, that};
use crate::light::{Child, PLAYGROUND};
use crate::probe;
use crate::raw;
use crate::tests::Context;

const LARGE: u64 = 2 << 20;

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

pub fn large_pages(_: &Context) -> Outcome {
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

pub fn alignments(_: &Context) -> Outcome {
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

pub fn mixed_pages(_: &Context) -> Outcome {
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
