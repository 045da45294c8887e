//! Where devices find memory.

use dragonfly_abi::{PAGE_SIZE, Rights, Status};
use dragonfly_rt::sys::{Commit, Memory, Object, System};

use super::committed;
use crate::check::{Outcome, equal, refused, that};
use crate::tests::Context;

const LARGE: u64 = 2 << 20;

pub fn addresses(_: &Context) -> Outcome {
    let memory = Memory::create(2 * LARGE, Commit::OnDemand)?;
    refused("an address before there is a frame", System::OWN.memory_address(*memory, 0), Status::NotMapped)?;
    memory.commit(LARGE, LARGE)?;
    let first = System::OWN.memory_address(*memory, LARGE)?;
    equal("bytes in a row of a large page", first.length, LARGE)?;
    that(first.address.is_multiple_of(LARGE), format_args!("a large page at {:#x}", first.address))?;
    for offset in [1, 8, PAGE_SIZE, LARGE - 1] {
        let range = System::OWN.memory_address(*memory, LARGE + offset)?;
        let wanted = (first.address + offset, LARGE - offset);
        equal(format_args!("the range from {offset:#x} on"), (range.address, range.length), wanted)?;
    }
    refused("an address beside it", System::OWN.memory_address(*memory, LARGE - 1), Status::NotMapped)?;
    for offset in [2 * LARGE, 1 << 46, u64::MAX] {
        let range = System::OWN.memory_address(*memory, offset);
        refused(format_args!("an offset of {offset:#x}"), range, Status::BadArgument)?;
    }
    // What is committed later changes nothing of what was told.
    memory.commit(0, LARGE)?;
    equal("the address", System::OWN.memory_address(*memory, LARGE)?.address, first.address)
}

pub fn no_address(_: &Context) -> Outcome {
    let memory = committed(PAGE_SIZE)?;
    let device = System::OWN.device_memory(0xb_8000, PAGE_SIZE)?;
    refused("device memory's address", System::OWN.memory_address(*device, 0), Status::BadArgument)?;
    let weak = System::OWN.copy(Rights::all() - Rights::DMA, 0)?;
    refused("an address without DMA", weak.memory_address(*memory, 0), Status::Denied)?;
    let read_only = memory.copy(Rights::READ, 0)?;
    refused("an address of what may not be written", System::OWN.memory_address(*read_only, 0), Status::Denied)
}
