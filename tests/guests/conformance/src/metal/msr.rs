//! Model-specific registers.

use core::arch::asm;

use dragonfly_guest_kit::{Check, cpu, ensure, equal, faults};
use dragonfly_hw::x86::msr::{
    IA32_APIC_BASE, IA32_ARCH_CAPABILITIES, IA32_CSTAR, IA32_EFER, IA32_FMASK, IA32_GS_BASE, IA32_KERNEL_GS_BASE,
    IA32_LSTAR, IA32_PAT, IA32_PRED_CMD, IA32_SPEC_CTRL, IA32_STAR, IA32_SYSENTER_CS, IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP, IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST, IA32_TSC_AUX,
};

const IA32_FS_BASE: u32 = 0xc000_0100;

pub fn unknown_ones_fault() -> Check {
    for register in [0x4fff_0000, 0x1234_5678, 0xc000_2000, 0xffff_ffff, 0xdead] {
        faults("RDMSR of nothing", 13, 0, || cpu::read_msr(register))?;
        faults("WRMSR of nothing", 13, 0, || cpu::write_msr(register, 0))?;
    }
    Ok(())
}

pub fn values_are_kept() -> Check {
    let kept = [
        (IA32_STAR, 0x1234_5678_9abc_def0),
        (IA32_LSTAR, 0xffff_8123_4567_89ab),
        (IA32_CSTAR, 0x0000_7123_4567_89ab),
        (IA32_FMASK, 0x0004_7700),
        (IA32_KERNEL_GS_BASE, 0xffff_8000_0000_1000),
        (IA32_GS_BASE, 0x0000_7fff_ffff_f000),
        (IA32_FS_BASE, 0xffff_ffff_ffff_f000),
        (IA32_SYSENTER_CS, 0x10),
        (IA32_SYSENTER_ESP, 0xffff_8000_0000_2000),
        (IA32_SYSENTER_EIP, 0xffff_8000_0000_3000),
        (IA32_PAT, 0x0007_0406_0007_0401),
        (IA32_TSC_AUX, 0x1234_5678),
    ];
    let before = kept.map(|(register, _)| cpu::read_msr(register));
    kept.iter().for_each(|(register, value)| cpu::write_msr(*register, *value));
    // To the hypervisor, to its user-level machine, and back.
    cpu::cpuid(0, 0);
    let _: u8 = cpu::read_port(0x80);
    let seen = kept.map(|(register, _)| cpu::read_msr(register));
    let aux: u32;
    // SAFETY: reads the counter and TSC_AUX.
    unsafe { asm!("rdtscp", out("ecx") aux, out("eax") _, out("edx") _) };
    // SAFETY: exchanges GS's base with KERNEL_GS_BASE; compiled code uses neither.
    unsafe { asm!("swapgs") };
    let swapped = (cpu::read_msr(IA32_GS_BASE), cpu::read_msr(IA32_KERNEL_GS_BASE));
    kept.iter().zip(before).for_each(|((register, _), value)| cpu::write_msr(*register, value));
    for ((register, value), seen) in kept.into_iter().zip(seen) {
        if seen != value {
            return equal("a register's value", seen ^ u64::from(register), value ^ u64::from(register));
        }
    }
    equal("TSC_AUX by RDTSCP", aux.into(), 0x1234_5678)?;
    equal("GS after SWAPGS", swapped.0, 0xffff_8000_0000_1000)?;
    equal("KERNEL_GS_BASE after SWAPGS", swapped.1, 0x0000_7fff_ffff_f000)?;
    let base = cpu::read_msr(IA32_APIC_BASE);
    equal("APIC base: first CPU, x2APIC, on", base, 0xfee0_0000 | 1 << 11 | 1 << 10 | 1 << 8)
}

pub fn bad_values_fault() -> Check {
    let efer = cpu::read_msr(IA32_EFER);
    equal("EFER: long mode, active", efer & 0x500, 0x500)?;
    faults("EFER with a reserved bit", 13, 0, || cpu::write_msr(IA32_EFER, efer | 1 << 63))?;
    faults("EFER without long mode", 13, 0, || cpu::write_msr(IA32_EFER, efer & !(1 << 8)))?;
    if !cpu::is_intel() {
        faults("EFER with SVM", 13, 0, || cpu::write_msr(IA32_EFER, efer | 1 << 12))?;
    }
    faults("APIC base with a reserved bit", 13, 0, || {
        cpu::write_msr(IA32_APIC_BASE, cpu::read_msr(IA32_APIC_BASE) | 1);
    })?;
    equal("EFER after all", cpu::read_msr(IA32_EFER), efer)
}

