//! CPUID leaves and feature bits (SDM 2A, "CPUID — CPU Identification"; APM 3, appendix E).
//!
//! A type holds the bits of one register of one leaf, as its name says.

constants! { u32 {
    LEAF_MAXIMUM_AND_VENDOR     0x0000_0000 "EAX: highest basic leaf. EBX, EDX, ECX: vendor."
    LEAF_FEATURES               0x0000_0001 "EAX: model. EBX 31:24: initial APIC ID. [`Leaf1Ecx`], [`Leaf1Edx`]."
    LEAF_CACHE                  0x0000_0004 "Caches, by subleaf."
    LEAF_POWER                  0x0000_0006 "[`Leaf6Eax`]."
    LEAF_EXTENDED_FEATURES      0x0000_0007 "[`Leaf7Ebx`], [`Leaf7Ecx`], [`Leaf7Edx`]. Subleaf 2: [`Leaf7Sub2Edx`]."
    LEAF_TOPOLOGY               0x0000_000b "Topology by x2APIC ID. EDX: x2APIC ID."
    LEAF_XSAVE                  0x0000_000d "State components: subleaf 0 EDX:EAX allowed in XCR0, EBX size in bytes."
    LEAF_TSC                    0x0000_0015 "EBX / EAX: ticks per tick of the core crystal. ECX: its Hz, or 0."
    LEAF_FREQUENCY              0x0000_0016 "EAX: base, EBX: maximum, ECX: bus frequency, in MHz, or 0."
    LEAF_TOPOLOGY_V2            0x0000_001f "As 0xb, with dies and modules."
    LEAF_HYPERVISOR             0x4000_0000 "EAX: highest hypervisor leaf. EBX, ECX, EDX: the hypervisor's signature."
    LEAF_HYPERVISOR_TIMING      0x4000_0010 "EAX: TSC, EBX: local APIC timer frequency in kHz. Custom, not law."
    LEAF_EXTENDED_MAXIMUM       0x8000_0000 "EAX: highest extended leaf."
    LEAF_EXTENDED               0x8000_0001 "[`Extended1Ecx`], [`Extended1Edx`]."
    LEAF_EXTENDED_POWER         0x8000_0007 "[`Extended7Edx`]."
    LEAF_ADDRESS_SIZES          0x8000_0008 "EAX 7:0: physical, 15:8: linear address bits. [`Extended8Ebx`]."
    LEAF_SVM                    0x8000_000a "EAX 7:0: revision. EBX: address space identifiers. [`ExtendedAEdx`]."
    LEAF_EXTENDED_FEATURES_2    0x8000_0021 "[`Extended21Eax`]."
}}

