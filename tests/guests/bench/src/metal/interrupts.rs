//! Interrupts: when they arrive, and what ending them costs.
//!
//! There are no handlers for exceptions: one ends the guest by a triple fault, which its hypervisor reports.
#![expect(unsafe_code, reason = "handlers are entered from assembly by way of a table that the CPU reads")]

use core::{
    arch::global_asm,
    hint::spin_loop,
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use x86_64::{VirtAddr, instructions::interrupts, structures::idt::InterruptDescriptorTable};

use super::{apic, cpu};

/// Vector of the interrupts that are measured.
pub const MEASURED: u8 = 0x40;
/// Vector that the second CPU answers by [`MEASURED`] to the first.
pub const PING: u8 = 0x41;

global_asm!(include_str!("interrupts.s"), measured = sym measured, ping = sym ping);

unsafe extern "C" {
    fn measured_interrupt();
    fn ping_interrupt();
}

static mut TABLE: InterruptDescriptorTable = InterruptDescriptorTable::new();
/// When the measured interrupt's handler began; 0 while it has not.
static ARRIVAL: AtomicU64 = AtomicU64::new(0);
/// Ticks that ending it took.
static ENDING: AtomicU64 = AtomicU64::new(0);
/// The second CPU is up.
static SERVING: AtomicBool = AtomicBool::new(false);

/// Fills the table and gives it to this CPU, the first.
pub fn install() {
    let table = &raw mut TABLE;
    for (vector, handler) in [(MEASURED, measured_interrupt as *const ()), (PING, ping_interrupt as *const ())] {
        let handler = VirtAddr::from_ptr(handler);
        // SAFETY: the other CPU has not started, so nothing else refers to the table; the handlers keep all registers
        // and return by IRET.
        unsafe { (&mut *table)[vector].set_handler_addr(handler) };
    }
    load();
}

/// The second CPU's life: it waits for pings.
pub extern "C" fn serve() -> ! {
    load();
    apic::enable();
    interrupts::enable();
    SERVING.store(true, Relaxed);
    loop {
        spin_loop();
    }
}

/// Whether the second CPU waits for pings.
pub fn is_serving() -> bool {
    SERVING.load(Relaxed)
}

/// Forgets the last measured interrupt.
#[inline(always)]
pub fn expect() {
    ARRIVAL.store(0, Relaxed);
}

/// When the measured interrupt arrived, if it has.
#[inline(always)]
pub fn arrived() -> Option<u64> {
    Some(ARRIVAL.load(Relaxed)).filter(|&arrival| arrival != 0)
}

/// Waits for the measured interrupt and returns when it arrived.
pub fn arrival() -> u64 {
    loop {
        match arrived() {
            Some(arrival) => return arrival,
            None => spin_loop(),
        }
    }
}

/// Sleeps until the measured interrupt and returns when it arrived.
pub fn arrival_asleep() -> u64 {
    loop {
        interrupts::disable();
        if let Some(arrival) = arrived() {
            interrupts::enable();
            return arrival;
        }
        // No interrupt can come between these two instructions (SDM 2B, STI).
        interrupts::enable_and_hlt();
    }
}

/// Ticks that ending the last measured interrupt took.
pub fn ending() -> u64 {
    ENDING.load(Relaxed)
}

fn load() {
    // SAFETY: the table is complete by now, and never changes again.
    unsafe { (*ptr::addr_of!(TABLE)).load_unsafe() };
}

extern "C" fn measured(now: u64) {
    let ending = cpu::ticks(apic::end_of_interrupt);
    ENDING.store(ending, Relaxed);
    ARRIVAL.store(now, Relaxed);
}

extern "C" fn ping(_now: u64) {
    apic::end_of_interrupt();
    apic::interrupt(apic::FIRST, MEASURED);
}
