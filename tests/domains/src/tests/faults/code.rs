//! Code that faults, each piece in its own way.

use core::arch::naked_asm;

use dragonfly_abi::FaultKind;

use crate::light::{Entry, Words};

/// Instructions that fault: name, code, kind, exception number, error code.
#[rustfmt::skip]
pub const EXCEPTIONS: &[(&str, Entry, FaultKind, u64, u64)] = &[
    ("ud2",              undefined,        FaultKind::IllegalInstruction, 6,  0),
    ("hlt",              halt,             FaultKind::IllegalInstruction, 13, 0),
    ("cli",              disable,          FaultKind::IllegalInstruction, 13, 0),
    ("in",               port_in,          FaultKind::IllegalInstruction, 13, 0),
    ("out",              port_out,         FaultKind::IllegalInstruction, 13, 0),
    ("rdmsr",            read_msr,         FaultKind::IllegalInstruction, 13, 0),
    ("wrmsr",            write_msr,        FaultKind::IllegalInstruction, 13, 0),
    ("mov from cr0",     read_cr0,         FaultKind::IllegalInstruction, 13, 0),
    ("mov to cr3",       write_cr3,        FaultKind::IllegalInstruction, 13, 0),
    ("mov from dr7",     read_dr7,         FaultKind::IllegalInstruction, 13, 0),
    ("lidt",             load_idt,         FaultKind::IllegalInstruction, 13, 0),
    ("invlpg",           invalidate_page,  FaultKind::IllegalInstruction, 13, 0),
    ("swapgs",           swap_gs,          FaultKind::IllegalInstruction, 13, 0),
    ("sysret",           system_return,    FaultKind::IllegalInstruction, 13, 0),
    ("int 0x80",         int_80,           FaultKind::IllegalInstruction, 13, 0x80 << 3 | 2),
    ("int 8",            int_8,            FaultKind::IllegalInstruction, 13, 8 << 3 | 2),
    ("int 0x31",         int_31,           FaultKind::IllegalInstruction, 13, 0x31 << 3 | 2),
    ("a bad selector",   bad_selector,     FaultKind::IllegalInstruction, 13, 0xabc8),
    ("no canonical address", not_canonical, FaultKind::IllegalInstruction, 13, 0),
    ("division by zero", divide,           FaultKind::Exception,          0,  0),
    ("a large quotient", divide_overflow,  FaultKind::Exception,          0,  0),
];

macro_rules! faulting {
    ($($name:ident $($code:literal),*;)*) => { $(
        #[unsafe(naked)]
        pub extern "C" fn $name(_: &Words) -> ! {
            naked_asm!($($code,)* "2:", "jmp 2b")
        }
    )* };
}

faulting! {
    undefined "ud2";
    halt "hlt";
    disable "cli";
    port_in "in al, 0x80";
    port_out "out 0x80, al";
    read_msr "rdmsr";
    write_msr "wrmsr";
    read_cr0 "mov rax, cr0";
    write_cr3 "mov cr3, rax";
    read_dr7 "mov rax, dr7";
    load_idt "lidt [rsp]";
    invalidate_page "invlpg [rsp]";
    swap_gs "swapgs";
    system_return "sysretq";
    int_80 "int 0x80";
    int_8 "int 8";
    int_31 "int 0x31";
    bad_selector "mov eax, 0xabc8", "mov ds, eax";
    not_canonical "mov rax, 0x800000000000", "mov rax, [rax]";
    bad_stack "mov rsp, 0x800000000100", "push rax";
    divide "xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx";
    divide_overflow "mov edx, 7", "mov ecx, 1", "mov eax, 1", "div ecx";
    breakpoint "int3";
}

faulting! {
    sse "xorps xmm0, xmm0";
    sse2 "movd xmm1, eax";
    x87 "fld1";
    x87_wait "fninit";
    avx "vxorps ymm0, ymm0, ymm0";
    fxsave "fxsave [rsp - 1024]";
}
