//! The local APIC: x2APIC where the CPU has it, xAPIC otherwise; end of interrupt, IPIs, timer.
#![expect(unsafe_code, reason = "the APIC is reached through MSRs or device memory")]

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use dragonfly_hw::x86::apic::{
    EOI, ESR, ICR_HIGH, ICR_INIT, ICR_LOW, ICR_NMI, ICR_PENDING, ID, LVT_ERROR, LVT_LINT0, LVT_LINT1, LVT_TIMER, Lvt,
    SVR, SpuriousVector, TIMER_CURRENT_COUNT, TIMER_DIVIDE, TIMER_DIVIDE_1, TIMER_INITIAL_COUNT, TIMER_ONE_SHOT,
    TIMER_TSC_DEADLINE, icr_fixed, icr_high, icr_startup, x2apic_icr, x2apic_msr,
};
use dragonfly_hw::x86::msr::{ApicBase, IA32_APIC_BASE, IA32_TSC_DEADLINE};

use super::clock::read_together;
use super::interrupts::{APIC_ERROR, KICK, POSTED, SPURIOUS, TIMER};
use super::per_cpu;
use super::registers::{read_msr, read_tsc, write_msr};
use crate::arch::NEVER;

static IS_X2APIC: AtomicBool = AtomicBool::new(false);
static HAS_DEADLINE: AtomicBool = AtomicBool::new(false);
/// The registers in device memory, in xAPIC mode.
static REGISTERS: AtomicPtr<u32> = AtomicPtr::new(core::ptr::null_mut());
/// Timer ticks per TSC tick as a 32.32 fixed-point number.
static TIMER_RATIO: AtomicU64 = AtomicU64::new(1 << 32);

/// Chooses the mode for all CPUs. `registers` is the mapping of the APIC's page, for xAPIC mode.
///
/// # Safety
/// `registers` is mapped uncached and stays so; called once, before any other function here.
pub unsafe fn choose(is_x2apic: bool, has_deadline: bool, registers: *mut u32) {
    IS_X2APIC.store(is_x2apic, Ordering::Release);
    HAS_DEADLINE.store(has_deadline, Ordering::Release);
    REGISTERS.store(registers, Ordering::Release);
}

fn read(offset: u32) -> u32 {
    if IS_X2APIC.load(Ordering::Relaxed) {
        return read_msr(x2apic_msr(offset)) as u32;
    }
    let registers = REGISTERS.load(Ordering::Relaxed);
    // SAFETY: `choose` got the mapping of the register page; offsets are below 4 KiB and 16-aligned.
    unsafe { registers.byte_add(offset as usize).read_volatile() }
}

fn write(offset: u32, value: u32) {
    if IS_X2APIC.load(Ordering::Relaxed) {
        // SAFETY: Registers of the APIC that this file programs; they do not touch memory.
        unsafe { write_msr(x2apic_msr(offset), u64::from(value)) };
        return;
    }
    let registers = REGISTERS.load(Ordering::Relaxed);
    // SAFETY: As in `read`.
    unsafe { registers.byte_add(offset as usize).write_volatile(value) }
}

/// Switches this CPU's APIC on, in the chosen mode, with everything masked, and gives its ID.
pub fn enable() -> u32 {
    let mut base = ApicBase::from_bits_retain(read_msr(IA32_APIC_BASE)) | ApicBase::EN;
    // From off, x2APIC mode is entered by way of xAPIC mode (SDM 3A, "x2APIC State Transitions").
    // SAFETY: The APIC's address stays; the mode is what all accesses here assume from now on.
    unsafe { write_msr(IA32_APIC_BASE, base.bits()) };
    if IS_X2APIC.load(Ordering::Acquire) {
        base |= ApicBase::EXTD;
        // SAFETY: As above; the CPU has x2APIC mode.
        unsafe { write_msr(IA32_APIC_BASE, base.bits()) };
    }
    for lvt in [LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(lvt, Lvt::MASKED.bits() | u32::from(SPURIOUS));
    }
    write(SVR, SpuriousVector::ENABLE.bits() | u32::from(SPURIOUS));
    write(LVT_ERROR, u32::from(APIC_ERROR));
    let id = read(ID);
    if IS_X2APIC.load(Ordering::Acquire) { id } else { id >> 24 }
}

