//! Model-specific registers (SDM 4, "Architectural MSRs"; APM 2, appendix A, "MSR Cross-Reference").

constants! { u32 {
    // SDM 4, "IA-32 Architectural MSRs"
    IA32_TIME_STAMP_COUNTER         0x010   "Time stamp counter."
    IA32_PLATFORM_ID                0x017   "Platform, for microcode updates."
    IA32_APIC_BASE                  0x01b   "Address and mode of the local APIC: [`ApicBase`]."
    MSR_EBL_CR_POWERON              0x02a   "Bus and clock ratio at power-on, read by old kernels; not architectural."
    MSR_SMI_COUNT                   0x034   "System-management interrupts since reset; not architectural."
    IA32_FEATURE_CONTROL            0x03a   "Lock of VMX and SMX: [`FeatureControl`]."
    IA32_TSC_ADJUST                 0x03b   "What was added to the time stamp counter since reset, in ticks."
    IA32_SPEC_CTRL                  0x048   "Limits of speculation: [`SpecCtrl`]."
    IA32_PRED_CMD                   0x049   "Predictor commands, write-only: [`PredCmd`]."
    MSR_PPIN_CTL                    0x04e   "Whether the processor's inventory number can be read; not architectural."
    IA32_BIOS_UPDT_TRIG             0x079   "Loads a microcode update, write-only: its linear address."
    IA32_BIOS_SIGN_ID               0x08b   "Microcode revision in the upper 32 bits."
    IA32_PMC0                       0x0c1   "Performance counter 0; counter n at + n."
    MSR_FSB_FREQ                    0x0cd   "Frequency of the bus, as a number that stands for it; not architectural."
    MSR_PLATFORM_INFO               0x0ce   "Base frequency over 100 MHz in bits 15:8; not architectural."
    MSR_PKG_CST_CONFIG_CONTROL      0x0e2   "Deepest power state of the package; not architectural."
    IA32_MPERF                      0x0e7   "Ticks at the maximum frequency while in C0."
    IA32_APERF                      0x0e8   "Ticks at the actual frequency while in C0."
    IA32_MTRRCAP                    0x0fe   "What memory type ranges there are, read-only: [`MtrrCap`]."
    IA32_ARCH_CAPABILITIES          0x10a   "What the processor is immune to, read-only: [`ArchCapabilities`]."
    IA32_FLUSH_CMD                  0x10b   "Cache commands, write-only: [`FlushCmd`]."
    IA32_TSX_CTRL                   0x122   "TSX: bit 0 makes RTM abort, bit 1 hides it in CPUID."
    MSR_MISC_FEATURE_ENABLES        0x140   "Faults of CPUID at ring 3, among others; not architectural."
    IA32_SYSENTER_CS                0x174   "Code segment of SYSENTER; 0 makes SYSENTER a #GP."
    IA32_SYSENTER_ESP               0x175   "Stack pointer of SYSENTER."
    IA32_SYSENTER_EIP               0x176   "Entry point of SYSENTER."
    IA32_MCG_CAP                    0x179   "Machine-check banks in bits 7:0, and what they can do."
    IA32_MCG_STATUS                 0x17a   "Whether a machine check is being handled."
    IA32_MCG_CTL                    0x17b   "Which machine checks are reported, if IA32_MCG_CAP says that it exists."
    IA32_PERFEVTSEL0                0x186   "What performance counter 0 counts; counter n's at + n."
    IA32_PERF_STATUS                0x198   "Current performance state."
    IA32_PERF_CTL                   0x199   "Wanted performance state."
    IA32_THERM_INTERRUPT            0x19b   "Interrupts when it becomes hot or cool."
    IA32_THERM_STATUS               0x19c   "Whether it is hot, and how far from that."
    IA32_MISC_ENABLE                0x1a0   "Assorted switches: [`MiscEnable`]."
    IA32_DEBUGCTL                   0x1d9   "Debug features: last branches, single-step on branches."
    MSR_POWER_CTL                   0x1fc   "Switches of power management; not architectural."
    IA32_MTRR_PHYSBASE0             0x200   "Base and type of variable range 0; range n at + 2 n."
    IA32_MTRR_PHYSMASK0             0x201   "Mask and valid bit of variable range 0; range n at + 2 n."
    IA32_MTRR_FIX64K_00000          0x250   "Types of 0 to 0x7ffff, 64 KiB each."
    IA32_MTRR_FIX16K_80000          0x258   "Types of 0x80000 to 0x9ffff, 16 KiB each."
    IA32_MTRR_FIX16K_A0000          0x259   "Types of 0xa0000 to 0xbffff, 16 KiB each."
    IA32_MTRR_FIX4K_C0000           0x268   "Types of 0xc0000 to 0xc7fff, 4 KiB each; seven more follow."
    IA32_PAT                        0x277   "Page attribute table: eight memory types, see [`PAT_RESET`]."
    IA32_MTRR_DEF_TYPE              0x2ff   "Memory type outside all ranges: [`MtrrDefType`]."
    IA32_PERF_CAPABILITIES          0x345   "What the performance counters can do."
    IA32_PERF_GLOBAL_CTRL           0x38f   "Which performance counters are on."
    IA32_MC0_CTL                    0x400   "Machine-check bank 0: control, status, address, misc; bank n at + 4 n."
    IA32_VMX_BASIC                  0x480   "Revision and size of a VMCS, and what the registers below mean."
    IA32_VMX_PINBASED_CTLS          0x481   "Allowed pin-based controls."
    IA32_VMX_PROCBASED_CTLS         0x482   "Allowed primary processor-based controls."
    IA32_VMX_EXIT_CTLS              0x483   "Allowed primary VM-exit controls."
    IA32_VMX_ENTRY_CTLS             0x484   "Allowed VM-entry controls."
    IA32_VMX_MISC                   0x485   "Assorted VMX data: preemption timer rate, activity states, CR3 targets."
    IA32_VMX_CR0_FIXED0             0x486   "Bits that are 1 here must be 1 in CR0 in VMX operation."
    IA32_VMX_CR0_FIXED1             0x487   "Bits that are 0 here must be 0 in CR0 in VMX operation."
    IA32_VMX_CR4_FIXED0             0x488   "Bits that are 1 here must be 1 in CR4 in VMX operation."
    IA32_VMX_CR4_FIXED1             0x489   "Bits that are 0 here must be 0 in CR4 in VMX operation."
    IA32_VMX_VMCS_ENUM              0x48a   "Highest index of a VMCS field."
    IA32_VMX_PROCBASED_CTLS2        0x48b   "Allowed secondary processor-based controls."
    IA32_VMX_EPT_VPID_CAP           0x48c   "What EPT and VPID can do."
    IA32_VMX_TRUE_PINBASED_CTLS     0x48d   "Allowed pin-based controls, with those that default to 1."
    IA32_VMX_TRUE_PROCBASED_CTLS    0x48e   "Allowed primary processor-based controls, with those that default to 1."
    IA32_VMX_TRUE_EXIT_CTLS         0x48f   "Allowed primary VM-exit controls, with those that default to 1."
    IA32_VMX_TRUE_ENTRY_CTLS        0x490   "Allowed VM-entry controls, with those that default to 1."
    IA32_VMX_VMFUNC                 0x491   "Allowed VM functions."
    IA32_VMX_PROCBASED_CTLS3        0x492   "Allowed tertiary processor-based controls, one bit each."
    IA32_VMX_EXIT_CTLS2             0x493   "Allowed secondary VM-exit controls, one bit each."
    MSR_RAPL_POWER_UNIT             0x606   "Units of power, energy and time in RAPL's registers; not architectural."
    IA32_U_CET                      0x6a0   "Shadow stacks and branch tracking of user mode."
    IA32_S_CET                      0x6a2   "Shadow stacks and branch tracking of supervisor mode."
    IA32_TSC_DEADLINE               0x6e0   "Tick at which the local APIC's timer fires; 0 disarms it."
    IA32_X2APIC_FIRST               0x800   "First register of the local APIC in x2APIC mode: `apic::x2apic_msr`."
    IA32_X2APIC_LAST                0x8ff   "Last register of the local APIC in x2APIC mode."
    IA32_XSS                        0xda0   "State components that only the kernel may save."
    IA32_EFER                   0xc000_0080 "Extended features: [`Efer`]."
    IA32_STAR                   0xc000_0081 "Segments of SYSCALL (bits 47:32) and SYSRET (bits 63:48)."
    IA32_LSTAR                  0xc000_0082 "Entry point of SYSCALL in 64-bit mode."
    IA32_CSTAR                  0xc000_0083 "Entry point of SYSCALL in compatibility mode, on AMD only."
    IA32_FMASK                  0xc000_0084 "RFLAGS bits that SYSCALL clears."
    IA32_FS_BASE                0xc000_0100 "Base of FS."
    IA32_GS_BASE                0xc000_0101 "Base of GS."
    IA32_KERNEL_GS_BASE         0xc000_0102 "Base that SWAPGS exchanges with that of GS."
    IA32_TSC_AUX                0xc000_0103 "What RDTSCP and RDPID give beside the tick: by custom, the CPU's number."

    // APM 2, A.2 and PPR, "MSRs - MSRC001_0xxx"
    TSC_RATIO                   0xc000_0104 "Scale of the guest's TSC, 8.32 fixed point (APM 2, 15.30.5)."
    SYSCFG                      0xc001_0010 "System configuration, memory encryption among it."
    HWCR                        0xc001_0015 "Hardware configuration; bit 24: the TSC counts at the P0 frequency."
    TOP_MEM                     0xc001_001a "End of RAM below 4 GiB."
    TOP_MEM2                    0xc001_001d "End of RAM above 4 GiB."
    NB_CFG                      0xc001_001f "Configuration of the memory controller and the links."
    INT_PENDING                 0xc001_0055 "Messages to the chipset when an interrupt waits."
    MMIO_CONF_BASE              0xc001_0058 "Address of PCI configuration space."
    SMM_ADDR                    0xc001_0112 "Address of the memory of system-management mode."
    SMM_MASK                    0xc001_0113 "Size of that memory, and whether it is protected."
    VM_CR                       0xc001_0114 "Locks of SVM: [`VmCr`]."
    VM_HSAVE_PA                 0xc001_0117 "Host-physical page where VMRUN saves host state (APM 2, 15.30.4)."
    VIRT_SPEC_CTRL              0xc001_011f "SSBD as a hypervisor offers it, where CPUID says so."
    OSVW_ID_LENGTH              0xc001_0140 "Number of errata that OSVW_STATUS knows."
    OSVW_STATUS                 0xc001_0141 "Whether errata need a workaround, one bit each."
    LS_CFG                      0xc001_1020 "Load-store configuration."
    DC_CFG                      0xc001_1022 "Configuration of the data cache."
    BU_CFG                      0xc001_1023 "Configuration of the bus unit."
    DE_CFG                      0xc001_1029 "Decode configuration; bit 1 makes LFENCE serialize dispatch."
    BU_CFG2                     0xc001_102a "More of the bus unit's configuration."
}}

