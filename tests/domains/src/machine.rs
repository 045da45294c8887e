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

/// Whether the machine is emulated by QEMU without help of the hardware (CPUID leaf 0x4000_0000, "TCGTCGTCGTCG").
#[must_use]
pub fn is_tcg() -> bool {
    let leaf = __cpuid(0x4000_0000);
    [leaf.ebx, leaf.ecx, leaf.edx]
        == [u32::from_le_bytes(*b"TCGT"), u32::from_le_bytes(*b"CGTC"), u32::from_le_bytes(*b"GTCG")]
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
