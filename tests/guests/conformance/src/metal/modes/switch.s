# From the 64-bit program down to another mode and back. What the mode is to be, and what it came to, are in low memory,
# where each mode reaches it: `switch.rs` says how.

# modes_go(): sets the plan's registers, mode and all; comes back when a handler has written down what happened.
.section .text.modes, "ax"
.code64
.global modes_go
modes_go:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    cli
    mov [rip + modes_rsp], rsp
    sgdt [rip + modes_gdt]
    sidt [rip + modes_idt]
    mov rax, cr0
    mov [rip + modes_cr0], eax
    mov rax, cr3
    mov [rip + modes_cr3], eax
    mov rax, cr4
    mov [rip + modes_cr4], eax
    mov ecx, {efer}
    rdmsr
    and eax, 0xfffffbff         # LMA is not written
    mov [rip + modes_efer], eax
    lgdt [{plan} + 0x70]
    push {code_32}
    lea rax, [rip + modes_down]
    push rax
    .byte 0x48, 0xcb            # far return of 64 bits

# Addresses are physical once paging is off, and all tables map this code at its own address (SDM 3A, "Switching Out of
# IA-32e Mode Operation").
.code32
modes_down:
    mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, {stack}
    mov eax, cr0
    and eax, 0x7fffffff         # PG
    mov cr0, eax
    mov ecx, {efer}
    mov eax, [{plan} + 0xc]
    xor edx, edx
    wrmsr
    mov eax, [{plan} + 8]
    mov cr4, eax
    mov eax, [{plan} + 4]
    mov cr3, eax
    mov eax, {task}
    ltr ax
    lidt [{plan} + 0x80]
    mov eax, [{plan}]
    mov cr0, eax
    jmp 2f
2:  cmp dword ptr [{plan} + 0x6c], 0
    jne modes_real
    mov es, [{plan} + 0x38]
    mov fs, [{plan} + 0x3c]
    mov gs, [{plan} + 0x40]
    mov ss, [{plan} + 0x2c]
    mov esp, [{plan} + 0x30]
    mov ecx, [{plan} + 0x44]
    mov esi, {plan} + 0x48
3:  push dword ptr [esi]
    add esi, 4
    dec ecx
    jnz 3b
    mov eax, [{plan} + 0x10]
    mov ecx, [{plan} + 0x14]
    mov edx, [{plan} + 0x18]
    mov ebx, [{plan} + 0x1c]
    mov ebp, [{plan} + 0x20]
    mov esi, [{plan} + 0x24]
    mov edi, [{plan} + 0x28]
    mov ds, [{plan} + 0x34]
    iretd

modes_real:
    .byte 0xea                  # far jump to the 16-bit segment
    .long modes_real_16 - modes_low + {low_offset}
    .word {code_16}

# Back to the program, from 32-bit code with flat segments to be loaded and any paging but what hides this code.
modes_up:
    mov eax, {data}
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, {stack}
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, [modes_cr4]        # PAE before LME: in between, an exit breaks QEMU 10 (docs/CAVEATS.md)
    mov cr4, eax
    mov ecx, {efer}
    mov eax, [modes_efer]
    xor edx, edx
    wrmsr
    mov eax, [modes_cr3]
    mov cr3, eax
    mov eax, [modes_cr0]
    mov cr0, eax
    .byte 0xea
    .long modes_back
    .word {code_64}

.code64
modes_back:
    lgdt [rip + modes_gdt]
    lidt [rip + modes_idt]
    mov rsp, [rip + modes_rsp]
    mov rax, rsp
    push {data}
    push rax
    pushfq
    push {code_64}
    lea rax, [rip + 2f]
    push rax
    iretq                       # ends an NMI's handler, if that is what came
2:  popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# Handlers of 32-bit protected mode, with any paging, and of virtual-8086 mode: 256 entries, 16 bytes apart.
.code32
.global modes_entries_32, modes_count_32
    .balign 16
