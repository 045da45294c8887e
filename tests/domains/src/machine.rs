//! What tests need of the processor beside system calls.
#![expect(unsafe_code, reason = "single instructions that Rust has no safe name for")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};

/// The time-stamp counter.
#[inline(always)]
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: reads a register. The kernel lets domains do so: it leaves CR4.TSD clear.
    unsafe { _rdtsc() }
}

/// The number by which interrupts reach the processor that runs this.
#[must_use]
pub fn processor() -> u32 {
    // Bits 31 to 24 of EBX of leaf 1: the initial local APIC ID.
    __cpuid(1).ebx >> 24
}

/// The stack pointer.
#[inline(always)]
#[must_use]
pub fn stack_pointer() -> u64 {
    let pointer;
    // SAFETY: only reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Keeps the processor busy for about `turns` instructions.
#[inline(always)]
pub fn spin(turns: u64) {
    for _ in 0..turns / 2 {
        core::hint::black_box(());
    }
}
