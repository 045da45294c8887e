//! Registers that stay in the CPU: x87, SSE, AVX; who may have which.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use dragonfly_guest_kit::time::ticks_per_ms;
use dragonfly_guest_kit::{Check, USER_CODE, cpu, ensure, equal, faults, run_user, smp};
use dragonfly_hw::x86::msr::{IA32_KERNEL_GS_BASE, IA32_TSC_AUX};

const OSFXSR: u64 = 1 << 9;
const OSXSAVE: u64 = 1 << 18;

fn has_xsave() -> bool {
    cpu::cpuid(1, 0)[2] >> 26 & 1 != 0
}

fn has_avx() -> bool {
    has_xsave() && cpu::cpuid(1, 0)[2] >> 28 & 1 != 0
}

pub fn xsetbv_has_rules() -> Check {
    if !has_xsave() {
        return faults("XSETBV that is not there", 6, 0, || cpu::set_xcr(0, 1));
    }
    let cr4 = cpu::cr4();
    cpu::set_cr4(cr4 & !OSXSAVE);
    let off = faults("XSETBV that is off", 6, 0, || cpu::set_xcr(0, 1));
    cpu::set_cr4(cr4 | OSXSAVE);
    let result = off.and_then(|()| {
        let before = cpu::xcr0();
        faults("XCR0 of 0", 13, 0, || cpu::set_xcr(0, 0))?;
        faults("XCR0 without x87", 13, 0, || cpu::set_xcr(0, 2))?;
        faults("AVX without SSE", 13, 0, || cpu::set_xcr(0, 5))?;
        faults("a bit that does not exist", 13, 0, || cpu::set_xcr(0, 3 | 1 << 62))?;
        faults("a part of AVX-512", 13, 0, || cpu::set_xcr(0, 7 | 1 << 5))?;
        faults("a register that does not exist", 13, 0, || cpu::set_xcr(1, 1))?;
        equal("XCR0 after all", cpu::xcr0(), before)?;
        cpu::set_xcr(0, 3);
        equal("XCR0", cpu::xcr0(), 3)?;
        cpu::set_xcr(0, 1);
        // xor ecx, ecx; mov eax, 1; xor edx, edx; xsetbv
        let code = [0x31, 0xc9, 0xb8, 1, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x01, 0xd1];
        equal("XSETBV of a program", run_user(&code, USER_CODE, 0).map_or(u64::MAX, |trap| trap.frame.vector), 13)
    });
    cpu::set_cr4(cr4);
    result
}

static WRONG: AtomicU64 = AtomicU64::new(0);

#[repr(C, align(64))]
struct Area([u64; 8]);

/// Fills registers with values of this CPU's own, lets others run, and looks again.
fn keep(number: u64) {
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    cpu::set_cr0(cr0 & !0b1100 | 2);
    cpu::set_cr4(cr4 | OSFXSR | if has_xsave() { OSXSAVE } else { 0 });
    let is_wide = has_avx();
    if is_wide {
        cpu::set_xcr(0, 7);
    }
    let (aux, base) = (cpu::read_msr(IA32_TSC_AUX), cpu::read_msr(IA32_KERNEL_GS_BASE));
    let start = cpu::tsc();
    let mut round = 0_u64;
    while cpu::tsc().wrapping_sub(start) < 60 * ticks_per_ms() {
        round += 1;
        let mark = (number + 1) << 32 | round;
        let from = Area([mark, mark ^ 1, mark ^ 2, mark ^ 3, mark ^ 4, mark ^ 5, mark ^ 6, mark ^ 7]);
        let mut to = Area([0; 8]);
        let mut float = 0_u64;
        let control: u64 = 0x1f80 | (number & 3) << 13;
        cpu::write_msr(IA32_KERNEL_GS_BASE, mark);
        cpu::write_msr(IA32_TSC_AUX, mark & 0xffff_ffff);
        cpu::set_dr1(mark);
        // SAFETY: the registers are nobody's, and the areas are large enough.
        unsafe {
            asm!("fninit", "fild qword ptr [{from}]", "push {control}", "ldmxcsr [rsp]", "pop {control}",
                "movdqu xmm0, [{from}]", "movdqu xmm15, [{from} + 16]", from = in(reg) &raw const from,
                control = in(reg) control);
            if is_wide {
                asm!("vmovdqu ymm1, [{0}]", "vmovdqu ymm14, [{0} + 32]", in(reg) &raw const from);
            }
        }
        // Exits to the kernel and to the machine, and time for others.
        for _ in 0..3 {
            cpu::cpuid(0, 0);
            let _: u8 = cpu::read_port(0x80);
            core::hint::spin_loop();
        }
        let mut seen_control = 0_u64;
        // SAFETY: as above.
        unsafe {
            asm!("movdqu [{to}], xmm0", "movdqu [{to} + 16], xmm15", "fistp qword ptr [{float}]", "stmxcsr [{control}]",
                to = in(reg) &raw mut to, float = in(reg) &raw mut float, control = in(reg) &raw mut seen_control);
        }
        let mut is_same = to.0[..4] == from.0[..4] && float == mark && seen_control == control;
        if is_wide {
            // SAFETY: as above.
            unsafe { asm!("vmovdqu [{0}], ymm1", "vmovdqu [{0} + 32], ymm14", "vzeroupper", in(reg) &raw mut to) };
            is_same &= to.0 == from.0;
        }
        is_same &= cpu::dr1() == mark && cpu::read_msr(IA32_KERNEL_GS_BASE) == mark;
        is_same &= cpu::read_msr(IA32_TSC_AUX) == mark & 0xffff_ffff;
        if !is_same {
            WRONG.fetch_add(1, SeqCst);
        }
    }
    cpu::write_msr(IA32_TSC_AUX, aux);
    cpu::write_msr(IA32_KERNEL_GS_BASE, base);
    // SAFETY: as after reset.
    unsafe { asm!("fninit", "push 0x1f80", "ldmxcsr [rsp]", "pop {}", out(reg) _) };
    if is_wide {
        cpu::set_xcr(0, 1);
    }
    cpu::set_cr4(cr4);
    cpu::set_cr0(cr0);
}

pub fn state_is_kept_while_others_run() -> Check {
    WRONG.store(0, SeqCst);
    (1..smp::cpus()).try_for_each(|number| ensure("a CPU starts", smp::is_up(number) || smp::start(number)))?;
    (1..smp::cpus()).for_each(|number| smp::give(number, keep, number as u64));
    keep(0);
    (1..smp::cpus()).try_for_each(|number| ensure("a CPU ends", smp::wait(number, 8000)))?;
    equal("rounds with other values", WRONG.load(SeqCst), 0)
}
