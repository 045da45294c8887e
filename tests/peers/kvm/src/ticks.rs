//! Time, as guests measure it.
#![expect(unsafe_code, reason = "the compiler counts reading the time stamp counter as unsafe")]

use std::arch::x86_64::_rdtsc;

/// The time stamp counter.
#[must_use]
pub fn now() -> u64 {
    // SAFETY: each processor that has KVM has a time stamp counter.
    unsafe { _rdtsc() }
}
