//! Clocks.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use dragonfly_guest_kit::cpu::{self, peek};
use dragonfly_guest_kit::time::{pm_timer, ticks_per_ms, wait_until};
use dragonfly_guest_kit::{Check, ensure, equal, smp};
use dragonfly_hw::x86::pmtimer::FREQUENCY_HZ;

static LAST: AtomicU64 = AtomicU64::new(0);
static BACKWARDS: AtomicU64 = AtomicU64::new(0);
static READY: AtomicUsize = AtomicUsize::new(0);

/// Reads the counter by turns with others: what is read later is never less.
fn look(_: u64) {
    READY.fetch_add(1, SeqCst);
    let start = cpu::tsc();
    while cpu::tsc().wrapping_sub(start) < 20 * ticks_per_ms() {
        let last = LAST.load(SeqCst);
        let now = cpu::tsc();
        if now < last {
            BACKWARDS.fetch_max(last - now, SeqCst);
        }
        LAST.fetch_max(now, SeqCst);
    }
}

pub fn the_counter_never_goes_back() -> Check {
    (1..smp::cpus()).try_for_each(|number| ensure("a CPU starts", smp::is_up(number) || smp::start(number)))?;
    [&LAST, &BACKWARDS].iter().for_each(|number| number.store(0, SeqCst));
    READY.store(0, SeqCst);
    (1..smp::cpus()).for_each(|number| smp::give(number, look, 0));
    look(0);
    (1..smp::cpus()).try_for_each(|number| ensure("a CPU ends", smp::wait(number, 8000)))?;
    equal("CPUs that looked", READY.load(SeqCst) as u64, smp::cpus() as u64)?;
    equal("ticks backwards", BACKWARDS.load(SeqCst), 0)
}

/// The board's timer, between two looks at it the counter, and how far the looks were apart.
fn look_at_both() -> (u32, u64, u32) {
    let before = pm_timer();
    let ticks = cpu::tsc();
    (before, ticks, pm_timer().wrapping_sub(before))
}

/// Leaf 15h tells the frequency in Hz by a ratio to a crystal's (SDM 2A, "CPUID"), KVM's in kHz.
pub fn the_counter_has_the_frequency_that_is_told() -> Check {
    let told_khz = u64::from(cpu::cpuid(0x4000_0010, 0)[0]);
    ensure("it is told", told_khz != 0)?;
    let [divisor, factor, crystal_hz, _] = cpu::cpuid(0x15, 0).map(u64::from);
    if cpu::cpuid(0, 0)[0] >= 0x15 && divisor != 0 && crystal_hz != 0 {
        let by_crystal_khz = crystal_hz * factor / divisor / 1000;
        ensure("both leaves agree", by_crystal_khz.abs_diff(told_khz) <= told_khz / 1000)?;
    }
    let (start, start_ticks, start_gap) = look_at_both();
    wait_until(60, || false);
    let (end, end_ticks, end_gap) = look_at_both();
    let in_ticks = |by_timer: u32| u64::from(by_timer) * told_khz * 1000 / FREQUENCY_HZ;
    let (passed, expected) = (end_ticks.wrapping_sub(start_ticks), in_ticks(end.wrapping_sub(start)));
    // The host may be away between two looks.
    if passed.abs_diff(expected) > expected / 100 + in_ticks(start_gap + end_gap) {
        return equal("ticks", passed, expected);
    }
    Ok(())
}

#[repr(C, align(64))]
struct Shared(UnsafeCell<[u32; 16]>);

// SAFETY: written by the hypervisor, read by volatile accesses.
unsafe impl Sync for Shared {}

static SYSTEM_TIME: Shared = Shared(UnsafeCell::new([0; 16]));
static WALL_CLOCK: Shared = Shared(UnsafeCell::new([0; 16]));

const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;

/// Nanoseconds by the structure at `address` (Linux, `pvclock_read_cycles`).
fn nanoseconds(address: u64) -> u64 {
    loop {
        let version: u32 = peek(address);
        let (stamp, system): (u64, u64) = (peek(address + 8), peek(address + 16));
        let (multiplier, shift): (u32, i8) = (peek(address + 24), peek(address + 28));
        let ticks = cpu::tsc().wrapping_sub(stamp);
        let shifted = if shift < 0 { ticks >> -shift } else { ticks << shift };
        let now = system + ((u128::from(shifted) * u128::from(multiplier)) >> 32) as u64;
        if version & 1 == 0 && peek::<u32>(address) == version {
            return now;
        }
    }
}

pub fn the_paravirtual_clock() -> Check {
    let features = cpu::cpuid(0x4000_0001, 0)[0];
    ensure("the feature", features & 1 << 3 != 0)?;
    let (time, wall) = (SYSTEM_TIME.0.get().expose_provenance(), WALL_CLOCK.0.get().expose_provenance());
    let (time, wall) = (time as u64, wall as u64);
    cpu::write_msr(MSR_WALL_CLOCK, wall);
    cpu::write_msr(MSR_SYSTEM_TIME, time | 1);
    equal("where it is", cpu::read_msr(MSR_SYSTEM_TIME), time | 1)?;
    ensure("it was written", peek::<u32>(time) != 0 && peek::<u32>(time) & 1 == 0)?;
    ensure("the day was written", peek::<u32>(wall) != 0 && peek::<u32>(wall + 4) > 1_600_000_000)?;
    let (start, start_timer) = (nanoseconds(time), pm_timer());
    wait_until(50, || false);
    let (end, end_timer) = (nanoseconds(time), pm_timer());
    let by_timer = u64::from(end_timer.wrapping_sub(start_timer)) * 1_000_000_000 / FREQUENCY_HZ;
    let passed = end.wrapping_sub(start);
    // The two are read one after the other, and the host may be away in between.
    if passed.abs_diff(by_timer) > by_timer / 100 + 10_000_000 {
        return equal("nanoseconds", passed, by_timer);
    }
    let mut last = end;
    for _ in 0..1000 {
        let now = nanoseconds(time);
        ensure("it never goes back", now >= last)?;
        last = now;
    }
    if features & 1 << 24 != 0 {
        equal("the flag of stable counters", u64::from(peek::<u8>(time + 29) & 1), 1)?;
    }
    cpu::write_msr(MSR_SYSTEM_TIME, 0);
    Ok(())
}