flags! {
    /// Leaf 1, ECX.
    Leaf1Ecx: u32 {
        SSE3             0  "SSE3."
        PCLMULQDQ        1  "PCLMULQDQ."
        MONITOR          3  "MONITOR and MWAIT."
        VMX              5  "VMX."
        SSSE3            9  "SSSE3."
        FMA             12  "FMA with YMM registers."
        CMPXCHG16B      13  "CMPXCHG16B."
        PCID            17  "Process-context identifiers."
        SSE4_1          19  "SSE4.1."
        SSE4_2          20  "SSE4.2."
        X2APIC          21  "x2APIC mode."
        MOVBE           22  "MOVBE."
        POPCNT          23  "POPCNT."
        TSC_DEADLINE    24  "The local APIC's timer has TSC-deadline mode."
        AESNI           25  "AES instructions."
        XSAVE           26  "XSAVE."
        OSXSAVE         27  "CR4.OSXSAVE is set."
        AVX             28  "AVX."
        F16C            29  "16-bit floating-point conversion."
        RDRAND          30  "RDRAND."
        HYPERVISOR      31  "Runs under a hypervisor; hardware gives 0."
    }

    /// Leaf 1, EDX.
    Leaf1Edx: u32 {
        FPU              0  "x87."
        PSE              3  "4 MiB pages in 32-bit paging."
        TSC              4  "RDTSC."
        MSR              5  "RDMSR and WRMSR."
        PAE              6  "Physical address extension."
        MCE              7  "#MC."
        CX8              8  "CMPXCHG8B."
        APIC             9  "Local APIC."
        SEP             11  "SYSENTER and SYSEXIT."
        MTRR            12  "Memory type ranges."
        PGE             13  "Global pages."
        MCA             14  "Machine-check architecture."
        CMOV            15  "CMOV."
        PAT             16  "Page attribute table."
        CLFSH           19  "CLFLUSH."
        MMX             23  "MMX."
        FXSR            24  "FXSAVE and FXRSTOR."
        SSE             25  "SSE."
        SSE2            26  "SSE2."
        HTT             28  "More than one logical processor in the package."
    }

    /// Leaf 6, EAX.
    Leaf6Eax: u32 {
        ARAT             2  "The local APIC's timer runs in every power state."
    }

    /// Leaf 7, subleaf 0, EBX.
    Leaf7Ebx: u32 {
        FSGSBASE         0  "RDFSBASE and its kin."
        TSC_ADJUST       1  "IA32_TSC_ADJUST."
        AVX2             5  "AVX2."
        SMEP             7  "Supervisor-mode execution prevention."
        ERMS             9  "Enhanced REP MOVSB and STOSB."
        INVPCID         10  "INVPCID."
        RDT_M           12  "Resource monitoring."
        RDT_A           15  "Resource allocation."
        AVX512F         16  "AVX-512 foundation."
        RDSEED          18  "RDSEED."
        SMAP            20  "Supervisor-mode access prevention."
        CLFLUSHOPT      23  "CLFLUSHOPT."
        CLWB            24  "CLWB."
        SHA             29  "SHA instructions."
    }

    /// Leaf 7, subleaf 0, ECX.
    Leaf7Ecx: u32 {
        UMIP             2  "User-mode instruction prevention."
        PKU              3  "Protection keys of user pages."
        WAITPKG          5  "TPAUSE, UMONITOR, UMWAIT."
        VAES             9  "AES on YMM and ZMM registers."
        LA57            16  "57-bit linear addresses."
        RDPID           22  "RDPID."
        BUS_LOCK_DETECT 24  "#DB on bus locks."
        PKS             31  "Protection keys of supervisor pages."
    }

    /// Leaf 7, subleaf 0, EDX.
    Leaf7Edx: u32 {
        FSRM             4  "Fast short REP MOVSB."
        UINTR            5  "User interrupts."
        SRBDS_CTRL       9  "IA32_MCU_OPT_CTRL with RNGDS_MITG_DIS."
        MD_CLEAR        10  "VERW overwrites processor buffers."
        SERIALIZE       14  "SERIALIZE."
        HYBRID          15  "More than one kind of core."
        CET_IBT         20  "Indirect branch tracking."
        IBRS_IBPB       26  "IBRS in IA32_SPEC_CTRL, and IA32_PRED_CMD."
        STIBP           27  "STIBP in IA32_SPEC_CTRL."
        L1D_FLUSH       28  "IA32_FLUSH_CMD."
        ARCH_CAPABILITIES 29 "IA32_ARCH_CAPABILITIES."
        CORE_CAPABILITIES 30 "IA32_CORE_CAPABILITIES."
        SSBD            31  "SSBD in IA32_SPEC_CTRL."
    }

    /// Leaf 7, subleaf 2, EDX: what IA32_SPEC_CTRL has more.
    Leaf7Sub2Edx: u32 {
        PSFD             0  "PSFD."
        IPRED_CTRL       1  "IPRED_DIS_U and IPRED_DIS_S."
        RRSBA_CTRL       2  "RRSBA_DIS_U and RRSBA_DIS_S."
        DDPD_U           3  "DDPD_U."
        BHI_CTRL         4  "BHI_DIS_S."
        MCDT_NO          5  "Not open to MXCSR-dependent timing."
    }

    /// Leaf 0x8000_0001, ECX.
    Extended1Ecx: u32 {
        LAHF_SAHF        0  "LAHF and SAHF in 64-bit mode."
        SVM              2  "SVM, on AMD only."
        LZCNT            5  "LZCNT."
        PREFETCHW        8  "PREFETCHW."
        TOPOLOGY_EXTENSIONS 22 "Leaves 0x8000_001d and 0x8000_001e, on AMD only."
    }

    /// Leaf 0x8000_0001, EDX.
    Extended1Edx: u32 {
        SYSCALL         11  "SYSCALL and SYSRET in 64-bit mode."
        NX              20  "No-execute pages."
        PAGE1GB         26  "1 GiB pages."
        RDTSCP          27  "RDTSCP and IA32_TSC_AUX."
        LM              29  "Long mode."
    }

    /// Leaf 0x8000_0007, EDX.
    Extended7Edx: u32 {
        INVARIANT_TSC    8  "The TSC counts at one rate in all power states."
    }

    /// Leaf 0x8000_0008, EBX (APM 3, "Function 8000_0008h"), on AMD only.
    Extended8Ebx: u32 {
        INVLPGB          3  "INVLPGB and TLBSYNC."
        WBNOINVD         9  "WBNOINVD."
        IBPB            12  "IA32_PRED_CMD."
        IBRS            14  "IBRS in IA32_SPEC_CTRL."
        STIBP           15  "STIBP in IA32_SPEC_CTRL."
        IBRS_ALWAYS_ON  16  "IBRS is better left on."
        STIBP_ALWAYS_ON 17  "STIBP is better left on."
        IBRS_PREFERRED  18  "IBRS is better than software's mitigation."
        IBRS_SAME_MODE  19  "IBRS protects within one mode too."
        SSBD            24  "SSBD in IA32_SPEC_CTRL."
        VIRT_SSBD       25  "SSBD in VIRT_SPEC_CTRL."
        SSB_NO          26  "Not open to speculative store bypass."
        PSFD            28  "PSFD in IA32_SPEC_CTRL."
        BTC_NO          29  "Not open to branch type confusion."
        IBPB_RET        30  "IBPB clears return predictions too."
    }

    /// Leaf 0x8000_000a, EDX (APM 3, "Function 8000_000Ah").
    ExtendedAEdx: u32 {
        NP               0  "Nested paging."
        LBR_VIRT         1  "Virtualization of last branch records."
        SVML             2  "SVM lock."
        NRIPS            3  "The next instruction's address is saved on #VMEXIT."
        TSC_RATE_MSR     4  "TSC_RATIO."
        VMCB_CLEAN       5  "VMCB clean bits."
        FLUSH_BY_ASID    6  "TLB flush of one address space identifier."
        DECODE_ASSISTS   7  "Decode assists."
        PAUSE_FILTER    10  "Pause intercept filter."
        PAUSE_FILTER_THRESHOLD 12 "Pause intercept filter with a threshold of cycles."
        AVIC            13  "Advanced virtual interrupt controller."
        VMSAVE_VIRT     15  "VMSAVE and VMLOAD of a guest without exit."
        VGIF            16  "Virtual global interrupt flag."
        GMET            17  "Guest mode execute trap."
        X2AVIC          18  "AVIC in x2APIC mode."
        SSS_CHECK       19  "Supervisor shadow stack restrictions."
        SPEC_CTRL       20  "Virtualization of IA32_SPEC_CTRL."
        ROGPT           21  "Read-only guest page tables."
        HOST_MCE_OVERRIDE 23 "#MC may go to the host although the guest does not intercept it."
        TLBI_CTL        24  "INVLPGB and TLBSYNC in a guest."
        VNMI            25  "Virtual NMI."
        IBS_VIRT        26  "Virtualization of instruction-based sampling."
        VMCB_ADDRESS_CHECK 28 "VMRUN, VMSAVE and VMLOAD of a reserved address are #GP."
    }

    /// Leaf 0x8000_0021, EAX (APM 3, "Function 8000_0021h"), on AMD only.
    Extended21Eax: u32 {
        NO_NESTED_DATA_BP 0 "Data breakpoints do not nest."
        LFENCE_ALWAYS_SERIALIZING 2 "LFENCE serializes dispatch."
        NULL_SELECT_CLEARS_BASE 6 "Loading a null selector clears base and limit."
        AUTOMATIC_IBRS   8  "IA32_EFER.AIBRSE."
        SBPB            27  "SBPB in IA32_PRED_CMD."
        IBPB_BRTYPE     28  "IBPB clears branch type predictions too."
        SRSO_NO         29  "Not open to speculative return stack overflow."
    }
}
