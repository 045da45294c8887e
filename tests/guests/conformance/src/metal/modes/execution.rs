//! Registers, memory, stack, and the instructions that leave a virtual machine.

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::{Check, apic, cpu, ensure, equal};
use dragonfly_hw::x86::apic::{ID, x2apic_msr};

use super::code::code;
use super::layout::{MEMORY, STACK, low};
use super::mode::{Kind, Mode, Paging};
use super::switch::Registers;

const CARRY: u64 = 1;
const ZERO: u64 = 1 << 6;
/// Bits of CR0.
const PROTECTION: u64 = 1;
const PAGING: u64 = 1 << 31;

pub fn check(mode: &Mode) -> Check {
    operands(mode)?;
    memory(mode)?;
    stack(mode)?;
    answers(mode)?;
    if mode.is_privileged() {
        privileged(mode)?;
    }
    Ok(())
}

fn operands(mode: &Mode) -> Check {
    let start = Registers { eax: 0x1234_ffff, ebx: 1, ..Registers::default() };
    let after = mode.finish("16-bit addition", &code!("add ax, bx"), start)?;
    equal("sum of 16 bits", after.rax, 0x1234_0000)?;
    equal("flags of the sum", after.flags & (CARRY | ZERO), CARRY | ZERO)?;
    let start = Registers { eax: 0x10, ebx: 0x11, edx: 1, ..Registers::default() };
    let code = code!("mov cl, 4", "shl edx, cl", "sub eax, ebx", "imul esi, ebx, 7", "movzx edi, al", "movsx ebx, al");
    let after = mode.finish("32-bit arithmetic", &code, start)?;
    equal("SHL", after.rdx, 0x10)?;
    equal("SUB", after.rax, 0xffff_ffff)?;
    equal("IMUL", after.rsi, 0x77)?;
    equal("MOVZX", after.rdi, 0xff)?;
    equal("MOVSX", after.rbx, 0xffff_ffff)?;
    let start = Registers { eax: 0x8001, ebx: 6, ..Registers::default() };
    let code = code!("mul bx", "mov esi, eax", "mov edi, edx", "div bx");
    let after = mode.finish("multiplication and division", &code, start)?;
    equal("low half of a product", after.rsi, 6)?;
    equal("high half of a product", after.rdi, 3)?;
    equal("quotient", after.rax, 0x8001)?;
    equal("remainder", after.rdx, 0)
}

fn memory(mode: &Mode) -> Check {
    let code = code!(
        "mov [ebx], eax",
        "mov [ebx + 4], ax",
        "mov [ebx + 6], al",
        "mov ecx, [ebx + 3]",
        "movzx edx, word ptr [ebx + esi*2 + 1]"
    );
    let start = Registers { eax: 0x1122_3344, ebx: mode.at(MEMORY), esi: 1, ..Registers::default() };
    let after = mode.finish("memory by 32-bit addresses", &code, start)?;
    equal(
        "what was stored",
        peek(low(MEMORY).into()),
        u64::from_le_bytes([0x44, 0x33, 0x22, 0x11, 0x44, 0x33, 0x44, 0]),
    )?;
    equal("an unaligned load", after.rcx, 0x4433_4411)?;
    equal("a load with a scaled index", after.rdx, 0x4411)?;
    poke(u64::from(low(MEMORY)), 0_u64);
    let code = code!(legacy "mov word ptr [bx + si + 2], ax", "mov cx, word ptr [bp + di]", "lea edx, [bx + si + 5]");
    if !code.bytes(mode.size).is_empty() {
        // The upper halves are no part of the addresses.
        let upper = 0xabcd_0000;
        let start = Registers {
            eax: 0x7766,
            ebx: upper | MEMORY,
            esi: upper | 0xfffe,
            ebp: MEMORY,
            edi: 0,
            ..Registers::default()
        };
        let after = mode.finish("memory by 16-bit addresses", &code, start)?;
        equal("what was stored by a 16-bit address", peek::<u16>(low(MEMORY).into()).into(), 0x7766)?;
        equal("what was loaded by a 16-bit address", after.rcx, 0x7766)?;
        equal("a 16-bit address", after.rdx, u64::from(MEMORY) + 3)?;
        poke(u64::from(low(MEMORY)), 0_u64);
    }
    Ok(())
}

