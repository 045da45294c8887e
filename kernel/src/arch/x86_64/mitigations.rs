//! Side channels: what a switch between domains does so that one does not learn from the CPU's buffers and predictors
//! what the other did. Chosen at boot from what the CPU says it has; `mitigations=off` switches it off, to measure.
#![expect(unsafe_code, reason = "MSRs and VERW")]

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

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
    log::info!(
        "domain switch: IBPB {}, VERW {}; always: enhanced IBRS {}{}",
        has(BARRIER),
        has(CLEAR_BUFFERS),
        if is_on && capabilities.contains(ArchCapabilities::IBRS_ALL) { "yes" } else { "no" },
        if is_on { "" } else { " (mitigations=off)" }
    );
    if is_on && capabilities.contains(ArchCapabilities::IBRS_ALL) && edx.contains(Leaf7Edx::IBRS_IBPB) {
        // SAFETY: The CPU has IA32_SPEC_CTRL, and IBRS only restricts speculation.
        unsafe { write_msr(IA32_SPEC_CTRL, SpecCtrl::IBRS.bits()) };
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
