# From long mode to Rust: each CPU gets its segments and its stack.
.section .text.boot, "ax"
.code64
first_in_long_mode:
    mov rsp, offset first_stack_top
    lea rax, [rip + {first}]
    jmp load_segments

other_in_long_mode:
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

.section .bss.boot, "aw", @nobits
    .balign 16
    .skip 0x4000
first_stack_top:
    .skip 0x4000
second_stack_top:
