//! The instructions that are measured, and time.
#![expect(unsafe_code, reason = "most instructions that exit are privileged")]

use core::{
    arch::{asm, x86_64::__cpuid},
    hint::spin_loop,
    ptr,
};

use dragonfly_hw::x86::msr;
use x86_64::{
    instructions::{hlt, port::Port},
    registers::model_specific::Msr,
};

/// A port that each hypervisor leaves to its user-level machine, which ignores it.
const PORT_OF_NO_DEVICE: u16 = 0x80;
/// An address between RAM and the machine's devices.
const ADDRESS_OF_NO_DEVICE: usize = 0xd000_0000;
/// PM1a control register of the machine, and what switches it off there: SLP_TYP 5, SLP_EN (ACPI 4.8.3.2.1).
const POWER_PORT: u16 = 0x604;
const POWER_OFF: u16 = 5 << 10 | 1 << 13;
/// KVM_HC_VAPIC_POLL_IRQ: a hypercall that does nothing, and is answered in the kernel.
const HYPERCALL: u64 = 1;

/// The time stamp counter, once everything before is done.
#[inline(always)]
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a register.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Ticks that `operation` takes, with those of reading the counter once.
#[inline(always)]
pub fn ticks(operation: impl FnOnce()) -> u64 {
    let start = tsc();
    operation();
    tsc().wrapping_sub(start)
}

/// Waits until `is_done`, or for `patience` ticks; says whether it is done.
pub fn wait_at_most(patience: u64, is_done: impl Fn() -> bool) -> bool {
    let start = tsc();
    while !is_done() {
        if tsc().wrapping_sub(start) > patience {
            return false;
        }
        spin_loop();
    }
    true
}

/// CPUID, leaf 0.
#[inline(always)]
pub fn cpuid() {
    let _ = __cpuid(0);
}

/// Whether the processor is Intel's: the makers have different instructions for a hypercall.
pub fn is_intel() -> bool {
    __cpuid(0).ebx == u32::from_le_bytes(*b"Genu")
}

/// Whether the local APIC's timer has TSC deadlines (SDM 2A, CPUID, leaf 1: ECX bit 24).
pub fn has_tsc_deadline() -> bool {
    __cpuid(1).ecx & 1 << 24 != 0
}

/// A hypercall by VMCALL.
#[inline(always)]
pub fn vmcall() {
    // SAFETY: the hypercall changes RAX and nothing else.
    unsafe { asm!("vmcall", inout("rax") HYPERCALL => _, options(nostack)) };
}

/// A hypercall by VMMCALL.
#[inline(always)]
pub fn vmmcall() {
    // SAFETY: the hypercall changes RAX and nothing else.
    unsafe { asm!("vmmcall", inout("rax") HYPERCALL => _, options(nostack)) };
}

/// RDMSR of a register that the hypervisor's kernel emulates.
#[inline(always)]
pub fn read_msr() {
    // SAFETY: reading this register has no effect.
    let _ = unsafe { Msr::new(msr::IA32_APIC_BASE).read() };
}

/// OUT of one byte to a port of no device.
#[inline(always)]
pub fn write_port() {
    // SAFETY: there is no device.
    unsafe { Port::new(PORT_OF_NO_DEVICE).write(0_u8) };
}

/// MOV of four bytes to an address of no device.
#[inline(always)]
pub fn write_mmio() {
    // SAFETY: the address is mapped, and there is no device and no memory.
    unsafe { ptr::with_exposed_provenance_mut::<u32>(ADDRESS_OF_NO_DEVICE).write_volatile(0) };
}

/// Writes to the page at `address`, which must be RAM that nothing uses.
#[inline(always)]
pub fn touch(address: usize) {
    debug_assert!((super::measure::FRESH_START..super::measure::FRESH_END).contains(&address));
    // SAFETY: all callers stay within RAM that is mapped and of which only they know.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1) };
}

/// Switches the machine off.
pub fn power_off() -> ! {
    // SAFETY: the end of the guest is what is asked for.
    unsafe { Port::new(POWER_PORT).write(POWER_OFF) };
    loop {
        hlt();
    }
}
