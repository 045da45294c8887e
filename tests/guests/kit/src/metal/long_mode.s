# From the entry of a guest to long mode, on all CPUs, without a stack. Who includes this has, in long mode and at
# addresses as linked, first_in_long_mode and other_in_long_mode.
#
# The first CPU comes by PVH: 32-bit protected mode without paging, flat segments, interrupts off. EBX is the address of
# the start structure.
.section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              # sizes of name and descriptor; XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

# Goes on in 64-bit code, from 32-bit code without paging.
.macro enter_long_mode target
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
    .byte 0xea                  # jump to a 64-bit segment
    .long \target
    .word 8
.endm

.section .text.boot, "ax"
.global pvh_entry
.code32
pvh_entry:
    cld
    mov [start_information], ebx
    lgdt [gdt_pointer]
    enter_long_mode first_in_long_mode

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

.code32
other_in_protected_mode:
    mov eax, 16
    mov ds, eax
    mov ss, eax
    enter_long_mode other_in_long_mode
.code64

.section .data.boot, "aw"
    .balign 8
.global start_information
start_information:
    .quad 0
gdt:
    .quad 0
    .quad 0x00af9a000000ffff    # 8: code, 64-bit
    .quad 0x00cf92000000ffff    # 16: data
    .quad 0x00cf9a000000ffff    # 24: code, 32-bit
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

# The first 4 GiB at their own addresses, in pages of 2 MiB: present, writable, large. The rest of the top level
# is free.
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
