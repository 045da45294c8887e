//! The local APIC's timer.

use dragonfly_guest_kit::interrupts::{count, forget, wait_for, window};
use dragonfly_guest_kit::time::{pm_timer, ticks_per_ms, wait_until};
use dragonfly_guest_kit::{Check, apic, cpu, ensure, equal, faults};
use dragonfly_hw::x86::apic::{
    LVT_TIMER, Lvt, TIMER_CURRENT_COUNT, TIMER_DIVIDE, TIMER_DIVIDE_1, TIMER_DIVIDE_4, TIMER_INITIAL_COUNT,
    TIMER_PERIODIC, TIMER_TSC_DEADLINE,
};
use dragonfly_hw::x86::msr::IA32_TSC_DEADLINE;
use dragonfly_hw::x86::pmtimer::FREQUENCY_HZ;

const VECTOR: u8 = 0x47;
/// The timer counts at 1 GHz.
const COUNTS_PER_MS: u64 = 1_000_000;
/// How late an interrupt may be: hosts of tests are busy.
const LATENESS_MS: u64 = 100;
/// When a timer would come that is stopped at once: later than a busy host lets the CPU go on.
const STOPPED_MS: u64 = 60;

pub fn has_deadlines() -> bool {
    cpu::cpuid(1, 0)[2] & 1 << 24 != 0
}

/// Milliseconds of the ACPI timer since it showed `start`, in thousandths.
fn microseconds_since(start: u32) -> u64 {
    u64::from(pm_timer().wrapping_sub(start)) * 1_000_000 / FREQUENCY_HZ
}

fn is_between(what: &'static str, value: u64, least: u64, most: u64) -> Check {
    if value < least { equal(what, value, least) } else { equal(what, value.max(most), most) }
}

fn stop() {
    apic::write(LVT_TIMER, u64::from(Lvt::MASKED.bits()));
    apic::write(TIMER_INITIAL_COUNT, 0);
}

pub fn one_shot() -> Check {
    for (divide, divisor) in [(TIMER_DIVIDE_1, 1), (TIMER_DIVIDE_4, 4)] {
        forget();
        apic::write(TIMER_DIVIDE, divide.into());
        apic::write(LVT_TIMER, VECTOR.into());
        let start = pm_timer();
        apic::write(TIMER_INITIAL_COUNT, 8 * COUNTS_PER_MS / divisor);
        let (first, second) = (apic::read(TIMER_CURRENT_COUNT), apic::read(TIMER_CURRENT_COUNT));
        ensure("it comes", wait_for(VECTOR, 1))?;
        is_between("microseconds", microseconds_since(start), 7_990, 8_000 + LATENESS_MS * 1000)?;
        ensure("it counts down", first <= 8 * COUNTS_PER_MS / divisor && second <= first)?;
        equal("what is left", apic::read(TIMER_CURRENT_COUNT), 0)?;
        cpu::allow_interrupts();
        wait_until(10, || false);
        cpu::forbid_interrupts();
        equal("interrupts", count(VECTOR).into(), 1)?;
    }
    // One that is stopped does not come, one that is masked neither.
    forget();
    apic::write(TIMER_INITIAL_COUNT, STOPPED_MS * COUNTS_PER_MS);
    apic::write(TIMER_INITIAL_COUNT, 0);
    apic::write(LVT_TIMER, u64::from(u32::from(VECTOR) | Lvt::MASKED.bits()));
    apic::write(TIMER_INITIAL_COUNT, COUNTS_PER_MS / 4);
    cpu::allow_interrupts();
    wait_until(STOPPED_MS + 5, || false);
    cpu::forbid_interrupts();
    stop();
    equal("interrupts that were stopped", count(VECTOR).into(), 0)
}

pub fn periodic() -> Check {
    forget();
    apic::write(TIMER_DIVIDE, TIMER_DIVIDE_1.into());
    apic::write(LVT_TIMER, u64::from(TIMER_PERIODIC | u32::from(VECTOR)));
    let start = pm_timer();
    apic::write(TIMER_INITIAL_COUNT, 10 * COUNTS_PER_MS);
    let has_come = wait_for(VECTOR, 8);
    let passed = microseconds_since(start);
    stop();
    ensure("they come", has_come)?;
    is_between("microseconds of 8 periods", passed, 79_900, 80_000 + LATENESS_MS * 1000)?;
    window();
    forget();
    cpu::allow_interrupts();
    wait_until(25, || false);
    cpu::forbid_interrupts();
    equal("interrupts after the end", count(VECTOR).into(), 0)
}

pub fn the_timer_ends_a_halt() -> Check {
    forget();
    apic::write(TIMER_DIVIDE, TIMER_DIVIDE_1.into());
    apic::write(LVT_TIMER, VECTOR.into());
    for round in 1..=4 {
        let start = pm_timer();
        apic::write(TIMER_INITIAL_COUNT, 5 * COUNTS_PER_MS);
        while count(VECTOR) < round {
            cpu::sleep();
        }
        is_between("microseconds", microseconds_since(start), 4_990, 5_000 + LATENESS_MS * 1000)?;
    }
    stop();
    Ok(())
}

pub fn deadlines() -> Check {
    forget();
    apic::write(LVT_TIMER, u64::from(TIMER_TSC_DEADLINE | u32::from(VECTOR)));
    for round in 1..=4 {
        let deadline = cpu::tsc() + 3 * ticks_per_ms();
        cpu::write_msr(IA32_TSC_DEADLINE, deadline);
        equal("the deadline", cpu::read_msr(IA32_TSC_DEADLINE), deadline)?;
        ensure("it comes", wait_for(VECTOR, round))?;
        is_between("ticks after it", cpu::tsc().wrapping_sub(deadline), 0, LATENESS_MS * ticks_per_ms())?;
        equal("the deadline after it", cpu::read_msr(IA32_TSC_DEADLINE), 0)?;
    }
    forget();
    // One in the past comes at once, one that is taken back does not.
    cpu::write_msr(IA32_TSC_DEADLINE, 1);
    window();
    ensure("one in the past", wait_for(VECTOR, 1))?;
    cpu::write_msr(IA32_TSC_DEADLINE, cpu::tsc() + STOPPED_MS * ticks_per_ms());
    cpu::write_msr(IA32_TSC_DEADLINE, 0);
    cpu::allow_interrupts();
    wait_until(STOPPED_MS + 5, || false);
    cpu::forbid_interrupts();
    equal("one that was taken back", count(VECTOR).into(), 1)?;
    equal("a count in this mode", apic::read(TIMER_CURRENT_COUNT), 0)?;
    stop();
    cpu::write_msr(IA32_TSC_DEADLINE, cpu::tsc() + 1000);
    equal("a deadline in another mode", cpu::read_msr(IA32_TSC_DEADLINE), 0)?;
    faults("a mode that does not exist", 13, 0, || apic::write(LVT_TIMER, 3 << 17))
}
