# Handlers that write down what came and go back to the program, and handlers that count and go on.
.section .text.modes, "ax"

# 256 entries, 16 bytes apart, that end up with the vector and an error code, or 0, on the stack.
.macro modes_entries common
    .balign 16
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17)
    .byte 0x6a, 0               # push 0
    .endif
    .byte 0x68                  # push vector
    .long vector
    jmp \common
    .set vector, vector + 1
    .endr
.endm

.macro modes_end_interrupt
    mov ecx, {eoi}
    xor eax, eax
    xor edx, edx
    wrmsr
.endm

# Of 32-bit protected mode, with any paging, and of virtual-8086 mode.
.code32
.global modes_entries_32, modes_count_32
    .balign 16
modes_entries_32:
    modes_entries modes_common_32

# The stack may be one of 16 bits: only POP knows where it is.
modes_common_32:
    push eax
    mov eax, {data}
    mov ds, eax
    pop dword ptr [{result}]
    mov [{result} + 0x8], ecx
    mov [{result} + 0x10], edx
    mov [{result} + 0x18], ebx
    mov [{result} + 0x20], esi
    mov [{result} + 0x28], edi
    pop dword ptr [{result} + 0x30]
    pop dword ptr [{result} + 0x38]
    pop dword ptr [{result} + 0x40]
    pop eax                     # CS
    pop dword ptr [{result} + 0x48]
    mov eax, cr2
    mov [{result} + 0x50], eax
    jmp modes_up

modes_count_32:
    push eax
    push ecx
    push edx
    .byte 0x1e                  # push ds: LLVM's has 16 bits
    mov eax, {data}
    mov ds, eax
    inc dword ptr [{count}]
    modes_end_interrupt
    .byte 0x1f                  # pop ds
    pop edx
    pop ecx
    pop eax
    iretd

# Of long mode.
.code64
.global modes_entries_64, modes_count_64
    .balign 16
modes_entries_64:
    modes_entries modes_common_64

modes_common_64:
    mov [{result}], rax
    mov [{result} + 0x8], rcx
    mov [{result} + 0x10], rdx
    mov [{result} + 0x18], rbx
    mov [{result} + 0x20], rsi
    mov [{result} + 0x28], rdi
    pop qword ptr [{result} + 0x30]
    pop qword ptr [{result} + 0x38]
    pop qword ptr [{result} + 0x40]
    pop rax                     # CS
    pop qword ptr [{result} + 0x48]
    mov rax, cr2
    mov [{result} + 0x50], rax
    push {code_32}
    lea rax, [rip + modes_up]
    push rax
    .byte 0x48, 0xcb

modes_count_64:
    push rax
    push rcx
    push rdx
    inc dword ptr [{count}]
    modes_end_interrupt
    pop rdx
    pop rcx
    pop rax
    iretq
