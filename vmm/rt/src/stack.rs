//! Stacks, and what a thread finds at the bottom of its own.
//!
//! A domain has no segment base to point at per-thread data. So every stack has the same size and is aligned to it,
//! and its lowest bytes hold the thread's control block: the stack pointer tells where.
#![expect(unsafe_code, reason = "reads the control block through an address made of the stack pointer")]

use core::ptr;

use dragonfly_abi::{MessageBuffer, PAGE_SIZE};

use crate::arch;
use crate::sys::{Notification, Object};

/// Size and alignment of every stack in bytes.
pub const STACK_SIZE: u64 = 64 * 1024;

const _: () = assert!(STACK_SIZE.is_power_of_two() && STACK_SIZE >= 4 * PAGE_SIZE);

/// What a thread has of its own. Written before the thread runs Rust code and never changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlBlock {
    /// The thread's message buffer.
    pub(crate) message_buffer: *mut MessageBuffer,
    /// A notification that nobody else waits for, to sleep on.
    pub(crate) notification: Notification,
}

impl ControlBlock {
    /// Puts the block onto the stack whose lowest address this is.
    ///
    /// # Safety
    /// The stack is mapped, aligned to [`STACK_SIZE`], and no frame on it reaches down to the block.
    pub(crate) unsafe fn place(self, stack: u64) {
        // SAFETY: the address is mapped and aligned, and nobody else uses it: the caller's promise.
        unsafe { ptr::with_exposed_provenance_mut::<Self>(stack as usize).write(self) };
    }
}

/// The calling thread's block.
pub(crate) fn control_block() -> ControlBlock {
    let stack = arch::stack_pointer() & !(STACK_SIZE as usize - 1);
    // SAFETY: whoever started the thread placed a block there. Should the stack have grown into it, then the next
    // access below faults on the guard page; the block is plain data, and a wrong address in it faults as well.
    unsafe { ptr::with_exposed_provenance::<ControlBlock>(stack).read() }
}

/// The lowest address of the stack that ends at this address.
pub(crate) const fn bottom_of(stack_end: u64) -> u64 {
    stack_end.wrapping_sub(1) & !(STACK_SIZE - 1)
}

/// A block for a thread that has no notification yet.
pub(crate) fn first_block(message_buffer: u64) -> ControlBlock {
    ControlBlock {
        message_buffer: ptr::with_exposed_provenance_mut(message_buffer as usize),
        notification: Notification::from_handle(dragonfly_abi::Handle::NULL),
    }
}
