//! Controls of execution, exits and entries (SDM 3C, "Virtual-Machine Control Structures"). Which of them a processor
//! has, and which must be set, the [`capability`](super::capability) registers tell.

flags! {
    /// Pin-based VM-execution controls.
    PinControls: u32 {
        EXTERNAL_INTERRUPT_EXITING   0  "Physical interrupts are exits."
        NMI_EXITING                  3  "Physical NMIs are exits."
        VIRTUAL_NMIS                 5  "Blocking by NMI is about virtual NMIs."
        PREEMPTION_TIMER             6  "The VMX-preemption timer counts."
        POSTED_INTERRUPTS            7  "The notification vector moves posted interrupts to the virtual APIC."
    }

    /// Primary processor-based VM-execution controls.
    PrimaryControls: u32 {
        INTERRUPT_WINDOW_EXITING     2  "An exit as soon as the guest could take an interrupt."
        USE_TSC_OFFSETTING           3  "TSC offset."
        HLT_EXITING                  7  "HLT."
        INVLPG_EXITING               9  "INVLPG."
        MWAIT_EXITING               10  "MWAIT."
        RDPMC_EXITING               11  "RDPMC."
        RDTSC_EXITING               12  "RDTSC and RDTSCP."
        CR3_LOAD_EXITING            15  "Writes of CR3."
        CR3_STORE_EXITING           16  "Reads of CR3."
        ACTIVATE_TERTIARY           17  "The tertiary controls are in force; else they count as 0."
        CR8_LOAD_EXITING            19  "Writes of CR8."
        CR8_STORE_EXITING           20  "Reads of CR8."
        USE_TPR_SHADOW              21  "CR8 and the task priority are those of the virtual-APIC page."
        NMI_WINDOW_EXITING          22  "An exit as soon as the guest could take a virtual NMI."
        MOV_DR_EXITING              23  "MOV of debug registers."
        UNCONDITIONAL_IO_EXITING    24  "IN and OUT of all ports, unless the bit maps are used."
        USE_IO_BITMAPS              25  "IN and OUT of the ports in the bit maps."
        MONITOR_TRAP_FLAG           27  "An exit after each instruction."
        USE_MSR_BITMAPS             28  "RDMSR and WRMSR of the registers in the bit maps; else of all."
        MONITOR_EXITING             29  "MONITOR."
        PAUSE_EXITING               30  "PAUSE."
        ACTIVATE_SECONDARY          31  "The secondary controls are in force; else they count as 0."
    }

    /// Secondary processor-based VM-execution controls.
    SecondaryControls: u32 {
        VIRTUALIZE_APIC_ACCESSES     0  "Accesses to the APIC-access page are virtualized."
        ENABLE_EPT                   1  "Extended page tables."
        DESCRIPTOR_TABLE_EXITING     2  "LGDT, SGDT and their kin."
        ENABLE_RDTSCP                3  "RDTSCP and RDPID; else #UD."
        VIRTUALIZE_X2APIC_MODE       4  "The MSRs of x2APIC mode are virtualized."
        ENABLE_VPID                  5  "TLB entries are tagged."
        WBINVD_EXITING               6  "WBINVD and WBNOINVD."
        UNRESTRICTED_GUEST           7  "The guest may run without paging and in real mode."
        APIC_REGISTER_VIRTUALIZATION 8  "Reads of most of the virtual APIC's registers need no exit."
        VIRTUAL_INTERRUPT_DELIVERY   9  "The processor evaluates and delivers pending virtual interrupts."
        PAUSE_LOOP_EXITING          10  "Loops of PAUSE at ring 0."
        RDRAND_EXITING              11  "RDRAND."
        ENABLE_INVPCID              12  "INVPCID; else #UD."
        ENABLE_VM_FUNCTIONS         13  "VMFUNC; else #UD."
        VMCS_SHADOWING              14  "VMREAD and VMWRITE of the guest go to the shadow VMCS."
        ENCLS_EXITING               15  "ENCLS, by the bit map."
        RDSEED_EXITING              16  "RDSEED."
        ENABLE_PML                  17  "Pages whose dirty flag gets set are logged."
        EPT_VIOLATION_VE            18  "EPT violations may be #VE."
        CONCEAL_VMX_FROM_PT         19  "Processor trace does not show that the guest is one."
        ENABLE_XSAVES_XRSTORS       20  "XSAVES and XRSTORS; else #UD."
        PASID_TRANSLATION           21  "ENQCMD's process identifiers are translated."
        MODE_BASED_EXECUTE_CONTROL  22  "EPT tells execution at user-mode and supervisor-mode addresses apart."
        SUB_PAGE_WRITE_PERMISSIONS  23  "EPT can make parts of a page writable."
        PT_USES_GUEST_PHYSICAL      24  "Processor trace writes to guest-physical addresses."
        USE_TSC_SCALING             25  "TSC multiplier."
        ENABLE_USER_WAIT_AND_PAUSE  26  "TPAUSE, UMONITOR and UMWAIT; else #UD."
        ENABLE_PCONFIG              27  "PCONFIG; else #UD."
        ENCLV_EXITING               28  "ENCLV, by the bit map."
        BUS_LOCK_DETECTION          30  "Bus locks, after they have been done."
        INSTRUCTION_TIMEOUT         31  "Too long without instruction boundary."
    }

    /// Tertiary processor-based VM-execution controls.
    TertiaryControls: u64 {
        LOADIWKEY_EXITING            0  "LOADIWKEY."
        ENABLE_HLAT                  1  "Hypervisor-managed linear-address translation."
        EPT_PAGING_WRITE             2  "EPT can allow writes by page walks only."
        GUEST_PAGING_VERIFICATION    3  "EPT can tell which pages hold paging structures."
        IPI_VIRTUALIZATION           4  "The processor posts the guest's inter-processor interrupts."
        ENABLE_MSR_LIST              6  "RDMSRLIST and WRMSRLIST; else #UD."
        VIRTUALIZE_SPEC_CTRL         7  "IA32_SPEC_CTRL's mask and shadow."
    }

    /// Primary VM-exit controls.
    ExitControls: u32 {
        SAVE_DEBUG_CONTROLS          2  "DR7 and IA32_DEBUGCTL are saved."
        HOST_ADDRESS_SPACE_SIZE      9  "The host is in 64-bit mode."
        LOAD_PERF_GLOBAL_CTRL       12  "IA32_PERF_GLOBAL_CTRL is loaded."
        ACKNOWLEDGE_INTERRUPT       15  "A physical interrupt is acknowledged, and its vector given."
        SAVE_PAT                    18  "IA32_PAT is saved."
        LOAD_PAT                    19  "IA32_PAT is loaded."
        SAVE_EFER                   20  "IA32_EFER is saved."
        LOAD_EFER                   21  "IA32_EFER is loaded."
        SAVE_PREEMPTION_TIMER       22  "What is left of the VMX-preemption timer is saved."
        CLEAR_BNDCFGS               23  "IA32_BNDCFGS is cleared."
        CONCEAL_VMX_FROM_PT         24  "Processor trace does not show the exit."
        CLEAR_RTIT_CTL              25  "IA32_RTIT_CTL is cleared."
        CLEAR_LBR_CTL               26  "IA32_LBR_CTL is cleared."
        CLEAR_UINV                  27  "The user-interrupt notification vector is cleared."
        LOAD_CET                    28  "Shadow stacks and branch tracking of the host are loaded."
        LOAD_PKRS                   29  "IA32_PKRS is loaded."
        SAVE_PERF_GLOBAL_CTRL       30  "IA32_PERF_GLOBAL_CTRL is saved."
        ACTIVATE_SECONDARY          31  "The secondary exit controls are in force."
    }

    /// Secondary VM-exit controls.
    SecondaryExitControls: u64 {
        PREMATURELY_BUSY_SHADOW_STACK 3 "An exit due to that state of a shadow stack says so."
    }

    /// VM-entry controls.
    EntryControls: u32 {
        LOAD_DEBUG_CONTROLS          2  "DR7 and IA32_DEBUGCTL are loaded."
        IA32E_MODE_GUEST             9  "The guest is in long mode; follows its IA32_EFER.LMA."
        ENTRY_TO_SMM                10  "To system-management mode."
        DEACTIVATE_DUAL_MONITOR     11  "For system-management mode."
        LOAD_PERF_GLOBAL_CTRL       13  "IA32_PERF_GLOBAL_CTRL is loaded."
        LOAD_PAT                    14  "IA32_PAT is loaded."
        LOAD_EFER                   15  "IA32_EFER is loaded."
        LOAD_BNDCFGS                16  "IA32_BNDCFGS is loaded."
        CONCEAL_VMX_FROM_PT         17  "Processor trace does not show the entry."
        LOAD_RTIT_CTL               18  "IA32_RTIT_CTL is loaded."
        LOAD_UINV                   19  "The user-interrupt notification vector is loaded."
        LOAD_CET                    20  "Shadow stacks and branch tracking of the guest are loaded."
        LOAD_LBR_CTL                21  "IA32_LBR_CTL is loaded."
        LOAD_PKRS                   22  "IA32_PKRS is loaded."
    }
}
