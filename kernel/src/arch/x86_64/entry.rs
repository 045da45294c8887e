//! Ways into the kernel and out of it.
//!
//! A system call or an interrupt from a domain saves the registers in the current thread's context, through GS, and
//! runs on the CPU's one stack from its top. Nothing on that stack survives: the way out is always [`resume`] with some
//! thread's context, or idling. Interrupts are off in the kernel but for the one instruction of idling.
#![expect(unsafe_code, reason = "entry code is machine code")]

use core::arch::{asm, global_asm};

use super::context::{Context, ENTRY_SYSCALL, offset};
use super::per_cpu;

global_asm!(
    r#"
    .pushsection .text.dragonfly_entry, "ax", @progbits

    // The general registers below an interrupt's frame, as `Context` begins.
    .macro save_registers
    .irp register, rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11, rbx, rbp, r12, r13, r14, r15
    push \register
    .endr
    .endm
    .macro load_registers
    .irp register, r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax
    pop \register
    .endr
    // Behind them are vector and error code.
    add rsp, 16
    .endm

    // SYSCALL: RCX and R11 hold RIP and RFLAGS (SDM 2B). RAX is the number; RDI RSI RDX R10 R8 R9 the words.
    .global dragonfly_syscall_entry
    .type dragonfly_syscall_entry, @function
dragonfly_syscall_entry:
    swapgs
    mov gs:[{scratch}], rsp
    mov rsp, gs:[{context}]
    mov [rsp + {o_rip}], rcx
    mov [rsp + {o_rflags}], r11
    mov rcx, gs:[{scratch}]
    mov [rsp + {o_rsp}], rcx
    mov [rsp + {o_rbx}], rbx
    mov [rsp + {o_rbp}], rbp
    mov [rsp + {o_r12}], r12
    mov [rsp + {o_r13}], r13
    mov [rsp + {o_r14}], r14
    mov [rsp + {o_r15}], r15
    mov qword ptr [rsp + {o_entry}], {entry_syscall}
    mov rsp, gs:[{stack}]
    mov rcx, r10
    push rax
    xor ebp, ebp
    call {syscall}
    // A direct return: status in RAX, one word in RDX. Registers that calls keep are as they were but for RBP.
    mov rdi, rdx
    mov rsp, gs:[{context}]
    mov rcx, [rsp + {o_rip}]
    mov r11, [rsp + {o_rflags}]
    mov rbp, [rsp + {o_rbp}]
    mov rsp, [rsp + {o_rsp}]
    xor esi, esi
    xor edx, edx
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    swapgs
    sysretq
    .size dragonfly_syscall_entry, . - dragonfly_syscall_entry

    // Every gate pushes an error code, if the CPU does not, and its vector. From a domain the CPU has pushed at the
    // end of the current context.
dragonfly_interrupt_common:
    test byte ptr [rsp + 24], 3
    jz 2f
    swapgs
    save_registers
    mov rdi, rsp
    mov rsp, gs:[{stack}]
    // Interrupts keep the domain's AC flag, which would suspend SMAP: all flags to their reset value.
    push 2
    popfq
    sub rsp, 8
    xor ebp, ebp
    call {interrupt}
2:  // From the kernel: while idling, or a mistake of the kernel.
    cld
    save_registers
    mov rdi, rsp
    and rsp, -16
    call {kernel_interrupt}
    ud2

    // Debug traps, NMI, double fault and machine check come at any instruction, on stacks of their own: GS may be
    // either.
dragonfly_interrupt_paranoid:
    cld
    save_registers
    mov ecx, {gs_base}
    rdmsr
    mov r15d, edx
    test edx, edx
    js 3f
    swapgs
3:  mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    call {paranoid}
    mov rsp, rbx
    test r15d, r15d
    js 4f
    swapgs
4:
    load_registers
    iretq

    // Leaves with the context at RDI.
    .global dragonfly_resume
    .type dragonfly_resume, @function
dragonfly_resume:
    mov rsp, rdi
    load_registers
    swapgs
    iretq
    .size dragonfly_resume, . - dragonfly_resume

    // One stub of 16 bytes for each vector.
    .balign 16
    .global dragonfly_interrupt_stubs
dragonfly_interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || vector == 10 || vector == 11 || vector == 12 || vector == 13 || vector == 14 || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    push vector
    .if vector == 1 || vector == 2 || vector == 8 || vector == 18
    jmp dragonfly_interrupt_paranoid
    .else
    jmp dragonfly_interrupt_common
    .endif
    .set vector, vector + 1
    .endr
    .popsection
    "#,
    scratch = const per_cpu::offset::SCRATCH,
    context = const per_cpu::offset::CONTEXT,
    stack = const per_cpu::offset::STACK,
    o_rip = const offset::RIP,
    o_rflags = const offset::RFLAGS,
    o_rsp = const offset::RSP,
    o_rbx = const offset::RBX,
    o_rbp = const offset::RBP,
    o_r12 = const offset::R12,
    o_r13 = const offset::R13,
    o_r14 = const offset::R14,
    o_r15 = const offset::R15,
    o_entry = const offset::ENTRY,
    entry_syscall = const ENTRY_SYSCALL,
    gs_base = const dragonfly_hw::x86::msr::IA32_GS_BASE,
    syscall = sym super::run::syscall,
    interrupt = sym super::run::interrupt,
    kernel_interrupt = sym super::run::kernel_interrupt,
    paranoid = sym super::run::paranoid_interrupt,
);

