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
