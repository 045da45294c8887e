//! The local APIC, in x2APIC mode.

use core::sync::atomic::Ordering::Relaxed;

use dragonfly_hw::x86::apic::{
    EOI, ICR_LOW, ISR, SELF_IPI, SVR, SpuriousVector, TPR, VECTOR_REGISTERS, vector_register, x2apic_icr, x2apic_msr,
};
use dragonfly_hw::x86::kvm::{self, Features};
use dragonfly_hw::x86::msr::{ApicBase, IA32_APIC_BASE};

use super::block::this;
use super::cpu;

/// Vector of spurious interrupts.
pub const SPURIOUS: u8 = 0xff;

/// Turns this CPU's local APIC on, in x2APIC mode. It does no harm where that is so already.
pub fn enable() {
    let on = cpu::read_msr(IA32_APIC_BASE) | ApicBase::EN.bits();
    cpu::write_msr(IA32_APIC_BASE, on);
    cpu::write_msr(IA32_APIC_BASE, on | ApicBase::EXTD.bits());
    write(TPR, 0);
    write(SVR, u64::from(u32::from(SPURIOUS) | SpuriousVector::ENABLE.bits()));
}

/// Ends the interrupt in service: in memory, where the hypervisor permits it, and else by the register.
pub fn end() {
    let word = &this().end_word;
    let value = word.load(Relaxed);
    // Nobody else changes it while this CPU runs.
    if value & kvm::ENABLED as u32 == 0 {
        write(EOI, 0);
    } else {
        word.store(value & !kvm::ENABLED as u32, Relaxed);
    }
}

/// Lets the hypervisor permit this CPU to end interrupts in memory. Whether it offers that, as KVM does.
pub fn end_in_memory() -> bool {
    let [features, ..] = cpu::cpuid(kvm::LEAF_FEATURES, 0);
    let is_there = Features::from_bits_retain(features).contains(Features::PV_EOI);
    if is_there {
        cpu::write_msr(kvm::PV_EOI_EN, (&raw const this().end_word).addr() as u64 | kvm::ENABLED);
    }
    is_there
}

/// Whether `vector` is in service: a spurious interrupt is not, unless somebody has sent its vector.
pub fn is_in_service(vector: u8) -> bool {
    read(ISR + vector_register(vector)) & 1 << (vector & 31) != 0
}

/// Ends all interrupts in service.
pub fn end_all() {
    while (0..VECTOR_REGISTERS).any(|register| read(ISR + register * 0x10) != 0) {
        end();
    }
}

/// Interrupts this CPU.
pub fn interrupt_self(vector: u8) {
    write(SELF_IPI, u64::from(vector));
}

/// Sends an interrupt command to the CPU `id`.
pub fn command(low: u32, id: u32) {
    write(ICR_LOW, x2apic_icr(low, id));
}

/// Writes the register at an offset of the register page.
pub fn write(register: u32, value: u64) {
    cpu::write_msr(x2apic_msr(register), value);
}

/// Reads it.
pub fn read(register: u32) -> u64 {
    cpu::read_msr(x2apic_msr(register))
}
