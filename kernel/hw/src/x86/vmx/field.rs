//! Fields of the VMCS, for VMREAD and VMWRITE (SDM 3D, appendix B, "Field Encoding in VMCS").

open_numbers! {
    /// Encoding of a field. A field of 64 bits takes one access in 64-bit mode; its high half, at + 1, is for others.
    Field: u32 {
        // 16-bit control fields
        VPID                                0x0000  "Virtual-processor identifier, not 0."
        POSTED_INTERRUPT_NOTIFICATION_VECTOR 0x0002 "Vector that makes the processor look at the posted interrupts."
        EPTP_INDEX                          0x0004  "Index into the list of EPT pointers."
        HLAT_PREFIX_SIZE                    0x0006  "Bits that select the part of the linear addresses that HLAT translates."
        LAST_PID_POINTER_INDEX              0x0008  "Last index of the table of posted-interrupt descriptors."

        // 16-bit guest-state fields
        GUEST_ES_SELECTOR                   0x0800  "ES: selector."
        GUEST_CS_SELECTOR                   0x0802  "CS: selector."
        GUEST_SS_SELECTOR                   0x0804  "SS: selector."
        GUEST_DS_SELECTOR                   0x0806  "DS: selector."
        GUEST_FS_SELECTOR                   0x0808  "FS: selector."
        GUEST_GS_SELECTOR                   0x080a  "GS: selector."
        GUEST_LDTR_SELECTOR                 0x080c  "LDTR: selector."
        GUEST_TR_SELECTOR                   0x080e  "TR: selector."
        GUEST_INTERRUPT_STATUS              0x0810  "Vectors requested (7:0) and in service (15:8): RVI and SVI."
        PML_INDEX                           0x0812  "Next entry of the page-modification log; counts down from 511."
        GUEST_UINV                          0x0814  "User-interrupt notification vector."

        // 16-bit host-state fields
        HOST_ES_SELECTOR                    0x0c00  "ES: selector."
        HOST_CS_SELECTOR                    0x0c02  "CS: selector."
        HOST_SS_SELECTOR                    0x0c04  "SS: selector."
        HOST_DS_SELECTOR                    0x0c06  "DS: selector."
        HOST_FS_SELECTOR                    0x0c08  "FS: selector."
        HOST_GS_SELECTOR                    0x0c0a  "GS: selector."
        HOST_TR_SELECTOR                    0x0c0c  "TR: selector, not 0."

        // 64-bit control fields
        IO_BITMAP_A                         0x2000  "Host-physical address of the bit map of ports 0 to 0x7fff."
        IO_BITMAP_B                         0x2002  "Host-physical address of the bit map of ports 0x8000 to 0xffff."
        MSR_BITMAP                          0x2004  "Host-physical address of the MSR bit maps."
        EXIT_MSR_STORE_ADDRESS              0x2006  "Host-physical address of the MSRs to store on exit."
        EXIT_MSR_LOAD_ADDRESS               0x2008  "Host-physical address of the MSRs to load on exit."
        ENTRY_MSR_LOAD_ADDRESS              0x200a  "Host-physical address of the MSRs to load on entry."
        EXECUTIVE_VMCS_POINTER              0x200c  "For system-management mode."
        PML_ADDRESS                         0x200e  "Host-physical address of the page-modification log."
        TSC_OFFSET                          0x2010  "Added to what the guest reads of the time stamp counter."
        VIRTUAL_APIC_ADDRESS                0x2012  "Host-physical address of the virtual-APIC page."
        APIC_ACCESS_ADDRESS                 0x2014  "Host-physical address of the page that stands for the local APIC."
        POSTED_INTERRUPT_DESCRIPTOR_ADDRESS 0x2016  "Host-physical address of the posted-interrupt descriptor."
        VM_FUNCTION_CONTROLS                0x2018  "Functions that VMFUNC may do."
        EPTP                                0x201a  "EPT pointer: `ept::eptp`."
        EOI_EXIT_BITMAP_0                   0x201c  "Vectors 0 to 63 whose EOI is an exit."
        EOI_EXIT_BITMAP_1                   0x201e  "Vectors 64 to 127."
        EOI_EXIT_BITMAP_2                   0x2020  "Vectors 128 to 191."
        EOI_EXIT_BITMAP_3                   0x2022  "Vectors 192 to 255."
        EPTP_LIST_ADDRESS                   0x2024  "Host-physical address of the list of EPT pointers."
        VMREAD_BITMAP_ADDRESS               0x2026  "Host-physical address of the bit map of fields: VMREAD."
        VMWRITE_BITMAP_ADDRESS              0x2028  "Host-physical address of the bit map of fields: VMWRITE."
        VE_INFORMATION_ADDRESS              0x202a  "Host-physical address of what goes with #VE."
        XSS_EXITING_BITMAP                  0x202c  "State components that make XSAVES and XRSTORS an exit."
        ENCLS_EXITING_BITMAP                0x202e  "Leaves of ENCLS that are an exit."
        SUB_PAGE_PERMISSION_TABLE_POINTER   0x2030  "Host-physical address of the sub-page permission table."
        TSC_MULTIPLIER                      0x2032  "Scale of the guest's time stamp counter, 16.48 fixed point."
        TERTIARY_PROCESSOR_BASED_CONTROLS   0x2034  "`TertiaryControls`."
        ENCLV_EXITING_BITMAP                0x2036  "Leaves of ENCLV that are an exit."
        LOW_PASID_DIRECTORY_ADDRESS         0x2038  "Host-physical address of the lower PASID directory."
        HIGH_PASID_DIRECTORY_ADDRESS        0x203a  "Host-physical address of the upper PASID directory."
        SHARED_EPTP                         0x203c  "EPT pointer of memory shared with a trust domain."
        PCONFIG_EXITING_BITMAP              0x203e  "Leaves of PCONFIG that are an exit."
        HLATP                               0x2040  "Root of hypervisor-managed linear-address translation."
        PID_POINTER_TABLE_ADDRESS           0x2042  "Host-physical address of the table of posted-interrupt descriptors."
        SECONDARY_EXIT_CONTROLS             0x2044  "`SecondaryExitControls`."
        SPEC_CTRL_MASK                      0x204a  "Bits of IA32_SPEC_CTRL that the guest does not change."
        SPEC_CTRL_SHADOW                    0x204c  "IA32_SPEC_CTRL as the guest sees it."

        // 64-bit read-only data field
        GUEST_PHYSICAL_ADDRESS              0x2400  "Address of an EPT violation or misconfiguration."

        // 64-bit guest-state fields
        VMCS_LINK_POINTER                   0x2800  "Host-physical address of the shadow VMCS; all ones if there is none."
        GUEST_IA32_DEBUGCTL                 0x2802  "IA32_DEBUGCTL."
        GUEST_IA32_PAT                      0x2804  "IA32_PAT."
        GUEST_IA32_EFER                     0x2806  "IA32_EFER."
        GUEST_IA32_PERF_GLOBAL_CTRL         0x2808  "IA32_PERF_GLOBAL_CTRL."
        GUEST_PDPTE0                        0x280a  "PAE paging, with EPT: entry 0 of the page-directory-pointer table."
        GUEST_PDPTE1                        0x280c  "Entry 1."
        GUEST_PDPTE2                        0x280e  "Entry 2."
        GUEST_PDPTE3                        0x2810  "Entry 3."
        GUEST_IA32_BNDCFGS                  0x2812  "IA32_BNDCFGS."
        GUEST_IA32_RTIT_CTL                 0x2814  "IA32_RTIT_CTL."
        GUEST_IA32_LBR_CTL                  0x2816  "IA32_LBR_CTL."
        GUEST_IA32_PKRS                     0x2818  "IA32_PKRS."

        // 64-bit host-state fields
        HOST_IA32_PAT                       0x2c00  "IA32_PAT."
        HOST_IA32_EFER                      0x2c02  "IA32_EFER."
        HOST_IA32_PERF_GLOBAL_CTRL          0x2c04  "IA32_PERF_GLOBAL_CTRL."
        HOST_IA32_PKRS                      0x2c06  "IA32_PKRS."

        // 32-bit control fields
        PIN_BASED_CONTROLS                  0x4000  "`PinControls`."
        PRIMARY_PROCESSOR_BASED_CONTROLS    0x4002  "`PrimaryControls`."
        EXCEPTION_BITMAP                    0x4004  "Bit n makes exception n an exit."
        PAGE_FAULT_ERROR_CODE_MASK          0x4006  "#PF is an exit by its bit if its code, masked, matches; else if not."
        PAGE_FAULT_ERROR_CODE_MATCH         0x4008  "See the mask."
        CR3_TARGET_COUNT                    0x400a  "Number of CR3 targets in use."
        EXIT_CONTROLS                       0x400c  "`ExitControls`."
        EXIT_MSR_STORE_COUNT                0x400e  "Number of MSRs to store on exit."
        EXIT_MSR_LOAD_COUNT                 0x4010  "Number of MSRs to load on exit."
        ENTRY_CONTROLS                      0x4012  "`EntryControls`."
        ENTRY_MSR_LOAD_COUNT                0x4014  "Number of MSRs to load on entry."
        ENTRY_INTERRUPTION_INFORMATION      0x4016  "Event to deliver on entry: `Interruption`."
        ENTRY_EXCEPTION_ERROR_CODE          0x4018  "Its error code."
        ENTRY_INSTRUCTION_LENGTH            0x401a  "Length of the instruction that a software event stands for."
        TPR_THRESHOLD                       0x401c  "A task priority class below this is an exit."
        SECONDARY_PROCESSOR_BASED_CONTROLS  0x401e  "`SecondaryControls`."
        PLE_GAP                             0x4020  "PAUSEs within so many ticks are one loop."
        PLE_WINDOW                          0x4022  "A loop for longer than so many ticks is an exit."
        INSTRUCTION_TIMEOUT_CONTROL         0x4024  "Ticks without instruction boundary until an exit."

        // 32-bit read-only data fields
        VM_INSTRUCTION_ERROR                0x4400  "Why the last VMX instruction failed: `InstructionError`."
        EXIT_REASON                         0x4402  "`ExitReason`."
        EXIT_INTERRUPTION_INFORMATION       0x4404  "Event that is the exit's cause: `Interruption`."
        EXIT_INTERRUPTION_ERROR_CODE        0x4406  "Its error code."
        IDT_VECTORING_INFORMATION           0x4408  "Event whose delivery the exit interrupted: `Interruption`."
        IDT_VECTORING_ERROR_CODE            0x440a  "Its error code."
        EXIT_INSTRUCTION_LENGTH             0x440c  "Length of the instruction, after exits due to instructions."
        EXIT_INSTRUCTION_INFORMATION        0x440e  "Operands of the instruction, after exits due to some."

        // 32-bit guest-state fields
        GUEST_ES_LIMIT                      0x4800  "ES: limit in bytes."
        GUEST_CS_LIMIT                      0x4802  "CS: limit."
        GUEST_SS_LIMIT                      0x4804  "SS: limit."
        GUEST_DS_LIMIT                      0x4806  "DS: limit."
        GUEST_FS_LIMIT                      0x4808  "FS: limit."
        GUEST_GS_LIMIT                      0x480a  "GS: limit."
        GUEST_LDTR_LIMIT                    0x480c  "LDTR: limit."
        GUEST_TR_LIMIT                      0x480e  "TR: limit."
        GUEST_GDTR_LIMIT                    0x4810  "GDTR: limit, 16 bits."
        GUEST_IDTR_LIMIT                    0x4812  "IDTR: limit, 16 bits."
        GUEST_ES_ACCESS_RIGHTS              0x4814  "ES: `AccessRights`."
        GUEST_CS_ACCESS_RIGHTS              0x4816  "CS: access rights."
        GUEST_SS_ACCESS_RIGHTS              0x4818  "SS: access rights; the privilege level is the guest's CPL."
        GUEST_DS_ACCESS_RIGHTS              0x481a  "DS: access rights."
        GUEST_FS_ACCESS_RIGHTS              0x481c  "FS: access rights."
        GUEST_GS_ACCESS_RIGHTS              0x481e  "GS: access rights."
        GUEST_LDTR_ACCESS_RIGHTS            0x4820  "LDTR: access rights."
        GUEST_TR_ACCESS_RIGHTS              0x4822  "TR: access rights."
        GUEST_INTERRUPTIBILITY_STATE        0x4824  "`Interruptibility`."
        GUEST_ACTIVITY_STATE                0x4826  "`ActivityState`."
        GUEST_SMBASE                        0x4828  "SMBASE."
        GUEST_IA32_SYSENTER_CS              0x482a  "IA32_SYSENTER_CS."
        PREEMPTION_TIMER                    0x482e  "Counts down to an exit, at the rate of IA32_VMX_MISC."

        // 32-bit host-state field
        HOST_IA32_SYSENTER_CS               0x4c00  "IA32_SYSENTER_CS."

        // Natural-width control fields
        CR0_GUEST_HOST_MASK                 0x6000  "Bits of CR0 that the host owns: the guest reads the shadow's."
        CR4_GUEST_HOST_MASK                 0x6002  "Bits of CR4 that the host owns."
        CR0_READ_SHADOW                     0x6004  "CR0 as the guest reads it, where the host owns it."
        CR4_READ_SHADOW                     0x6006  "CR4 as the guest reads it, where the host owns it."
        CR3_TARGET_0                        0x6008  "CR3 that the guest may load without exit."
        CR3_TARGET_1                        0x600a  "As target 0."
        CR3_TARGET_2                        0x600c  "As target 0."
        CR3_TARGET_3                        0x600e  "As target 0."

        // Natural-width read-only data fields
        EXIT_QUALIFICATION                  0x6400  "Depends on the exit's reason: `qualification`."
        IO_RCX                              0x6402  "For system-management mode."
        IO_RSI                              0x6404  "For system-management mode."
        IO_RDI                              0x6406  "For system-management mode."
        IO_RIP                              0x6408  "For system-management mode."
        GUEST_LINEAR_ADDRESS                0x640a  "Of string I/O, EPT violations, LMSW."

        // Natural-width guest-state fields
        GUEST_CR0                           0x6800  "CR0."
        GUEST_CR3                           0x6802  "CR3."
        GUEST_CR4                           0x6804  "CR4."
        GUEST_ES_BASE                       0x6806  "ES: base."
        GUEST_CS_BASE                       0x6808  "CS: base."
        GUEST_SS_BASE                       0x680a  "SS: base."
        GUEST_DS_BASE                       0x680c  "DS: base."
        GUEST_FS_BASE                       0x680e  "FS: base."
        GUEST_GS_BASE                       0x6810  "GS: base."
        GUEST_LDTR_BASE                     0x6812  "LDTR: base."
        GUEST_TR_BASE                       0x6814  "TR: base."
        GUEST_GDTR_BASE                     0x6816  "GDTR: base."
        GUEST_IDTR_BASE                     0x6818  "IDTR: base."
        GUEST_DR7                           0x681a  "DR7."
        GUEST_RSP                           0x681c  "RSP."
        GUEST_RIP                           0x681e  "RIP."
        GUEST_RFLAGS                        0x6820  "RFLAGS."
        GUEST_PENDING_DEBUG_EXCEPTIONS      0x6822  "`PendingDebug`."
        GUEST_IA32_SYSENTER_ESP             0x6824  "IA32_SYSENTER_ESP."
        GUEST_IA32_SYSENTER_EIP             0x6826  "IA32_SYSENTER_EIP."
        GUEST_IA32_S_CET                    0x6828  "IA32_S_CET."
        GUEST_SSP                           0x682a  "Shadow stack pointer."
        GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR 0x682c  "IA32_INTERRUPT_SSP_TABLE_ADDR."

        // Natural-width host-state fields
        HOST_CR0                            0x6c00  "CR0."
        HOST_CR3                            0x6c02  "CR3."
        HOST_CR4                            0x6c04  "CR4."
        HOST_FS_BASE                        0x6c06  "FS: base."
        HOST_GS_BASE                        0x6c08  "GS: base."
        HOST_TR_BASE                        0x6c0a  "TR: base."
        HOST_GDTR_BASE                      0x6c0c  "GDTR: base; its limit becomes 0xffff."
        HOST_IDTR_BASE                      0x6c0e  "IDTR: base; its limit becomes 0xffff."
        HOST_IA32_SYSENTER_ESP              0x6c10  "IA32_SYSENTER_ESP."
        HOST_IA32_SYSENTER_EIP              0x6c12  "IA32_SYSENTER_EIP."
        HOST_RSP                            0x6c14  "RSP."
        HOST_RIP                            0x6c16  "RIP."
        HOST_IA32_S_CET                     0x6c18  "IA32_S_CET."
        HOST_SSP                            0x6c1a  "Shadow stack pointer."
        HOST_IA32_INTERRUPT_SSP_TABLE_ADDR  0x6c1c  "IA32_INTERRUPT_SSP_TABLE_ADDR."
    }
}

impl Field {
    /// Bits of the field's value: 16, 32 or 64; those of natural width have 64.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self.0 >> 13 & 0b11 {
            0 => 16,
            2 => 32,
            _ => 64,
        }
    }

    /// The field is data of an exit: VMWRITE fails, unless `IA32_VMX_MISC` says that it may write all.
    #[must_use]
    pub const fn is_read_only(self) -> bool {
        self.0 >> 10 & 0b11 == 1
    }
}

const _: () = {
    assert!(Field::GUEST_TR_SELECTOR.bits() == 16 && Field::EPTP.bits() == 64);
    assert!(Field::EXIT_REASON.bits() == 32 && Field::GUEST_RIP.bits() == 64);
    assert!(Field::EXIT_QUALIFICATION.is_read_only() && !Field::HOST_RIP.is_read_only());
};