modes_entries_32:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17)
    .byte 0x6a, 0               # push 0
    .endif
    .byte 0x68                  # push vector
    .long vector
    jmp modes_common_32
    .set vector, vector + 1
    .endr

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

# A handler that counts, ends the interrupt and goes on.
modes_count_32:
    push eax
    push ecx
    push edx
    .byte 0x1e                  # push ds: LLVM's has 16 bits
    mov eax, {data}
    mov ds, eax
    inc dword ptr [{count}]
    mov ecx, {eoi}
    xor eax, eax
    xor edx, edx
    wrmsr
    .byte 0x1f                  # pop ds
    pop edx
    pop ecx
    pop eax
    iretd

# The same for long mode.
.code64
.global modes_entries_64, modes_count_64
    .balign 16
modes_entries_64:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17)
    .byte 0x6a, 0
    .endif
    .byte 0x68
    .long vector
    jmp modes_common_64
    .set vector, vector + 1
    .endr

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
    mov ecx, {eoi}
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq

# What has to be in a 16-bit segment; copied to low memory.
.global modes_low, modes_count_16, modes_low_end
.code16
modes_low:
    .rept 256                   # handlers of real mode, 4 bytes apart: a near call tells which
    .byte 0xe8
    .word modes_common_16 - . - 2
    .byte 0x90
    .endr

modes_common_16:
    mov dword ptr cs:[{result_offset}], eax
    mov dword ptr cs:[{result_offset} + 0x8], ecx
    mov dword ptr cs:[{result_offset} + 0x10], edx
    mov dword ptr cs:[{result_offset} + 0x18], ebx
    mov dword ptr cs:[{result_offset} + 0x20], esi
    mov dword ptr cs:[{result_offset} + 0x28], edi
    pop ax
    sub ax, {low_offset} + 3
    shr ax, 2
    mov word ptr cs:[{result_offset} + 0x30], ax
    pop ax
    mov word ptr cs:[{result_offset} + 0x40], ax
    pop ax                      # CS
    pop ax
    mov word ptr cs:[{result_offset} + 0x48], ax
    mov eax, cr2
    mov dword ptr cs:[{result_offset} + 0x50], eax
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea
    .long modes_up
    .word {code_32}

# Of real mode and 16-bit protected mode: the stack is in the same segment as the count.
modes_count_16:
    push eax
    push ecx
    push edx
    inc dword ptr ss:[{count_offset}]
    mov ecx, {eoi}
    xor eax, eax
    xor edx, edx
    wrmsr
    pop edx
    pop ecx
    pop eax
    .byte 0xcf                  # IRET of 16 bits

# From 16-bit protected mode to real mode. FS and GS keep the bases of their descriptors.
modes_real_16:
    mov ax, {data_16}
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ax, {window}
    mov fs, ax
    mov ax, {configuration}
    mov gs, ax
    mov eax, cr0
    and al, 0xfe                # PE
    mov cr0, eax
    .byte 0xea
    .word 2f - modes_low + {low_offset}
    .word {segment}
2:  mov ax, {segment}
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, dword ptr [{plan_offset} + 0x30]
    push word ptr [{plan_offset} + 0x48]
    push word ptr [{plan_offset} + 0x4c]
    push word ptr [{plan_offset} + 0x50]
    mov eax, dword ptr [{plan_offset} + 0x10]
    mov ecx, dword ptr [{plan_offset} + 0x14]
    mov edx, dword ptr [{plan_offset} + 0x18]
    mov ebx, dword ptr [{plan_offset} + 0x1c]
    mov ebp, dword ptr [{plan_offset} + 0x20]
    mov esi, dword ptr [{plan_offset} + 0x24]
    mov edi, dword ptr [{plan_offset} + 0x28]
    .byte 0xcf
modes_low_end:
.code64

.section .bss.modes, "aw", @nobits
    .balign 16
modes_gdt:
    .skip 16
modes_idt:
    .skip 16
modes_rsp:
    .skip 8
modes_cr0:
    .skip 4
modes_cr3:
    .skip 4
modes_cr4:
    .skip 4
modes_efer:
    .skip 4
