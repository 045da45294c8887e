//! Control registers and flags (SDM 3A, "Control Registers"; APM 2, 3.1).

flags! {
    /// CR0.
    Cr0: u64 {
        PE       0  "Protection Enable."
        MP       1  "Monitor Coprocessor: WAIT obeys TS."
        EM       2  "Emulation: FPU instructions are #NM."
        TS       3  "Task Switched: the next FPU instruction is #NM."
        ET       4  "Extension Type, always 1."
        NE       5  "Numeric Error: FPU errors are #MF."
        WP      16  "Write Protect: the kernel too obeys read-only pages."
        AM      18  "Alignment Mask: RFLAGS.AC is obeyed at ring 3."
        NW      29  "Not Write-through."
        CD      30  "Cache Disable."
        PG      31  "Paging."
    }

    /// CR3, beside the address of the root table.
    Cr3: u64 {
        PWT          3  "Page-level Write-Through of the root table; only if CR4.PCIDE is 0."
        PCD          4  "Page-level Cache Disable of the root table; only if CR4.PCIDE is 0."
        NO_FLUSH    63  "Writing keeps the PCID's translations; only if CR4.PCIDE is 1."
    }

    /// CR4.
    Cr4: u64 {
        VME          0  "Virtual-8086 Mode Extensions."
        PVI          1  "Protected-Mode Virtual Interrupts."
        TSD          2  "Time Stamp Disable: RDTSC is #GP outside ring 0."
        DE           3  "Debugging Extensions."
        PSE          4  "Page Size Extensions, for 32-bit paging."
        PAE          5  "Physical Address Extension."
        MCE          6  "Machine-Check Enable."
        PGE          7  "Page Global Enable."
        PCE          8  "RDPMC at every ring."
        OSFXSR       9  "FXSAVE, FXRSTOR and SSE."
        OSXMMEXCPT  10  "SIMD floating-point errors are #XM."
        UMIP        11  "User-Mode Instruction Prevention: SGDT, SIDT, SLDT, SMSW, STR are #GP at ring 3."
        LA57        12  "57-bit linear addresses."
        VMXE        13  "VMX."
        SMXE        14  "SMX."
        FSGSBASE    16  "RDFSBASE, WRFSBASE, RDGSBASE, WRGSBASE."
        PCIDE       17  "Process-context identifiers."
        OSXSAVE     18  "XSAVE and XCR0."
        KL          19  "Key Locker."
        SMEP        20  "Supervisor-Mode Execution Prevention."
        SMAP        21  "Supervisor-Mode Access Prevention."
        PKE         22  "Protection keys for user pages."
        CET         23  "Control-flow Enforcement Technology."
        PKS         24  "Protection keys for supervisor pages."
        UINTR       25  "User interrupts."
        LASS        27  "Linear-Address-Space Separation."
        LAM_SUP     28  "Linear-Address Masking of supervisor pointers."
        FRED        32  "Flexible Return and Event Delivery."
    }

    /// RFLAGS, beside the I/O privilege level (SDM 1, "EFLAGS Register").
    Rflags: u64 {
        CF       0  "Carry."
        FIXED    1  "Always 1."
        PF       2  "Parity."
        AF       4  "Auxiliary Carry."
        ZF       6  "Zero."
        SF       7  "Sign."
        TF       8  "Trap: #DB after each instruction."
        IF       9  "Interrupt Enable."
        DF      10  "Direction: string instructions go down."
        OF      11  "Overflow."
        NT      14  "Nested Task."
        RF      16  "Resume: instruction breakpoints are ignored once."
        VM      17  "Virtual-8086 Mode."
        AC      18  "Alignment Check at ring 3; at ring 0, SMAP is suspended."
        VIF     19  "Virtual Interrupt."
        VIP     20  "Virtual Interrupt Pending."
        ID      21  "CPUID exists if this can be changed."
    }

    /// XCR0: state components that XSAVE manages (SDM 1, "XSAVE-Supported Features and State-Component Bitmaps").
    Xcr0: u64 {
        X87          0  "x87, always 1."
        SSE          1  "XMM registers and MXCSR."
        AVX          2  "Upper halves of the YMM registers."
        BNDREGS      3  "MPX bounds."
        BNDCSR       4  "MPX configuration and status."
        OPMASK       5  "AVX-512 mask registers."
        ZMM_HI256    6  "Upper halves of ZMM0 to ZMM15."
        HI16_ZMM     7  "ZMM16 to ZMM31."
        PKRU         9  "Protection keys of user pages."
        TILECFG     17  "AMX configuration."
        TILEDATA    18  "AMX tiles."
    }
}

/// Host-physical address of the root table in CR3; bits above the processor's address width are reserved.
pub const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Process-context identifier in CR3, if CR4.PCIDE is 1.
pub const CR3_PCID: u64 = 0xfff;
/// I/O privilege level in RFLAGS.
pub const RFLAGS_IOPL: u64 = 0b11 << 12;
