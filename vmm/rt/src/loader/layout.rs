//! Where things are in a domain that the loader starts.
//!
//! All but the heap lies in the first GiB, and what every domain has is close together: so a small domain needs few
//! pages for its page tables.

use dragonfly_abi::PAGE_SIZE;

use crate::stack::STACK_SIZE;

/// The first thread's stack: lowest address. The page below is not mapped.
pub const STACK: u64 = 0x0010_0000;

/// The start page.
pub const START_PAGE: u64 = 0x0012_0000;

/// The first thread's message buffer.
pub const MESSAGE_BUFFER: u64 = 0x0014_0000;

/// Lowest address of a program.
pub const PROGRAM_START: u64 = 0x0020_0000;

/// First address past what a program may occupy.
pub const PROGRAM_END: u64 = 0x4000_0000;

/// First address for the heap, stacks and mappings.
pub const HEAP_START: u64 = 0x1_0000_0000;

/// First address past them.
pub const HEAP_END: u64 = 0x100_0000_0000;

const _: () = {
    assert!(STACK.is_multiple_of(STACK_SIZE));
    assert!(STACK + STACK_SIZE + PAGE_SIZE <= START_PAGE);
    assert!(START_PAGE + 2 * PAGE_SIZE <= MESSAGE_BUFFER);
    assert!(MESSAGE_BUFFER + 2 * PAGE_SIZE <= PROGRAM_START);
    assert!(PROGRAM_END <= HEAP_START && HEAP_START < HEAP_END && HEAP_END <= dragonfly_abi::USER_END);
};
