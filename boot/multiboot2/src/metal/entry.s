# From the state that a Multiboot2 boot loader leaves (Multiboot2 Specification 2.0, 3.3: 32-bit protected mode, no paging,
# EAX magic number, EBX address of the information) to 64-bit mode with the first 4 GiB mapped to themselves.

.section .multiboot2, "a"
.balign 8
multiboot2_header:
    .long 0xe85250d6                            # magic number
    .long 0                                     # 32-bit protected mode of i386
    .long multiboot2_header_end - multiboot2_header
    .long 0x100000000 - (0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    # Tag 6: modules begin at pages, as the handoff's bundle must.
    .short 6, 0
    .long 8
    # Tag 0: the end.
    .short 0, 0
    .long 8
multiboot2_header_end:

.section .text.multiboot2_entry, "ax"
.code32
.global multiboot2_entry
multiboot2_entry:
    cli
    cld
    lea esp, [boot_stack_end]
    mov edi, ebx
    lea esi, [not_multiboot2]
    cmp eax, 0x36d76289
    jne fail

    # CPUID is there if bit 21 of EFLAGS can be changed (SDM 1, 21.1), long mode if extended leaf 1 says so in bit 29.
    lea esi, [no_long_mode]
    pushfd
    pop eax
    mov ecx, eax
    xor eax, 1 << 21
    push eax
    popfd
    pushfd
    pop eax
    cmp eax, ecx
    je fail
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb fail
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc fail

    # Present and writable tables for 4 GiB of pages of 2 MiB.
    lea eax, [boot_level3 + 3]
    mov [boot_level4], eax
    lea eax, [boot_level2 + 3]
    xor ecx, ecx
1:  mov [boot_level3 + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jne 1b
    mov eax, 0x83
    xor ecx, ecx
2:  mov [boot_level2 + ecx * 8], eax
    add eax, 2 << 20
    inc ecx
    cmp ecx, 4 * 512
    jne 2b

    # Into long mode (SDM 3A, 10.8.5).
    mov eax, 1 << 5                             # CR4: PAE
    mov cr4, eax
    lea eax, [boot_level4]
    mov cr3, eax
    mov ecx, 0xc0000080                         # EFER: LME
    rdmsr
    or eax, 1 << 8
    wrmsr
    mov eax, 0x80010033                         # CR0: PG, WP, NE, ET, MP, PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    lidt [boot_idt_pointer]
    push 8
    lea eax, [long_mode]
    push eax
    retf

# Shows the text at ESI on COM1 and on a text screen, then stops for good.
fail:
    mov dx, 0x3f9                               # no interrupts
    xor eax, eax
    out dx, al
    mov dx, 0x3fb                               # 115200 baud: divisor 1
    mov al, 0x80
    out dx, al
    mov dx, 0x3f8
    mov al, 1
    out dx, al
    mov dx, 0x3f9
    xor eax, eax
    out dx, al
    mov dx, 0x3fb                               # 8 bits, no parity, 1 stop bit
    mov al, 3
    out dx, al
    mov edi, 0xb8000
3:  mov bl, [esi]
    inc esi
    test bl, bl
    jz 5f
    mov bh, 0x4f                                # white on red
    mov [edi], bx
    add edi, 2
    mov dx, 0x3fd                               # wait for room, but not for ever
    mov ecx, 1 << 20
4:  in al, dx
    test al, 1 << 5
    loopz 4b
    mov dx, 0x3f8
    mov al, bl
    out dx, al
    jmp 3b
5:  hlt
    jmp 5b

.code64
long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov ss, eax
    lea rsp, [rip + boot_stack_end]
    xor ebp, ebp
    mov edi, edi                                # clears the upper half
    call {loader_main}
    ud2

.section .rodata.multiboot2_entry, "a"
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff                    # code, 64-bit, accessed
    .quad 0x00cf93000000ffff                    # data, accessed
boot_gdt_end:
boot_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .long boot_gdt, 0
boot_idt_pointer:                               # an empty table: an exception resets the machine
    .short 0
    .long 0, 0
not_multiboot2:
    .asciz "loader: not started by a Multiboot2 boot loader\r\n"
no_long_mode:
    .asciz "loader: this CPU has no 64-bit mode, which Dragonfly needs\r\n"

.section .bss.multiboot2_entry, "aw", @nobits
.balign 4096
boot_level4: .skip 4096
boot_level3: .skip 4096
boot_level2: .skip 4 * 4096
boot_stack: .skip 128 << 10
boot_stack_end:
