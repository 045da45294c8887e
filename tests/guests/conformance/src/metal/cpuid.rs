//! CPUID.

use dragonfly_guest_kit::{Check, apic, cpu, ensure, equal, smp};
use dragonfly_hw::x86::apic::ID;

const OSXSAVE: u64 = 1 << 18;
const XSAVE_BIT: u32 = 26;

/// Whether KVM's leaves are there.
pub fn is_hypervisor_known() -> bool {
    let [_, ebx, ecx, edx] = cpu::cpuid(0x4000_0000, 0);
    cpu::cpuid(1, 0)[2] >> 31 != 0 && [ebx, ecx, edx].map(u32::to_le_bytes) == [*b"KVMK", *b"VMKV", *b"M\0\0\0"]
}

pub fn answers_are_stable_and_agree() -> Check {
    let maximum = cpu::cpuid(0, 0)[0];
    ensure("highest basic leaf", (0xb..0x40).contains(&maximum))?;
    for leaf in (0..=maximum).chain(0x4000_0000..0x4000_0011).chain(0x8000_0000..=cpu::cpuid(0x8000_0000, 0)[0]) {
        for subleaf in 0..3 {
            let (first, second) = (cpu::cpuid(leaf, subleaf), cpu::cpuid(leaf, subleaf));
            if first != second {
                return equal("a leaf that changes", leaf.into(), 0);
            }
        }
    }
    let [_, ebx, ecx, edx] = cpu::cpuid(1, 0);
    equal("APIC ID in leaf 1", (ebx >> 24).into(), apic::read(ID))?;
    equal("APIC ID in leaf 0xb", cpu::cpuid(0xb, 0)[3].into(), apic::read(ID))?;
    ensure("x2APIC", ecx >> 21 & 1 != 0)?;
    ensure("no VMX", ecx >> 5 & 1 == 0)?;
    ensure("no MONITOR", ecx >> 3 & 1 == 0)?;
    ensure("a hypervisor", ecx >> 31 == 1)?;
    equal("TSC, MSRs, PAE, CX8, APIC, FXSR, SSE, SSE2", (edx & 0x0700_0370).into(), 0x0700_0370)?;
    ensure("no SVM", cpu::cpuid(0x8000_0001, 0)[2] & 1 << 2 == 0)?;
    ensure("64-bit mode", cpu::cpuid(0x8000_0001, 0)[3] & 1 << 29 != 0)?;
    // Levels of leaf 0xb: threads, cores; the second counts all.
    let [shift, count, level, _] = cpu::cpuid(0xb, 1);
    equal("level of cores", (level >> 8 & 0xff).into(), 2)?;
    equal("CPUs in leaf 0xb", (count & 0xffff).into(), smp::cpus() as u64)?;
    ensure("bits of the APIC ID", 1_u32 << (shift & 31) >= count & 0xffff)?;
    equal("level that does not exist", (cpu::cpuid(0xb, 2)[2] >> 8 & 0xff).into(), 0)?;
    if is_hypervisor_known() {
        equal("a leaf of nothing", cpu::cpuid(0x4fff_0000, 0).iter().map(|word| u64::from(*word)).sum(), 0)?;
    }
    Ok(())
}

pub fn xsave_leaves_follow_the_registers() -> Check {
    if cpu::cpuid(1, 0)[2] >> XSAVE_BIT & 1 == 0 {
        return equal("leaf 0xd without XSAVE", cpu::cpuid(0xd, 0)[0].into(), 0);
    }
    let is_on = || cpu::cpuid(1, 0)[2] >> 27 & 1 != 0;
    let cr4 = cpu::cr4();
    cpu::set_cr4(cr4 & !OSXSAVE);
    let off = is_on();
    cpu::set_cr4(cr4 | OSXSAVE);
    let on = is_on();
    let all = cpu::cpuid(0xd, 0)[0];
    let before = cpu::xcr0();
    cpu::set_xcr(0, 1);
    let small = cpu::cpuid(0xd, 0)[1];
    cpu::set_xcr(0, 3);
    let middle = cpu::cpuid(0xd, 0)[1];
    let mut large = 832;
    if all & 4 != 0 {
        cpu::set_xcr(0, 7);
        large = cpu::cpuid(0xd, 0)[1];
    }
    let [_, _, most, _] = cpu::cpuid(0xd, 0);
    cpu::set_xcr(0, before);
    cpu::set_cr4(cr4);
    ensure("OSXSAVE follows CR4", !off && on)?;
    equal("size for x87", small.into(), 576)?;
    equal("size for SSE", middle.into(), 576)?;
    equal("size for AVX", large.into(), 832)?;
    ensure("size for all", most >= large)?;
    if all & 4 != 0 {
        let [size, offset, ..] = cpu::cpuid(0xd, 2);
        equal("size of AVX", size.into(), 256)?;
        equal("offset of AVX", offset.into(), 576)?;
    }
    Ok(())
}
