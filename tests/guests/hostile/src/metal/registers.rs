//! Attacks by registers.

use core::arch::asm;

use dragonfly_guest_kit::playground::SCRATCH;
use dragonfly_guest_kit::{Random, SPARE, cpu, set_descriptor, set_idt, set_tss_limit};

use super::attacks::drop_value;

const EFER: u32 = 0xc000_0080;
const ICR: u32 = 0x830;
/// Local vector table and SELF_IPI.
const VECTORS_START: u32 = 0x832;
const VECTORS_END: u32 = 0x83f;
/// A selector of the local descriptor table.
const LOCAL: u16 = 4;
/// KVM's registers that name memory to be written to.
const MEMORY_NAMES: [u32; 8] =
    [0x11, 0x12, 0x4b56_4d00, 0x4b56_4d01, 0x4b56_4d02, 0x4b56_4d03, 0x4b56_4d04, 0x4b56_4d05];

/// RDMSR and WRMSR.
pub fn model_specific(random: &mut Random) {
    let register = match random.below(8) {
        0 => random.number() as u32,
        1 => random.below(0x800) as u32,
        2 | 3 => 0x800 + random.below(0x40) as u32,
        4 => 0xc000_0080 + random.below(0x100) as u32,
        5 => 0xc001_0000 + random.below(0x1100) as u32,
        6 => MEMORY_NAMES[random.below(8) as usize % MEMORY_NAMES.len()],
        _ => 0x4000_0000 + random.below(0x100) as u32,
    };
    if random.below(2) == 0 {
        drop_value(cpu::read_msr(register));
        return;
    }
    let value = random.awkward();
    match register {
        // Commands have their own attack, which stops nobody who has to go on.
        ICR => {}
        // Interrupts with the vectors of exceptions would be this guest's end.
        VECTORS_START..=VECTORS_END => cpu::write_msr(register, value | 0x20),
        // Long mode stays on; SYSCALL stays off, which would run the kit on a program's stack.
        EFER => cpu::write_msr(register, (value | 0x500) & !1),
        // What is written there may not be this program.
        _ if MEMORY_NAMES.contains(&register) && value < 1 << 32 => cpu::write_msr(register, SCRATCH + value % 0x1000),
        _ => cpu::write_msr(register, value),
    }
}

/// CPUID of any leaf.
pub fn cpuid(random: &mut Random) {
    let leaf = match random.below(4) {
        0 => random.number() as u32,
        1 => 0x8000_0000 + random.below(0x40) as u32,
        2 => 0x4000_0000 + random.below(0x120) as u32,
        _ => random.below(0x40) as u32,
    };
    drop_value(cpu::cpuid(leaf, random.awkward() as u32));
}

/// XSETBV.
pub fn extended_control(random: &mut Random) {
    const OSXSAVE: u64 = 1 << 18;
    if random.below(2) == 0 {
        cpu::set_cr4(cpu::cr4() | OSXSAVE);
    }
    let register = if random.below(4) == 0 { random.awkward() as u32 } else { 0 };
    cpu::set_xcr(register, random.awkward());
}

/// Segments of any descriptor, with an exit while they are loaded.
pub fn segments(random: &mut Random) {
    set_descriptor(SPARE, random.number());
    set_descriptor(SPARE + 8, random.awkward());
    // SAFETY: 64-bit code uses none of these segments.
    unsafe {
        match random.below(6) {
            0 => asm!("mov ds, {0:x}", in(reg) SPARE),
            1 => asm!("mov es, {0:x}", in(reg) SPARE | 3),
            2 => asm!("mov fs, {0:x}", in(reg) SPARE),
            3 => asm!("mov gs, {0:x}", in(reg) random.number() as u16 & !LOCAL),
            4 => asm!("lldt {0:x}", in(reg) SPARE),
            _ => asm!("verr {0:x}", "verw {0:x}", "lar {1:e}, {0:e}", "lsl {1:e}, {0:e}", in(reg) SPARE, out(reg) _),
        }
    }
    drop_value(cpu::cpuid(0, 0));
    let _: u8 = cpu::read_port(0x80);
    // A table in a device would make loads of segments accesses to it, which nobody emulates.
    // SAFETY: as above.
    unsafe { asm!("lldt {0:x}", in(reg) 0) };
}

/// Descriptor tables that are none, while nothing needs them.
pub fn tables(random: &mut Random) {
    set_idt(Some((random.awkward() & 0x7fff_ffff_ffff, random.number() as u16)));
    drop_value(cpu::cpuid(0, 0));
    let _: u8 = cpu::read_port(0x80);
    set_idt(None);
    set_tss_limit(Some(random.below(0x1_0000)));
    drop_value(cpu::cpuid(0, 0));
    set_tss_limit(None);
}

/// Debug registers, and a step.
pub fn debug(random: &mut Random) {
    cpu::set_dr0(random.awkward());
    cpu::set_dr1(SCRATCH);
    cpu::set_dr6(random.awkward() & 0xffff_ffff);
    // No breakpoint on code that handles it: DR1 only, on data.
    cpu::set_dr7(0x400 | random.number() & 0x00f0_0000 & !0x0020_0000 | 0x0010_0000 | 4);
    cpu::poke(SCRATCH, 1_u8);
    drop_value(cpu::cpuid(0, 0));
    const TRAP_FLAG: u64 = 1 << 8;
    cpu::set_flags(cpu::flags() | TRAP_FLAG);
}