fn stack(mode: &Mode) -> Check {
    let code = code!(each
        ["push eax", "push bx", "pop cx", "pop edx", "call 4f", "jmp 5f", "4: mov si, 7", "ret", "5: mov edi, esp"],
        ["push eax", "push bx", "pop cx", "pop edx", "call 4f", "jmp 5f", "4: mov si, 7", "ret", "5: mov edi, esp"],
        ["push rax", "push bx", "pop cx", "pop rdx", "call 4f", "jmp 5f", "4: mov si, 7", "ret", "5: mov edi, esp"]
    );
    let start = Registers { eax: 0x1234_5678, ebx: 0x9abc, ..Registers::default() };
    let after = mode.finish("stack", &code, start)?;
    equal("16 bits from the stack", after.rcx, 0x9abc)?;
    equal("all bits from the stack", after.rdx, 0x1234_5678)?;
    equal("a call", after.rsi, 7)?;
    equal("the stack's pointer", after.rdi & 0xffff, u64::from(STACK))
}

/// Instructions that any program may execute and that a hypervisor answers, or may.
fn answers(mode: &Mode) -> Check {
    let start = Registers { eax: 0x8000_0002, ..Registers::default() };
    let after = mode.finish("CPUID", &code!("cpuid"), start)?;
    let wanted = cpu::cpuid(0x8000_0002, 0).map(u64::from);
    for (seen, wanted) in [after.rax, after.rbx, after.rcx, after.rdx].into_iter().zip(wanted) {
        equal("answer of CPUID", seen, wanted)?;
    }
    let code = code!("rdtsc", "mov esi, eax", "mov edi, edx", "rdtsc");
    let after = mode.finish("RDTSC", &code, Registers::default())?;
    ensure("time", after.rdx << 32 | after.rax > after.rdi << 32 | after.rsi)?;
    let after = mode.finish("SMSW", &code!("smsw ax"), Registers::default())?;
    equal("protection by SMSW", after.rax & PROTECTION, u64::from(mode.kind != Kind::Real))
}

fn privileged(mode: &Mode) -> Check {
    let code = code!(each
        ["mov eax, cr0", "mov cr0, eax", "mov ecx, cr4", "mov cr4, ecx", "mov edx, cr3", "mov cr3, edx"],
        ["mov eax, cr0", "mov cr0, eax", "mov ecx, cr4", "mov cr4, ecx", "mov edx, cr3", "mov cr3, edx"],
        ["mov rax, cr0", "mov cr0, rax", "mov rcx, cr4", "mov cr4, rcx", "mov rdx, cr3", "mov cr3, rdx"]
    );
    let after = mode.finish("control registers", &code, Registers::default())?;
    let paging = if mode.paging == Paging::None { 0 } else { PAGING };
    let protection = if mode.kind == Kind::Real { 0 } else { PROTECTION };
    equal("CR0", after.rax & (PAGING | PROTECTION), paging | protection)?;
    let start = Registers { ecx: x2apic_msr(ID), ..Registers::default() };
    let after = mode.finish("RDMSR", &code!("rdmsr"), start)?;
    equal("the APIC's ID", after.rdx << 32 | after.rax, apic::read(ID))?;
    // FMASK keeps any 32 bits.
    let start = Registers { ecx: 0xc000_0084, eax: 0x4_0700, ..Registers::default() };
    let after = mode.finish("WRMSR", &code!("wrmsr", "xor eax, eax", "rdmsr"), start)?;
    equal("a register that was written", after.rax, 0x4_0700)
}
