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
    modes_end_interrupt
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
