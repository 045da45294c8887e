# From long mode to Rust: each CPU gets its segments and its stack.
.section .text.boot, "ax"
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