pub fn speculation_is_limited_as_cpuid_says() -> Check {
    const IBPB: u64 = 1;
    let [_, _, _, features] = cpu::cpuid(7, 0);
    // IBRS, STIBP, SSBD: bits of CPUID and, from 0 on, of the register.
    let controls =
        [26, 27, 31].iter().enumerate().map(|(bit, feature)| u64::from(features >> feature & 1) << bit).sum();
    if controls == 0 {
        return faults("RDMSR of SPEC_CTRL that CPUID does not name", 13, 0, || cpu::read_msr(IA32_SPEC_CTRL));
    }
    let before = cpu::read_msr(IA32_SPEC_CTRL);
    cpu::write_msr(IA32_SPEC_CTRL, controls);
    cpu::cpuid(0, 0);
    let seen = cpu::read_msr(IA32_SPEC_CTRL);
    cpu::write_msr(IA32_SPEC_CTRL, before);
    equal("SPEC_CTRL at the start", before, 0)?;
    equal("SPEC_CTRL with all that CPUID names", seen, controls)?;
    faults("SPEC_CTRL with a reserved bit", 13, 0, || cpu::write_msr(IA32_SPEC_CTRL, controls | 1 << 63))?;
    equal("SPEC_CTRL after that", cpu::read_msr(IA32_SPEC_CTRL), before)?;
    cpu::write_msr(IA32_PRED_CMD, IBPB);
    if features >> 29 & 1 != 0 {
        // No other register hangs on what is told of these: TSX_CTRL 7, MCU_CONTROL 9 to DOITM 12, FB_CLEAR_CTRL 18.
        equal("ARCH_CAPABILITIES' registers", cpu::read_msr(IA32_ARCH_CAPABILITIES) & 0x4_1e80, 0)?;
    }
    Ok(())
}

pub fn the_counter_can_be_set() -> Check {
    const AHEAD: u64 = 1 << 40;
    let has_adjust = cpu::cpuid(7, 0)[1] & 2 != 0;
    let before = cpu::tsc();
    if has_adjust {
        let adjust = cpu::read_msr(IA32_TSC_ADJUST);
        cpu::write_msr(IA32_TSC_ADJUST, adjust.wrapping_add(AHEAD));
        let moved = cpu::tsc();
        let seen = cpu::read_msr(IA32_TSC_ADJUST);
        cpu::write_msr(IA32_TSC_ADJUST, adjust);
        equal("TSC_ADJUST", seen, adjust.wrapping_add(AHEAD))?;
        ensure("the counter moves with it", (AHEAD..2 * AHEAD).contains(&moved.wrapping_sub(before)))?;
    }
    let by_register = cpu::read_msr(IA32_TIME_STAMP_COUNTER);
    let by_instruction = cpu::tsc();
    ensure("RDMSR and RDTSC agree", by_instruction.wrapping_sub(by_register) < AHEAD >> 4)?;
    let adjust = if has_adjust { cpu::read_msr(IA32_TSC_ADJUST) } else { 0 };
    cpu::write_msr(IA32_TIME_STAMP_COUNTER, by_register.wrapping_add(AHEAD));
    let moved = cpu::tsc();
    let change = if has_adjust { cpu::read_msr(IA32_TSC_ADJUST).wrapping_sub(adjust) } else { 0 };
    if has_adjust {
        cpu::write_msr(IA32_TSC_ADJUST, adjust);
    } else {
        cpu::write_msr(IA32_TIME_STAMP_COUNTER, cpu::tsc().wrapping_sub(AHEAD));
    }
    ensure("the counter after a write", (AHEAD..2 * AHEAD).contains(&moved.wrapping_sub(by_register)))?;
    if has_adjust {
        ensure("a write shows in TSC_ADJUST", change.wrapping_sub(AHEAD / 2) < AHEAD)?;
    }
    ensure("the counter as before", cpu::tsc().wrapping_sub(by_instruction) < AHEAD)
}
