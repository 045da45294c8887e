# Entry of the first CPU by PVH: 32-bit protected mode without paging, flat segments, interrupts off. EBX is the address of
# the start structure.
.section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              # sizes of name and descriptor; XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

.section .text.boot, "ax"
.global pvh_entry
.code32
pvh_entry:
    cld
    mov [start_information], ebx
    mov esp, offset boot_stack_top
    call enable_long_mode
    lgdt [gdt_pointer]
    push 8
    mov eax, offset first_in_long_mode
    push eax
    retf

enable_long_mode:
    mov eax, cr4
    or eax, 1 << 5              # PAE
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080         # EFER
    rdmsr
    or eax, 1 << 8              # LME
    wrmsr
    mov eax, cr0
    and eax, 0x9fffffff         # CD, NW
    or eax, 0x80010021          # PG, WP, NE, PE
    mov cr0, eax
    ret

.code64
first_in_long_mode:
    lea rdx, [rip + {first}]
    xor edi, edi
    jmp enter_rust

other_in_long_mode:
    mov eax, 0xb                # the APIC ID, which is the number
    xor ecx, ecx
    cpuid
    mov edi, edx
    lea rdx, [rip + {other}]

# Goes on at RDX with the number of the CPU, EDI. Each has a block of 64 KiB whose end is its stack.
enter_rust:
    mov ecx, 16
    mov ds, ecx
    mov es, ecx
    mov ss, ecx
    lea rsp, [rip + {blocks}]
    lea eax, [rdi + 1]
    shl rax, 16
    add rsp, rax
    xor ebp, ebp
    call rdx
    ud2

# Entry of the other CPUs, copied to where their start-up interrupt sends them: real mode at CS:0. The copy reaches its
# own data by way of CS, the rest by addresses as linked.
.global other_entry, other_entry_end
.code16
other_entry:
    cli
    mov ax, cs
    mov ds, ax
    mov ebx, offset gdt_pointer_in_copy
    lgdtd [bx]
    mov eax, cr0
    or al, 1                    # PE
    mov cr0, eax
    .byte 0x66, 0xea            # jump to a 32-bit segment: LLVM has no name for this form in 16-bit code
    .long other_in_protected_mode
    .word 24
other_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
other_entry_end:
.set gdt_pointer_in_copy, other_gdt_pointer - other_entry

# They come together: none needs a stack before its own.
.code32
other_in_protected_mode:
    mov eax, 16
    mov ds, eax
    mov ss, eax
    mov eax, cr4
    or eax, 1 << 5
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 1 << 8
    wrmsr
    mov eax, cr0
    and eax, 0x9fffffff
    or eax, 0x80010021
    mov cr0, eax
    .byte 0xea
    .long other_in_long_mode
    .word 8
.code64

.section .data.boot, "aw"
.global start_information
start_information:
    .quad 0
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff    # 8: code, 64-bit
    .quad 0x00cf92000000ffff    # 16: data
    .quad 0x00cf9a000000ffff    # 24: code, 32-bit
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

# The first 4 GiB at their own addresses, in pages of 2 MiB: present, writable, large. The second entry of the top level
# is for `playground`.
    .balign 4096
.global pml4
pml4:
    .quad pdpt + 3
    .fill 511, 8, 0
pdpt:
    .quad page_directories + 0x0003
    .quad page_directories + 0x1003
    .quad page_directories + 0x2003
    .quad page_directories + 0x3003
    .fill 508, 8, 0
page_directories:
    .set page, 0
    .rept 2048
    .quad (page << 21) + 0x83
    .set page, page + 1
    .endr

.section .bss.boot, "aw", @nobits
    .balign 16
    .skip 0x100
boot_stack_top:
