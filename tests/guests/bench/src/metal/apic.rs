//! The local APIC, in x2APIC mode.
#![expect(unsafe_code, reason = "the local APIC's registers are MSRs")]

use dragonfly_hw::x86::{
    apic::{
        EOI, ICR_INIT, ICR_LOW, LVT_TIMER, SELF_IPI, SVR, SpuriousVector, TIMER_TSC_DEADLINE, TPR, icr_fixed,
        icr_startup, x2apic_icr, x2apic_msr,
    },
    msr::{ApicBase, IA32_APIC_BASE, IA32_TSC_DEADLINE},
};
use x86_64::registers::model_specific::Msr;

/// APIC ID of the CPU that starts first.
pub const FIRST: u32 = 0;
/// APIC ID of the other.
pub const SECOND: u32 = 1;

/// Vector of spurious interrupts: never raised here.
const SPURIOUS: u32 = 0xff;

/// Turns this CPU's local APIC on, in x2APIC mode. It does no harm where that is so already.
pub fn enable() {
    // SAFETY: the guest owns its APIC, and both steps of the mode are legal (SDM 3A, "x2APIC State Transitions").
    unsafe {
        let mut base = Msr::new(IA32_APIC_BASE);
        let on = base.read() | ApicBase::EN.bits();
        base.write(on);
        base.write(on | ApicBase::EXTD.bits());
    }
    write(TPR, 0);
    write(SVR, u64::from(SPURIOUS | SpuriousVector::ENABLE.bits()));
}

/// Ends the interrupt in service.
#[inline(always)]
pub fn end_of_interrupt() {
    write(EOI, 0);
}

/// Interrupts this CPU.
#[inline(always)]
pub fn interrupt_self(vector: u8) {
    write(SELF_IPI, u64::from(vector));
}

/// Interrupts the CPU `id`.
#[inline(always)]
pub fn interrupt(id: u32, vector: u8) {
    write(ICR_LOW, x2apic_icr(icr_fixed(vector), id));
}

/// Starts the CPU `id` in real mode at `page` (SDM 3A, "Typical BSP Initialization Sequence").
pub fn start(id: u32, page: u8) {
    write(ICR_LOW, x2apic_icr(ICR_INIT, id));
    write(ICR_LOW, x2apic_icr(icr_startup(page), id));
}

/// Makes the timer raise `vector` at deadlines.
pub fn use_deadlines(vector: u8) {
    write(LVT_TIMER, u64::from(TIMER_TSC_DEADLINE | u32::from(vector)));
}

/// Lets the timer fire when the time stamp counter is `deadline`.
#[inline(always)]
pub fn set_deadline(deadline: u64) {
    // SAFETY: the guest owns its timer.
    unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline) };
}

#[inline(always)]
fn write(register: u32, value: u64) {
    // SAFETY: the guest owns its APIC, and has handlers for what it lets it raise.
    unsafe { Msr::new(x2apic_msr(register)).write(value) };
}
