//! Into the guest and out of it.
#![expect(unsafe_code, reason = "the way into a guest is machine code")]

use core::arch::global_asm;
use core::ptr::NonNull;

use dragonfly_abi::arch::guest::VCPU_GENERAL_OFFSET;

const _: () = assert!(VCPU_GENERAL_OFFSET == 0);

unsafe extern "sysv64" {
    /// Runs a guest until it exits: its control block, its general registers, where this CPU's own are.
    pub fn dragonfly_svm_run(block: u64, general: NonNull<u64>, host: u64);
}

// With V_INTR_MASKING the host's IF says whether its interrupts make the guest exit: it is on while the global interrupt
// flag is off (APM 2, 15.21.1). VMRUN keeps the host's RAX and RSP; all other registers are the guest's after it.
global_asm!(
    r#"
    .pushsection .text.dragonfly_svm, "ax", @progbits
    .global dragonfly_svm_run
    .type dragonfly_svm_run, @function
dragonfly_svm_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rsi
    mov rax, rdi
    mov rcx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov rbx, [rsi + 24]
    mov rbp, [rsi + 40]
    mov rdi, [rsi + 56]
    mov r8, [rsi + 64]
    mov r9, [rsi + 72]
    mov r10, [rsi + 80]
    mov r11, [rsi + 88]
    mov r12, [rsi + 96]
    mov r13, [rsi + 104]
    mov r14, [rsi + 112]
    mov r15, [rsi + 120]
    mov rsi, [rsi + 48]
    clgi
    sti
    vmload rax
    vmrun rax
    vmsave rax
    cli
    pop rax
    "#,
    store_guest_registers!(),
    r#"
    pop rax
    vmload rax
    stgi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    "#,
    forget_guest_registers!(),
    r#"
    ret
    .size dragonfly_svm_run, . - dragonfly_svm_run
    .popsection
    "#
);
