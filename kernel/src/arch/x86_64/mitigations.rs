//! Side channels: what a switch between domains does so that one does not learn from the CPU's buffers and predictors
//! what the other did. Chosen at boot from what the CPU says it has; `mitigations=off` switches it off, to measure.
#![expect(unsafe_code, reason = "MSRs and VERW")]

use core::arch::asm;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use dragonfly_hw::x86::cpuid::Leaf7Edx;
use dragonfly_hw::x86::msr::{
    ArchCapabilities, IA32_ARCH_CAPABILITIES, IA32_PRED_CMD, IA32_SPEC_CTRL, PredCmd, SpecCtrl,
};

use super::descriptors::KERNEL_DATA_SELECTOR;
use super::features::Features;
use super::registers::{read_msr, write_msr};

/// Indirect branch prediction barrier.
const BARRIER: u8 = 1;
/// VERW, which overwrites the buffers that microarchitectural data sampling reads.
const CLEAR_BUFFERS: u8 = 2;

static ON_SWITCH: AtomicU8 = AtomicU8::new(0);
/// IA32_SPEC_CTRL while the kernel or a domain runs.
static HOST_CONTROL: AtomicU64 = AtomicU64::new(0);
/// The bits that IA32_SPEC_CTRL has here; 0: there is no such register.
static CONTROLS: AtomicU64 = AtomicU64::new(0);
/// The bits of IA32_ARCH_CAPABILITIES, 0 without it.
static CAPABILITIES: AtomicU64 = AtomicU64::new(0);

/// Chooses, and says what.
pub fn choose(features: &Features, is_on: bool) {
    let edx = features.leaf_7_edx;
    let capabilities = if edx.contains(Leaf7Edx::ARCH_CAPABILITIES) {
        ArchCapabilities::from_bits_retain(read_msr(IA32_ARCH_CAPABILITIES))
    } else {
        ArchCapabilities::empty()
    };
    let mut on_switch = 0;
    if is_on && edx.contains(Leaf7Edx::IBRS_IBPB) {
        on_switch |= BARRIER;
    }
    if is_on && edx.contains(Leaf7Edx::MD_CLEAR) && !capabilities.contains(ArchCapabilities::MDS_NO) {
        on_switch |= CLEAR_BUFFERS;
    }
    ON_SWITCH.store(on_switch, Ordering::Relaxed);
    let has = |bit: u8| if on_switch & bit != 0 { "yes" } else { "no" };
    let mut controls = SpecCtrl::empty();
    for (feature, control) in
        [(Leaf7Edx::IBRS_IBPB, SpecCtrl::IBRS), (Leaf7Edx::STIBP, SpecCtrl::STIBP), (Leaf7Edx::SSBD, SpecCtrl::SSBD)]
    {
        controls.set(control, edx.contains(feature));
    }
    let is_always = is_on && capabilities.contains(ArchCapabilities::IBRS_ALL) && controls.contains(SpecCtrl::IBRS);
    // All three are read by CPUs that start after this, and by this one.
    CONTROLS.store(controls.bits(), Ordering::Relaxed);
    CAPABILITIES.store(capabilities.bits(), Ordering::Relaxed);
    HOST_CONTROL.store(if is_always { SpecCtrl::IBRS.bits() } else { 0 }, Ordering::Relaxed);
    log::info!(
        "domain switch: IBPB {}, VERW {}; always: enhanced IBRS {}{}",
        has(BARRIER),
        has(CLEAR_BUFFERS),
        if is_always { "yes" } else { "no" },
        if is_on { "" } else { " (mitigations=off)" }
    );
}

/// Puts in force on this CPU what was chosen for all.
pub fn enable_on_this_cpu() {
    if host_control() != 0 {
        write_control(host_control());
    }
}

/// The bits that IA32_SPEC_CTRL has here; 0: there is no such register.
pub fn controls() -> u64 {
    CONTROLS.load(Ordering::Relaxed)
}

/// IA32_SPEC_CTRL while the kernel or a domain runs: no other bits than [`controls`] has.
pub fn host_control() -> u64 {
    HOST_CONTROL.load(Ordering::Relaxed)
}

/// What the CPU says of itself in IA32_ARCH_CAPABILITIES.
pub fn capabilities() -> u64 {
    CAPABILITIES.load(Ordering::Relaxed)
}

/// Writes IA32_SPEC_CTRL, if the CPU has it and those bits of it.
// Rare where it is used.
#[cold]
pub fn write_control(control: u64) {
    if controls() != 0 && control & !controls() == 0 {
        // SAFETY: The CPU has the register and these bits, which only restrict speculation.
        unsafe { write_msr(IA32_SPEC_CTRL, control) };
    }
}

/// No branch is predicted by what this CPU has executed before, if it can forget that.
#[cold]
pub fn forget_branches() {
    if controls() & SpecCtrl::IBRS.bits() != 0 {
        // SAFETY: The bit of CPUID that IBRS has says that of this register, too; the barrier has no effect on what
        // programs compute.
        unsafe { write_msr(IA32_PRED_CMD, PredCmd::IBPB.bits()) };
    }
}

/// Another domain is about to run.
#[inline]
pub fn on_domain_switch() {
    let on_switch = ON_SWITCH.load(Ordering::Relaxed);
    if on_switch == 0 {
        return;
    }
    if on_switch & BARRIER != 0 {
        // SAFETY: `choose` found the register; the barrier has no effect on what programs compute.
        unsafe { write_msr(IA32_PRED_CMD, PredCmd::IBPB.bits()) };
    }
    if on_switch & CLEAR_BUFFERS != 0 {
        // SAFETY: VERW of a valid selector sets ZF and nothing else.
        unsafe { asm!("verw word ptr [{}]", in(reg) &KERNEL_DATA_SELECTOR, options(nostack, readonly)) };
    }
}
