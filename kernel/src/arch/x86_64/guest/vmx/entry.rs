//! Into the guest and out of it.
#![expect(unsafe_code, reason = "the way into a guest is machine code")]

use core::arch::global_asm;
use core::ptr::NonNull;

use dragonfly_abi::arch::guest::VCPU_GENERAL_OFFSET;
use dragonfly_hw::x86::vmx::field::Field;

const _: () = assert!(VCPU_GENERAL_OFFSET == 0);

unsafe extern "sysv64" {
    /// Runs the guest of the current VMCS until it exits: its general registers but RSP, and whether it was launched.
    /// 0 if it was left by an exit, else VMLAUNCH or VMRESUME has failed: 1 without a current VMCS, 2 with an error in it.
    pub fn dragonfly_vmx_run(general: NonNull<u64>, is_launched: bool) -> u32;
    fn dragonfly_vmx_exit();
}

/// Where exits go.
pub fn exit_address() -> u64 {
    dragonfly_vmx_exit as *const () as u64
}

// An entry that fails goes on behind VMLAUNCH or VMRESUME, on the same stack, with the flags that say why (SDM 3C, "VM
// Instruction Reference", "Conventions"). The general registers are the guest's then, as after an exit.
global_asm!(
    r#"
    .pushsection .text.dragonfly_vmx, "ax", @progbits
    .global dragonfly_vmx_run
    .type dragonfly_vmx_run, @function
dragonfly_vmx_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdi
    mov eax, {host_rsp}
    vmwrite rax, rsp
    test sil, sil
    mov rax, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov r8, [rdi + 64]
    mov r9, [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 56]
    jz 2f
    vmresume
    jmp 3f
2:  vmlaunch
3:  mov eax, 1
    jc 4f
    mov eax, 2
4:  add rsp, 8
    jmp 5f
    .size dragonfly_vmx_run, . - dragonfly_vmx_run

    .global dragonfly_vmx_exit
    .type dragonfly_vmx_exit, @function
dragonfly_vmx_exit:
    push rax
    mov rax, [rsp + 8]
    pop qword ptr [rax]
    "#,
    store_guest_registers!(),
    r#"
    add rsp, 8
    xor eax, eax
5:  pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    "#,
    forget_guest_registers!(),
    r#"
    ret
    .size dragonfly_vmx_exit, . - dragonfly_vmx_exit
    .popsection
    "#,
    host_rsp = const Field::HOST_RSP.0,
);
