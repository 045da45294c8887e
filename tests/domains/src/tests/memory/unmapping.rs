//! Mappings that go.

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::Object;

use super::{RW, committed};
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Child, PLAYGROUND};
use crate::probe;
use crate::raw;
use crate::tests::Context;

pub fn unmapping(_: &Context) -> Outcome {
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

pub fn unmapping_what_is_not_there(_: &Context) -> Outcome {
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