flags! {
    /// Bits of [`IA32_APIC_BASE`] (SDM 3A, "Local APIC Status and Location" and "x2APIC State Transitions").
    ApicBase: u64 {
        BSP      8  "This is the bootstrap processor, read-only."
        EXTD    10  "x2APIC mode."
        EN      11  "The local APIC is on."
    }

    /// Bits of [`IA32_FEATURE_CONTROL`] (SDM 3C, "Enabling and Entering VMX Operation").
    FeatureControl: u64 {
        LOCK             0  "Writing is a #GP until reset."
        VMX_INSIDE_SMX   1  "VMXON is allowed in SMX operation."
        VMX_OUTSIDE_SMX  2  "VMXON is allowed outside SMX operation."
    }

    /// Bits of [`IA32_SPEC_CTRL`] (SDM 4, "IA-32 Architectural MSRs"; APM 2, 3.2.9).
    SpecCtrl: u64 {
        IBRS         0  "Indirect Branch Restricted Speculation."
        STIBP        1  "Single Thread Indirect Branch Predictors."
        SSBD         2  "Speculative Store Bypass Disable."
        IPRED_DIS_U  3  "No prediction of indirect branches, user mode."
        IPRED_DIS_S  4  "No prediction of indirect branches, supervisor mode."
        RRSBA_DIS_U  5  "No alternate prediction of returns, user mode."
        RRSBA_DIS_S  6  "No alternate prediction of returns, supervisor mode."
        PSFD         7  "Predictive Store Forwarding Disable."
        DDPD_U       8  "Data Dependent Prefetcher Disable, user mode."
        BHI_DIS_S   10  "No branch history of user mode in predictions, supervisor mode."
    }

    /// Bits of [`IA32_PRED_CMD`] (SDM 4, "IA-32 Architectural MSRs"; APM 2, 3.2.9).
    PredCmd: u64 {
        IBPB    0   "Indirect Branch Prediction Barrier."
        SBPB    7   "Selective Branch Predictor Barrier, on AMD only."
    }

    /// Bits of [`IA32_ARCH_CAPABILITIES`] (SDM 4, "IA-32 Architectural MSRs").
    ArchCapabilities: u64 {
        RDCL_NO                  0  "Not open to rogue data cache load (Meltdown)."
        IBRS_ALL                 1  "Enhanced IBRS: set once, it stays in force."
        RSBA                     2  "Returns may be predicted elsewhere when the return stack is empty."
        SKIP_L1DFL_VMENTRY       3  "L1D need not be flushed on VM entry."
        SSB_NO                   4  "Not open to speculative store bypass."
        MDS_NO                   5  "Not open to microarchitectural data sampling."
        IF_PSCHANGE_MC_NO        6  "No machine check when the page size of fetched code changes."
        TSX_CTRL                 7  "IA32_TSX_CTRL exists."
        TAA_NO                   8  "Not open to TSX asynchronous abort."
        MCU_CONTROL              9  "IA32_MCU_CONTROL exists."
        MISC_PACKAGE_CTLS       10  "IA32_MISC_PACKAGE_CTLS exists."
        ENERGY_FILTERING_CTL    11  "Energy filtering can be switched."
        DOITM                   12  "Data operand independent timing mode exists."
        SBDR_SSDP_NO            13  "Not open to shared buffers data read."
        FBSDP_NO                14  "Not open to fill buffer stale data propagation."
        PSDP_NO                 15  "Not open to primary stale data propagation."
        MCU_ENUMERATION         16  "IA32_MCU_ENUMERATION exists."
        FB_CLEAR                17  "VERW overwrites fill buffers."
        FB_CLEAR_CTRL           18  "VERW's overwriting can be switched."
        RRSBA                   19  "Returns may be predicted elsewhere, but IA32_SPEC_CTRL can forbid it."
        BHI_NO                  20  "Not open to branch history injection."
        XAPIC_DISABLE_STATUS    21  "Leaving x2APIC mode may be locked: IA32_XAPIC_DISABLE_STATUS exists."
        MCU_EXTENDED_SERVICE    22  "MCU extended service exists."
        OVERCLOCKING_STATUS     23  "IA32_OVERCLOCKING_STATUS exists."
        PBRSB_NO                24  "Not open to post-barrier return stack predictions."
        GDS_CTRL                25  "Gather data sampling's mitigation can be switched."
        GDS_NO                  26  "Not open to gather data sampling."
        RFDS_NO                 27  "Not open to register file data sampling."
        RFDS_CLEAR              28  "VERW overwrites register files."
    }

    /// Bits of [`IA32_FLUSH_CMD`] (SDM 4, "IA-32 Architectural MSRs").
    FlushCmd: u64 {
        L1D_FLUSH   0   "Write back and invalidate the L1 data cache."
    }

    /// Bits of [`IA32_MISC_ENABLE`] (SDM 4, "IA-32 Architectural MSRs").
    MiscEnable: u64 {
        FAST_STRINGS_ENABLE      0  "REP MOVS and REP STOS may be fast."
        BTS_UNAVAILABLE         11  "There is no branch trace store, read-only."
        PEBS_UNAVAILABLE        12  "There is no processor event-based sampling, read-only."
        ENABLE_MONITOR_FSM      18  "MONITOR and MWAIT exist."
        LIMIT_CPUID_MAXVAL      22  "CPUID hides leaves above 2."
        XD_BIT_DISABLE          34  "Execute-disable is hidden, and IA32_EFER.NXE is a #GP."
    }

    /// Bits of [`IA32_MTRRCAP`] above the number of variable ranges in bits 7:0 (SDM 3A, "MTRR Feature Identification").
    MtrrCap: u64 {
        FIX      8  "Fixed ranges exist."
        WC      10  "Write combining exists."
        SMRR    11  "Ranges of system-management mode exist."
    }

    /// Bits of the variable ranges' masks, from [`IA32_MTRR_PHYSMASK0`] on (SDM 3A, "Variable Range MTRRs").
    MtrrPhysMask: u64 {
        V       11  "The range is valid."
    }

    /// Bits of [`IA32_DEBUGCTL`] (SDM 3B, "IA32_DEBUGCTL MSR"; APM 2, 13.1.1.6).
    DebugCtl: u64 {
        LBR                      0  "Last branches are recorded."
        BTF                      1  "RFLAGS.TF steps by branches."
        BLD                      2  "#DB after bus locks."
        FREEZE_LBRS_ON_PMI      11  "A counter's overflow stops the recording of branches, on Intel only."
        FREEZE_PERFMON_ON_PMI   12  "A counter's overflow stops the counters, on Intel only."
        FREEZE_WHILE_SMM        14  "Counters stop in system-management mode, on Intel only."
        RTM                     15  "Advanced debugging of transactions, on Intel only."
    }

    /// Bits of [`IA32_MTRR_DEF_TYPE`] above the type (SDM 3A, "IA32_MTRR_DEF_TYPE MSR").
    MtrrDefType: u64 {
        FE      10  "Fixed ranges are on."
        E       11  "Memory type ranges are on; else all memory is uncacheable."
    }

    /// Bits of [`IA32_EFER`] (SDM 3A, "Extended Feature Enable Register"; APM 2, 3.1.7).
    Efer: u64 {
        SCE      0  "SYSCALL and SYSRET."
        LME      8  "Long mode, once paging is on."
        LMA     10  "Long mode is active, read-only."
        NXE     11  "The no-execute bit of page-table entries."
        SVME    12  "SVM instructions, on AMD only."
        LMSLE   13  "Segment limits in long mode, on some AMD only."
        FFXSR   14  "FXSAVE at ring 0 leaves XMM out, on AMD only."
        TCE     15  "INVLPG keeps upper-level entries of other addresses, on AMD only."
        AIBRSE  21  "Automatic IBRS, on AMD only."
    }

    /// Bits of [`VM_CR`] (APM 2, 15.30.1).
    VmCr: u64 {
        DPD         0   "The external debug port is off."
        R_INIT      1   "INIT is redirected into #SX."
        DIS_A20M    2   "A20 masking is off."
        LOCK        3   "LOCK and SVMDIS cannot be written."
        SVMDIS      4   "SVM is disabled: IA32_EFER.SVME is a #GP."
    }
}

