//! A host: no kernel, so nothing works that needs one.
#![expect(unsafe_code, reason = "the same signatures as on metal")]

use dragonfly_abi::Status;

/// # Safety
/// Always: it does nothing.
pub(crate) unsafe fn call<const N: usize>(_number: u32, _arguments: [u64; N]) -> (u64, [u64; 6]) {
    (Status::BadCall as u64, [0; 6])
}

pub(crate) fn stack_pointer() -> usize {
    unimplemented!("a host's threads have no control block")
}

pub(crate) fn stop() -> ! {
    panic!("the domain stopped")
}

pub(crate) fn thread_entry() -> u64 {
    0
}

pub(crate) fn hardware_random() -> Option<u64> {
    None
}

pub(crate) fn time_stamp() -> u64 {
    0
}
