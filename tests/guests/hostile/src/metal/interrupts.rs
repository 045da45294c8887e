//! Attacks by interrupts.

use core::sync::atomic::Ordering::Relaxed;

use dragonfly_guest_kit::{Random, apic, cpu, interrupts, time};
use dragonfly_hw::x86::apic::{
    ICR_LOW, LVT_TIMER, TIMER_DIVIDE, TIMER_DIVIDE_1, TIMER_INITIAL_COUNT, TIMER_PERIODIC, icr_fixed, x2apic_icr,
};

use super::HAS_NMIS;

const VECTOR: u8 = 0x50;
const MODE: u64 = 0x700;
const NMI: u64 = 0x400;
const INIT: u64 = 0x500;
const SHORTHAND: u64 = 0xc_0000;

/// Any interrupt command but INIT, which would end the attacks.
pub fn command(random: &mut Random) {
    // Interrupts with the vectors of exceptions would be this guest's end.
    let low = random.number() & 0x000f_cfff | 0x20;
    let low = if low & MODE == INIT { low & !INIT } else { low };
    let low = if low & MODE == NMI && !HAS_NMIS.load(Relaxed) { low & !NMI } else { low };
    // Lowest-priority, SMI, NMI, start-up and what is reserved are all right, to anybody.
    let destination = match random.below(4) {
        0 => random.number() as u32,
        1 => u32::MAX,
        _ => random.below(8) as u32,
    };
    let command = x2apic_icr(low as u32, destination);
    if random.below(8) == 0 {
        // Reserved bits.
        apic::write(ICR_LOW, (command | random.awkward()) & !MODE & !SHORTHAND);
    } else {
        apic::write(ICR_LOW, command);
    }
    interrupts::window();
}

/// Many at once, to everybody.
pub fn storm(random: &mut Random) {
    cpu::allow_interrupts();
    for _ in 0..random.below(32) {
        let vector = 0x20 + random.below(0xc0) as u8;
        match random.below(3) {
            0 => apic::interrupt_self(vector),
            1 => apic::command(icr_fixed(vector), random.below(8) as u32),
            _ => apic::command(icr_fixed(vector), u32::MAX),
        }
    }
    cpu::forbid_interrupts();
}

/// A timer that is always due, or sleeps that hardly begin.
pub fn timer(random: &mut Random) {
    // Other attacks may have switched it off, or have left an interrupt of a higher class in service (a spurious one that
    // was sent): nothing would end a sleep.
    apic::enable();
    apic::end_all();
    let bits = random.below(20);
    apic::write(TIMER_DIVIDE, TIMER_DIVIDE_1.into());
    apic::write(LVT_TIMER, u64::from(TIMER_PERIODIC | u32::from(VECTOR)));
    apic::write(TIMER_INITIAL_COUNT, 1 + random.below(1 << bits));
    match random.below(3) {
        0 => {
            cpu::allow_interrupts();
            time::wait_until(1, || false);
            cpu::forbid_interrupts();
        }
        1 => (0..4).for_each(|_| cpu::sleep()),
        _ => interrupts::window(),
    }
    stop_timer();
}

/// Stops it.
pub fn stop_timer() {
    apic::write(TIMER_INITIAL_COUNT, 0);
}
