//! What makes a guest leave (APM 2, table B-1 and 15.9). An instruction leaves before it has an effect.

stored_flags! {
    /// Intercept vector 2: exceptions, by vector. The processor's own exceptions only, not INT n.
    InterceptException: u32 {
        DE       0  "Divide error."
        DB       1  "Debug."
        BP       3  "Breakpoint."
        OF       4  "Overflow."
        BR       5  "BOUND range exceeded."
        UD       6  "Invalid opcode."
        NM       7  "Device not available."
        DF       8  "Double fault."
        TS      10  "Invalid TSS."
        NP      11  "Segment not present."
        SS      12  "Stack-segment fault."
        GP      13  "General protection."
        PF      14  "Page fault."
        MF      16  "x87 floating-point error."
        AC      17  "Alignment check."
        MC      18  "Machine check."
        XF      19  "SIMD floating-point exception."
        CP      21  "Control protection."
        HV      28  "Hypervisor injection."
        VC      29  "VMM communication."
        SX      30  "Security."
    }

    /// Intercept vector 3.
    Intercept3: u32 {
        INTR             0  "Physical maskable interrupt."
        NMI              1  "Physical NMI."
        SMI              2  "Physical SMI."
        INIT             3  "Physical INIT."
        VINTR            4  "Virtual interrupt: the guest is about to take it."
        CR0_SEL_WRITE    5  "Write of CR0 that changes other bits than TS and MP."
        IDTR_READ        6  "SIDT."
        GDTR_READ        7  "SGDT."
        LDTR_READ        8  "SLDT."
        TR_READ          9  "STR."
        IDTR_WRITE      10  "LIDT."
        GDTR_WRITE      11  "LGDT."
        LDTR_WRITE      12  "LLDT."
        TR_WRITE        13  "LTR."
        RDTSC           14  "RDTSC."
        RDPMC           15  "RDPMC."
        PUSHF           16  "PUSHF."
        POPF            17  "POPF."
        CPUID           18  "CPUID."
        RSM             19  "RSM."
        IRET            20  "IRET."
        SWINT           21  "INT n."
        INVD            22  "INVD."
        PAUSE           23  "PAUSE, subject to the pause filter."
        HLT             24  "HLT."
        INVLPG          25  "INVLPG."
        INVLPGA         26  "INVLPGA."
        IOIO_PROT       27  "IN and OUT of ports that the I/O permissions map names."
        MSR_PROT        28  "RDMSR and WRMSR of registers that the MSR permissions map names, or that it does not cover."
        TASK_SWITCH     29  "Task switch."
        FERR_FREEZE     30  "Freezing on a pending x87 error, as old PCs did."
        SHUTDOWN        31  "Shutdown, such as a triple fault."
    }

    /// Intercept vector 4. Bits 31:16 intercept writes of CR0 to CR15 after they have been done.
    Intercept4: u32 {
        VMRUN            0  "VMRUN; without it VMRUN of any guest is refused."
        VMMCALL          1  "VMMCALL; without it VMMCALL is #UD."
        VMLOAD           2  "VMLOAD."
        VMSAVE           3  "VMSAVE."
        STGI             4  "STGI."
        CLGI             5  "CLGI."
        SKINIT           6  "SKINIT."
        RDTSCP           7  "RDTSCP."
        ICEBP            8  "INT1."
        WBINVD           9  "WBINVD and WBNOINVD."
        MONITOR         10  "MONITOR and MONITORX."
        MWAIT           11  "MWAIT and MWAITX."
        MWAIT_ARMED     12  "MWAIT and MWAITX if the monitor is armed."
        XSETBV          13  "XSETBV."
        RDPRU           14  "RDPRU."
        EFER_WRITE_TRAP 15  "Write of EFER, after it has been done."
        CR0_WRITE_TRAP  16  "Write of CR0, after it has been done."
        CR3_WRITE_TRAP  19  "Write of CR3, after it has been done."
        CR4_WRITE_TRAP  20  "Write of CR4, after it has been done."
        CR8_WRITE_TRAP  24  "Write of CR8, after it has been done."
    }

    /// Intercept vector 5.
    Intercept5: u32 {
        INVLPGB          0  "INVLPGB."
        INVLPGB_ILLEGAL  1  "INVLPGB that a guest may not use."
        INVPCID          2  "INVPCID."
        MCOMMIT          3  "MCOMMIT."
        TLBSYNC          4  "TLBSYNC."
        BUS_LOCK         5  "Bus lock, once the threshold is used up."
        IDLE_HLT         6  "HLT if no virtual interrupt is pending."
    }
}