unsafe extern "C" {
    fn dragonfly_syscall_entry();
    fn dragonfly_resume(context: &Context) -> !;
    static dragonfly_interrupt_stubs: [[u8; 16]; 256];
}

/// Address of the system call entry, for IA32_LSTAR.
pub fn syscall_entry() -> u64 {
    dragonfly_syscall_entry as *const () as u64
}

/// Address of a vector's stub.
pub fn interrupt_stub(vector: u8) -> u64 {
    // SAFETY: Only the address of one of the 256 stubs is taken.
    unsafe { (&raw const dragonfly_interrupt_stubs[usize::from(vector)]) as u64 }
}

/// Leaves the kernel with a thread's registers.
///
/// # Safety
/// The context belongs to this CPU's current thread, whose address space is active, and GS's per-CPU data points at
/// it. Nothing on the stack is needed any more.
pub unsafe fn resume(context: &Context) -> ! {
    if context.entry() == ENTRY_SYSCALL {
        // SAFETY: By the contract.
        unsafe { resume_call(context) }
    }
    // SAFETY: By the contract the stack may go. The registers of a thread never have a privileged selector, interrupt
    // flag off, or an instruction pointer that is not canonical: see `Context`.
    unsafe { dragonfly_resume(context) }
}

/// Leaves the kernel with the registers of a thread that came in by a system call.
///
/// # Safety
/// As for [`resume`], and the thread did.
#[inline]
pub unsafe fn resume_call(context: &Context) -> ! {
    // SAFETY: By the contract the stack may go. What SYSRET loads was saved by SYSCALL: the address after a system call
    // is canonical, since the last page below the limit is never mapped.
    unsafe {
        asm!(
            "mov rbx, [rdi + {o_rbx}]",
            "mov rbp, [rdi + {o_rbp}]",
            "mov r12, [rdi + {o_r12}]",
            "mov r13, [rdi + {o_r13}]",
            "mov r14, [rdi + {o_r14}]",
            "mov r15, [rdi + {o_r15}]",
            "mov rax, [rdi + {o_rax}]",
            "mov rsi, [rdi + {o_rsi}]",
            "mov rdx, [rdi + {o_rdx}]",
            "mov r10, [rdi + {o_r10}]",
            "mov r8, [rdi + {o_r8}]",
            "mov r9, [rdi + {o_r9}]",
            "mov rcx, [rdi + {o_rip}]",
            "mov r11, [rdi + {o_rflags}]",
            "mov rsp, [rdi + {o_rsp}]",
            "mov rdi, [rdi + {o_rdi}]",
            "swapgs",
            "sysretq",
            in("rdi") context,
            o_rbx = const offset::RBX,
            o_rbp = const offset::RBP,
            o_r12 = const offset::R12,
            o_r13 = const offset::R13,
            o_r14 = const offset::R14,
            o_r15 = const offset::R15,
            o_rax = const offset::RAX,
            o_rdi = const offset::RDI,
            o_rsi = const offset::RSI,
            o_rdx = const offset::RDX,
            o_r10 = const offset::R10,
            o_r8 = const offset::R8,
            o_r9 = const offset::R9,
            o_rip = const offset::RIP,
            o_rflags = const offset::RFLAGS,
            o_rsp = const offset::RSP,
            options(noreturn),
        );
    }
}

/// Waits for an interrupt with an empty stack. The interrupt's entry does not come back here.
///
/// # Safety
/// Nothing on the stack is needed any more, and no kernel data is borrowed.
pub unsafe fn idle() -> ! {
    // SAFETY: STI takes effect after the next instruction, so no interrupt is lost between the check for work and
    // HLT. An interrupt that comes finds an empty stack and ends in `kernel_interrupt`, which starts anew.
    unsafe {
        asm!(
            "mov rsp, gs:[{stack}]",
            "xor ebp, ebp",
            "2:",
            "sti",
            "hlt",
            "cli",
            "jmp 2b",
            stack = const per_cpu::offset::STACK,
            options(noreturn),
        );
    }
}

/// Lets an interrupt come that has made a guest exit. Its entry does not come back here.
///
/// # Safety
/// As for [`idle`].
pub unsafe fn take_interrupt() -> ! {
    // SAFETY: As in `idle`. STI lets interrupts come after the instruction that follows.
    unsafe {
        asm!(
            "mov rsp, gs:[{stack}]",
            "xor ebp, ebp",
            "sti",
            "nop",
            "nop",
            "cli",
            "call {none}",
            stack = const per_cpu::offset::STACK,
            none = sym super::run::no_interrupt,
            options(noreturn),
        );
    }
}