/// Host-physical address of the local APIC's registers in [`IA32_APIC_BASE`]; bits above the processor's address width
/// are reserved.
pub const APIC_BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

// Memory types (SDM 3A, "Memory Types That Can Be Encoded With PAT").
constants! { u8 {
    MEMORY_TYPE_UC          0x00    "Uncacheable."
    MEMORY_TYPE_WC          0x01    "Write combining."
    MEMORY_TYPE_WT          0x04    "Write through."
    MEMORY_TYPE_WP          0x05    "Write protected."
    MEMORY_TYPE_WB          0x06    "Write back."
    MEMORY_TYPE_UC_MINUS    0x07    "Uncacheable, unless a memory type range says write combining; PAT only."
}}

/// [`IA32_PAT`] after reset: WB, WT, UC-, UC, and the same again.
pub const PAT_RESET: u64 = u64::from_le_bytes([
    MEMORY_TYPE_WB,
    MEMORY_TYPE_WT,
    MEMORY_TYPE_UC_MINUS,
    MEMORY_TYPE_UC,
    MEMORY_TYPE_WB,
    MEMORY_TYPE_WT,
    MEMORY_TYPE_UC_MINUS,
    MEMORY_TYPE_UC,
]);

const _: () = assert!(PAT_RESET == 0x0007_0406_0007_0406);
