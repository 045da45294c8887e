//! What the guests of the tests run: small pieces of machine code, assembled with this program.
#![expect(unsafe_code, reason = "the pieces are found by symbols of the assembler")]

use core::arch::global_asm;

/// Makes functions that give pieces of code. Each starts at a multiple of 256 in the program and in the guest.
macro_rules! pieces {
    ($($(#[$attribute:meta])* $name:ident $text:literal)*) => { $(
        global_asm!(
            ".pushsection .rodata.guest, \"a\", @progbits",
            ".balign 256",
            concat!("guest_code_", stringify!($name), ":"),
            $text,
            ".code64",
            concat!("guest_code_", stringify!($name), "_end:"),
            ".popsection",
        );

        $(#[$attribute])*
        #[must_use]
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("guest_code_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("guest_code_", stringify!($name), "_end")]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: Both symbols are in one section of read-only data, in this order.
            unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
        }
    )* };
}

pieces! {
    /// Real mode: three outputs and an input, of each width, then the sum of what came.
    ports "
    .code16
        mov al, 0x41
        out 0x80, al
        mov ax, 0x4243
        out 0x80, ax
        mov dx, 0x1234
        mov eax, 0x44454647
        out dx, eax
        in al, dx
        movzx ebx, al
        in ax, dx
        movzx eax, ax
        add ebx, eax
        in eax, dx
        add ebx, eax
        hlt
    "
    /// 32-bit protected mode: jumps to the task of selector 0x28. Behind it, at 16, is where that task is to go on.
    task_switch "
    .code32
        .byte 0xea
        .long 0
        .short 0x28
        .balign 16
        out 0x80, al
    "
    /// Real mode: string output, string input, each repeated.
    strings "
    .code16
        mov dx, 0x99
        mov si, 0x2000
        mov cx, 5
        rep outsb
        mov di, 0x2100
        insw
        hlt
    "
    /// Real mode: CPUID of the leaf and sub-leaf in EAX and ECX, then an output, for ever.
    cpuid "
    .code16
    2:  cpuid
        out 0x80, al
        jmp 2b
    "
    /// Real mode: RDMSR of ECX, an output, WRMSR of ECX, an output, for ever.
    msr "
    .code16
    2:  rdmsr
        out 0x80, al
        wrmsr
        out 0x81, al
        jmp 2b
    "
    /// Real mode: a read, a write and a fetch at 0xf010.
    memory "
    .code16
        mov bx, 0xf010
        mov al, [bx]
        mov [bx], al
        .byte 0xea, 0x10, 0xf0, 0, 0
    "
    /// Real mode: the hypercall of Intel's processors, for ever.
    vmcall "
    .code16
    2:  vmcall
        jmp 2b
    "
    /// Real mode: that of AMD's.
    vmmcall "
    .code16
    2:  vmmcall
        jmp 2b
    "
    /// 64-bit: as often as R11 says, writes RBX and one more each time to R9 places from R8 on, R10 bytes apart; says so.
    writes "
    .code64
    2:  mov rsi, r8
        mov rcx, r9
    3:  mov [rsi], rbx
        add rsi, r10
        dec rcx
        jnz 3b
        inc rbx
        dec r11
        jnz 2b
        out 0x80, al
        jmp 2b
    "
    /// Real mode: an invalid instruction.
    invalid "
    .code16
        ud2
    "
    /// Real mode: for ever.
    forever "
    .code16
    2:  jmp 2b
    "
    /// Real mode: asks for ever what CPU this is.
    asks "
    .code16
    2:  xor eax, eax
        cpuid
        jmp 2b
    "
    /// Real mode: halts for ever, with interrupts as they are.
    halts "
    .code16
    2:  hlt
        jmp 2b
    "
    /// Real mode: switches the APIC on and waits for interrupts for ever. Behind it, at 256, is a handler that says that it ran, ends the interrupt
    /// and says so; at 512 one that says that an NMI came.
    interrupts "
    .code16
        mov ecx, 0x80f
        mov eax, 0x1ff
        xor edx, edx
        wrmsr
        out 0x8f, al
    2:  sti
        hlt
        jmp 2b
        .balign 256
        push eax
        push ecx
        push edx
        mov al, 0x55
        out 0x80, al
        mov ecx, 0x80b
        xor eax, eax
        xor edx, edx
        wrmsr
        out 0x81, al
        pop edx
        pop ecx
        pop eax
        iret
        .balign 256
        out 0x82, al
        iret
    "
    /// Real mode: a handler that says that it ran, ends the interrupt in memory at 0x7f04 where it may and by the APIC otherwise, and says so.
    ends "
    .code16
        out 0x80, al
        btr dword ptr [0x7f04], 0
        jc 2f
        mov ecx, 0x80b
        xor eax, eax
        xor edx, edx
        wrmsr
    2:  out 0x81, al
        iret
    "
    /// Real mode: switches the APIC on; interrupts are off, a while; then an output, STI, and an output. Its handler is that of `interrupts`.
    window "
    .code16
        mov ecx, 0x80f
        mov eax, 0x1ff
        xor edx, edx
        wrmsr
        out 0x8f, al
        mov cx, 1000
    2:  loop 2b
        out 0x90, al
        sti
        nop
        out 0x91, al
        hlt
    "
    /// 64-bit: system-call registers, SYSCALL, SWAPGS and SYSRET; says what it found on the way.
    system_call "
    .code64
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1
        wrmsr
        mov ecx, 0xc0000081
        xor eax, eax
        mov edx, 0x00100008
        wrmsr
        mov ecx, 0xc0000082
        mov eax, 0x1100
        xor edx, edx
        wrmsr
        mov ecx, 0xc0000084
        mov eax, 0x200
        xor edx, edx
        wrmsr
        mov ecx, 0xc0000102
        mov eax, 0x12345678
        mov edx, 0x7abc
        wrmsr
        out 0x80, al
        syscall
        ud2
        .balign 256
        swapgs
        mov ecx, 0xc0000101
        rdmsr
        mov esi, eax
        mov edi, edx
        mov ecx, 0xc0000082
        rdmsr
        out 0x81, eax
        swapgs
        mov ecx, 0xc0000102
        rdmsr
        out 0x82, eax
        hlt
    "
    /// 64-bit: switches the APIC on, raises the task priority to 5, says so, lowers it, by CR8
    /// or if EBX is 1 by its MSR, says so.
    task_priority "
    .code64
        mov ecx, 0x80f
        mov eax, 0x1ff
        xor edx, edx
        wrmsr
        out 0x8f, al
        mov eax, 5
        mov cr8, rax
        sti
        nop
        out 0x90, al
        mov ecx, 1000
    2:  loop 2b
        out 0x91, al
        xor eax, eax
        xor edx, edx
        mov ecx, 0x808
        test ebx, ebx
        jnz 3f
        mov cr8, rax
        jmp 4f
    3:  wrmsr
    4:  nop
        out 0x92, al
    2:  hlt
        jmp 2b
        .balign 256
        push rax
        mov al, 0x55
        out 0x80, al
        mov ecx, 0x80b
        xor eax, eax
        xor edx, edx
        wrmsr
        pop rax
        iretq
    "
    /// 64-bit: tells the time-stamp counter around a number of CPUIDs: ticks in RAX.
    measure_cpuid "
    .code64
        mov r8d, 1000
        rdtsc
        mov r9d, eax
    2:  xor eax, eax
        xor ecx, ecx
        cpuid
        dec r8d
        jnz 2b
        rdtsc
        sub eax, r9d
        out 0x80, eax
    "
    /// 64-bit: the same of hypercalls. EBX says which: 0 Intel's, 1 AMD's.
    measure_hypercall "
    .code64
        mov r8d, 1000
        rdtsc
        mov r9d, eax
    2:  xor eax, eax
        test ebx, ebx
        jnz 3f
        vmcall
        jmp 4f
    3:  vmmcall
    4:  dec r8d
        jnz 2b
        rdtsc
        sub eax, r9d
        out 0x80, eax
    "
    /// 64-bit: the same of port writes.
    measure_port "
    .code64
        mov r8d, 1000
        rdtsc
        mov r9d, eax
    2:  out 0x81, al
        dec r8d
        jnz 2b
        rdtsc
        sub eax, r9d
        out 0x80, eax
    "
    /// 64-bit: a single step over a NOP. The handler of #DB, at 256, says what DR6 is.
    single_step "
    .code64
        pushfq
        or qword ptr [rsp], 0x100
        popfq
        nop
        nop
        hlt
        .balign 256
        mov rax, dr6
        out 0x80, eax
        hlt
    "
    /// Real mode to 64-bit mode, by a table at 0x3000 and page tables at 0x4000; says in which mode it is.
    modes "
    .code16
        lgdt [0x3100]
        mov eax, cr0
        or eax, 0x21
        mov cr0, eax
        out 0x80, al
        .byte 0x66, 0xea
        .long 0x1100
        .word 8
        .balign 256
    .code32
        mov ax, 24
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, 0x4000
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        out 0x81, al
        .byte 0xea
        .long 0x1200
        .word 16
        .balign 256
    .code64
        mov rax, 0x123456789abcdef0
        shr rax, 32
        out 0x82, eax
        mov rax, cr0
        out 0x83, eax
        mov ecx, 0xc0000080
        rdmsr
        out 0x84, eax
        mov rax, cr4
        out 0x85, eax
        hlt
    "
    /// 64-bit: puts RAX into an SSE register and adds 1 to it at each output.
    vector "
    .code64
        mov rax, cr0
        and eax, ~0xc
        mov cr0, rax
        mov rax, cr4
        or eax, 0x200
        mov cr4, rax
        movq xmm3, rbx
    2:  out 0x80, al
        movq rax, xmm3
        inc rax
        movq xmm3, rax
        jmp 2b
    "
}
