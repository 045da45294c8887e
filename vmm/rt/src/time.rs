//! The clock and sleeping.

use core::time::Duration;

use crate::stack::control_block;
use crate::{arch, sys};

/// Time since the kernel started.
#[must_use]
pub fn now() -> Duration {
    Duration::from_nanos(sys::clock_now_ns())
}

/// The CPU's time-stamp counter; [`StartInfo::tsc_hz`](dragonfly_abi::StartInfo) is its frequency.
#[inline(always)]
#[must_use]
pub fn time_stamp() -> u64 {
    arch::time_stamp()
}

/// Lets the calling thread sleep for so long at least.
pub fn sleep(duration: Duration) {
    sleep_ns(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
}

/// Lets the calling thread sleep for so many nanoseconds at least.
pub(crate) fn sleep_ns(duration_ns: u64) {
    // Nobody signals the thread's own notification, so this ends when the time is up.
    let _ = control_block().notification.wait_timed(duration_ns);
}
