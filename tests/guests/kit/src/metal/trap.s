# Entries of all 256 vectors, 16 bytes apart. They end up with the vector and an error code, or 0, on the stack.
.section .text.trap, "ax"
.global trap_entries
    .balign 16
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
    .byte 0x6a, 0               # push 0
    .endif
    .byte 0x68                  # push vector
    .long vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    call {trap}
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

# guarded_call(function, argument, slot): calls the function and gives 0. If an exception sends it to guarded_end with the
# stack pointer that is in the slot, it gives 1.
.global guarded_call, guarded_end
guarded_call:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    mov [rdx], rsp
    mov rax, rdi
    mov rdi, rsi
    call rax
    xor eax, eax
    jmp guarded_leave
guarded_end:
    mov eax, 1
guarded_leave:
    pop rdx
    mov qword ptr [rdx], 0
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# enter_user(rip, rsp, rflags, cs, ss): goes to another privilege level, or mode, never to return by itself.
.global enter_user
enter_user:
    push r8
    push rsi
    push rdx
    push rcx
    push rdi
    iretq
