//! Time, by the time-stamp counter, whose frequency is measured by the ACPI timer.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dragonfly_hw::x86::pmtimer::FREQUENCY_HZ;

use super::cpu;

/// The ACPI timer's port.
const PM_TIMER: u16 = 0x608;

static TICKS_PER_MS: AtomicU64 = AtomicU64::new(1_000_000);

/// The ACPI timer.
pub fn pm_timer() -> u32 {
    cpu::read_port(PM_TIMER)
}

/// Measures the frequency for 10 ms. A machine without the timer, whose port reads as ones, is taken to have 1 GHz.
pub(super) fn calibrate() {
    let wanted = FREQUENCY_HZ as u32 / 100;
    let (start_timer, start) = (pm_timer(), cpu::tsc());
    if start_timer == u32::MAX && pm_timer() == u32::MAX {
        return;
    }
    loop {
        let passed = pm_timer().wrapping_sub(start_timer);
        if passed >= wanted {
            let ticks = cpu::tsc().wrapping_sub(start);
            TICKS_PER_MS.store((ticks * FREQUENCY_HZ / u64::from(passed) / 1000).max(1), Relaxed);
            return;
        }
    }
}

/// Ticks of the counter in a millisecond.
pub fn ticks_per_ms() -> u64 {
    TICKS_PER_MS.load(Relaxed)
}

/// Waits until something is so, for so many milliseconds at most. Whether it is.
pub fn wait_until(patience_ms: u64, is_so: impl Fn() -> bool) -> bool {
    let start = cpu::tsc();
    while !is_so() {
        if cpu::tsc().wrapping_sub(start) > patience_ms * ticks_per_ms() {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}
