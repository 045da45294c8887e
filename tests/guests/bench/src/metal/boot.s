# Entry of the first CPU by PVH: 32-bit protected mode without paging, flat segments, interrupts off.
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
    mov esp, offset first_stack_top
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
    or eax, 0x80000001          # PG, PE
    mov cr0, eax
    ret

.code64
first_in_long_mode:
    mov rsp, offset first_stack_top
    lea rax, [rip + {first}]
    jmp load_segments

second_in_long_mode:
    mov rsp, offset second_stack_top
    lea rax, [rip + {second}]

# Goes on at RAX.
load_segments:
    mov ecx, 16
    mov ds, ecx
    mov es, ecx
    mov ss, ecx
    xor ebp, ebp
    call rax
    ud2

# Entry of the second CPU, copied to where its start-up interrupt sends it: real mode at CS:0. The copy reaches its
# own data by way of CS, the rest by addresses as linked.
.global second_entry, second_entry_end
.code16
second_entry:
    cli
    mov ax, cs
    mov ds, ax
    mov ebx, offset gdt_pointer_in_copy
    lgdtd [bx]
    mov eax, cr0
    or al, 1                    # PE
    mov cr0, eax
    .byte 0x66, 0xea            # jump to a 32-bit segment: LLVM has no name for this form in 16-bit code
    .long second_in_protected_mode
    .word 24
second_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
second_entry_end:
.set gdt_pointer_in_copy, second_gdt_pointer - second_entry

.code32
second_in_protected_mode:
    mov eax, 16
    mov ds, eax
    mov ss, eax
    mov esp, offset second_stack_top
    call enable_long_mode
    push 8
    mov eax, offset second_in_long_mode
    push eax
    retf
.code64

.section .data.boot, "aw"
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

# The first 4 GiB at their own addresses, in pages of 2 MiB: present, writable, large.
    .balign 4096
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
    .skip 0x4000
first_stack_top:
    .skip 0x4000
second_stack_top:
