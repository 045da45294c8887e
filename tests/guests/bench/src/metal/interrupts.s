# Each handler's first act is to read the time. It gets it in RDI; the stack is aligned for it by what the CPU and
# this code push: 5 and 9 words.
.macro interrupt name, handler
.global \name
\name:
    push rax
    push rdx
    rdtsc
    push rcx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    shl rdx, 32
    or rax, rdx
    mov rdi, rax
    cld
    call \handler
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rcx
    pop rdx
    pop rax
    iretq
.endm

.section .text.interrupts, "ax"
interrupt measured_interrupt, {measured}
interrupt ping_interrupt, {ping}
