//! Memory objects and mappings.

use dragonfly_abi::{Rights, Status};
use dragonfly_rt::sys::{Commit, Memory, Owned};

mod addresses;
mod committing;
mod large_pages;
mod lifetime;
mod mapping;
mod model;
mod unmapping;

super::tests! {
    "a new object is empty and takes frames when they are committed" => committing::committing,
    "an object that is committed on demand takes a frame at each first touch" => committing::demand,
    "fresh memory is zero, and so is memory that was used before" => committing::fresh_memory_is_zero,
    "a demand page that the account cannot pay is a fault" => committing::demand_without_quota,
    "memory is shared between domains at different addresses" => mapping::sharing,
    "a mapping of a part shows that part and nothing beside it" => mapping::parts,
    "what is mapped read-only cannot be written, what is not executable cannot be run" => mapping::rights_of_mappings,
    "nothing is ever mapped writable and executable" => mapping::no_writable_code,
    "a mapping has no right that its handle lacks" => mapping::mapping_needs_rights,
    "a mapping may not overlap another, at any end" => mapping::overlaps,
    "addresses and sizes that are not whole pages or out of range are refused" => mapping::bad_ranges,
    "removing a mapping takes all of it and only it" => unmapping::unmapping,
    "what is not the start of a mapping cannot be removed" => unmapping::unmapping_what_is_not_there,
    "a domain has 1,024 mappings and no more" => mapping::many_mappings,
    "a large object is committed and mapped by large pages where both fit" => large_pages::large_pages,
    "a large object shows the same at every alignment" => large_pages::alignments,
    "large and small pages of one object mix" => large_pages::mixed_pages,
    "memory goes with its last mapping when its handle went before" => lifetime::mapping_keeps_memory,
    "closing and committing while others map it leaves nothing behind" => lifetime::info_counts,
    "memory of a destroyed owner is gone from everybody" => lifetime::owner_goes,
    "a device finds memory where its frames are, as soon as there are some" => addresses::addresses,
    "no address is told without the right to ask, to read-only memory or to what is no RAM of domains" => addresses::no_address,
    "two threads that touch the same fresh page see one page" on 2 => committing::simultaneous_touch,
    "random maps, writes and unmaps agree with a model" within 120 => model::model,
}

const RW: Rights = Rights::READ.union(Rights::WRITE);
const RX: Rights = Rights::READ.union(Rights::EXECUTE);

fn committed(size: u64) -> Result<Owned<Memory>, Status> {
    let memory = Memory::create(size, Commit::Explicit)?;
    memory.commit(0, size)?;
    Ok(memory)
}