/// Lets this CPU's timer interrupt.
pub fn start_on_this_cpu() {
    if HAS_DEADLINE.load(Ordering::Acquire) {
        write(LVT_TIMER, TIMER_TSC_DEADLINE | u32::from(TIMER));
        // Orders the write to device memory before the deadline's MSR (SDM 3A, "TSC-Deadline Mode").
        core::sync::atomic::fence(Ordering::SeqCst);
    } else {
        write(TIMER_DIVIDE, TIMER_DIVIDE_1);
        write(LVT_TIMER, TIMER_ONE_SHOT | u32::from(TIMER));
    }
}

/// Lets the timer come at a tick of the TSC.
pub fn set_timer(deadline: u64) {
    if HAS_DEADLINE.load(Ordering::Relaxed) {
        let deadline = if deadline == NEVER { 0 } else { deadline.max(1) };
        // SAFETY: The register arms a timer.
        unsafe { write_msr(IA32_TSC_DEADLINE, deadline) };
        return;
    }
    let count = match deadline {
        NEVER => 0,
        deadline => {
            let ticks = u128::from(deadline.saturating_sub(read_tsc()));
            let count = (ticks * u128::from(TIMER_RATIO.load(Ordering::Relaxed))) >> 32;
            // A far deadline comes in several steps: each interrupt sets the timer anew.
            u32::try_from(count).unwrap_or(u32::MAX).max(1)
        }
    };
    write(TIMER_INITIAL_COUNT, count);
}

/// Measures the timer against the TSC while `wait` runs, if it is not the TSC that drives it.
pub fn calibrate(wait: impl FnOnce()) {
    if HAS_DEADLINE.load(Ordering::Acquire) {
        return;
    }
    write(TIMER_DIVIDE, TIMER_DIVIDE_1);
    write(LVT_TIMER, Lvt::MASKED.bits() | TIMER_ONE_SHOT | u32::from(TIMER));
    write(TIMER_INITIAL_COUNT, u32::MAX);
    let start = read_together(|| read(TIMER_CURRENT_COUNT));
    wait();
    let end = read_together(|| read(TIMER_CURRENT_COUNT));
    write(TIMER_INITIAL_COUNT, 0);
    let counted = u64::from(start.value.saturating_sub(end.value));
    let ticks = end.tsc.saturating_sub(start.tsc).max(1);
    let ratio = (u128::from(counted) << 32) / u128::from(ticks);
    TIMER_RATIO.store(u64::try_from(ratio).unwrap_or(u64::MAX).max(1), Ordering::Release);
    log::info!("local APIC timer: {counted} ticks in {ticks} of the TSC");
}

/// What drives the timer, for the log.
pub fn describe() -> (&'static str, &'static str) {
    let mode = if IS_X2APIC.load(Ordering::Relaxed) { "x2APIC" } else { "xAPIC" };
    let timer = if HAS_DEADLINE.load(Ordering::Relaxed) { "TSC deadline" } else { "one-shot counter" };
    (mode, timer)
}

/// The interrupt in service is over.
#[inline]
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// Reads and clears the error register.
pub fn take_error() -> u32 {
    write(ESR, 0);
    read(ESR)
}

fn command(apic_id: u32, low: u32) {
    if IS_X2APIC.load(Ordering::Relaxed) {
        // What was written before is visible to the CPU that gets the interrupt: WRMSR to the x2APIC does not order
        // earlier stores by itself (SDM 3A, "MSR Access in x2APIC Mode").
        core::sync::atomic::fence(Ordering::SeqCst);
        // SAFETY: An interrupt command; what is sent is chosen in this file.
        unsafe { write_msr(x2apic_msr(ICR_LOW), x2apic_icr(low, apic_id)) };
        return;
    }
    write(ICR_HIGH, icr_high(apic_id as u8));
    write(ICR_LOW, low);
    while read(ICR_LOW) & ICR_PENDING != 0 {
        core::hint::spin_loop();
    }
}

/// Kicks another CPU.
pub fn kick(cpu: usize) {
    command(per_cpu::apic_id(cpu), icr_fixed(KICK));
}

/// Tells another CPU that an interrupt was posted to the guest that it runs.
pub fn notify_guest(cpu: usize) {
    command(per_cpu::apic_id(cpu), icr_fixed(POSTED));
}

/// Stops another CPU in a panic.
pub fn send_nmi(cpu: usize) {
    command(per_cpu::apic_id(cpu), ICR_NMI);
}

/// Resets another CPU.
pub fn send_init(apic_id: u32) {
    command(apic_id, ICR_INIT);
}

/// Starts another CPU in real mode at a page below 1 MiB.
pub fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, icr_startup(page));
}
