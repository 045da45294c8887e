//! Why a guest left (SDM 3D, appendix C, "VMX Basic Exit Reasons").

/// Exit reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitReason(pub u32);

impl ExitReason {
    /// The reason itself.
    #[must_use]
    pub const fn basic(self) -> BasicReason {
        BasicReason(self.0 as u16)
    }

    /// A bus lock was done, too.
    #[must_use]
    pub const fn is_bus_lock(self) -> bool {
        self.0 & 1 << 26 != 0
    }

    /// The guest was not entered; its state is as it was.
    #[must_use]
    pub const fn is_entry_failure(self) -> bool {
        self.0 & 1 << 31 != 0
    }
}

const _: () = assert!(ExitReason(0x8000_0021).basic().0 == BasicReason::INVALID_GUEST_STATE.0);

open_numbers! {
    /// Basic exit reason. Where an instruction is named, it has had no effect.
    BasicReason: u16 {
        EXCEPTION_OR_NMI             0  "An exception of the bit map, or a physical NMI."
        EXTERNAL_INTERRUPT           1  "Physical interrupt."
        TRIPLE_FAULT                 2  "Triple fault."
        INIT                         3  "INIT signal."
        SIPI                         4  "Start-up interrupt. Qualification: vector."
        IO_SMI                       5  "System-management interrupt after an I/O instruction."
        OTHER_SMI                    6  "Other system-management interrupt."
        INTERRUPT_WINDOW             7  "The guest could take an interrupt now."
        NMI_WINDOW                   8  "The guest could take a virtual NMI now."
        TASK_SWITCH                  9  "Task switch. Qualification: `TaskSwitch`."
        CPUID                       10  "CPUID."
        GETSEC                      11  "GETSEC."
        HLT                         12  "HLT."
        INVD                        13  "INVD."
        INVLPG                      14  "INVLPG. Qualification: linear address."
        RDPMC                       15  "RDPMC."
        RDTSC                       16  "RDTSC."
        RSM                         17  "RSM."
        VMCALL                      18  "VMCALL."
        VMCLEAR                     19  "VMCLEAR."
        VMLAUNCH                    20  "VMLAUNCH."
        VMPTRLD                     21  "VMPTRLD."
        VMPTRST                     22  "VMPTRST."
        VMREAD                      23  "VMREAD."
        VMRESUME                    24  "VMRESUME."
        VMWRITE                     25  "VMWRITE."
        VMXOFF                      26  "VMXOFF."
        VMXON                       27  "VMXON."
        CR_ACCESS                   28  "Access to a control register. Qualification: `CrAccess`."
        MOV_DR                      29  "MOV of a debug register. Qualification: `MovDr`."
        IO_INSTRUCTION              30  "IN, OUT, INS, OUTS. Qualification: `IoAccess`."
        RDMSR                       31  "RDMSR."
        WRMSR                       32  "WRMSR."
        INVALID_GUEST_STATE         33  "Entry failed: the guest's state is not valid."
        MSR_LOADING                 34  "Entry failed at an MSR. Qualification: its place in the list, from 1."
        MWAIT                       36  "MWAIT. Qualification: whether the monitor was armed."
        MONITOR_TRAP_FLAG           37  "An instruction was done."
        MONITOR                     39  "MONITOR."
        PAUSE                       40  "PAUSE, or a loop of them."
        MACHINE_CHECK               41  "Entry failed by a machine check."
        TPR_BELOW_THRESHOLD         43  "The task priority class fell below the threshold, done."
        APIC_ACCESS                 44  "Access to the APIC-access page. Qualification: `ApicAccess`."
        VIRTUALIZED_EOI             45  "End of an interrupt of the bit map, done. Qualification: vector."
        GDTR_OR_IDTR_ACCESS         46  "LGDT, LIDT, SGDT, SIDT. Qualification: displacement."
        LDTR_OR_TR_ACCESS           47  "LLDT, LTR, SLDT, STR. Qualification: displacement."
        EPT_VIOLATION               48  "Qualification: `EptViolation`."
        EPT_MISCONFIGURATION        49  "An EPT entry is not valid."
        INVEPT                      50  "INVEPT."
        RDTSCP                      51  "RDTSCP."
        PREEMPTION_TIMER            52  "The VMX-preemption timer counted down."
        INVVPID                     53  "INVVPID."
        WBINVD                      54  "WBINVD or WBNOINVD."
        XSETBV                      55  "XSETBV."
        APIC_WRITE                  56  "Write of the virtual-APIC page, done. Qualification: offset."
        RDRAND                      57  "RDRAND."
        INVPCID                     58  "INVPCID."
        VMFUNC                      59  "VMFUNC of a function that is not allowed."
        ENCLS                       60  "ENCLS."
        RDSEED                      61  "RDSEED."
        PAGE_MODIFICATION_LOG_FULL  62  "No place in the log for a page."
        XSAVES                      63  "XSAVES."
        XRSTORS                     64  "XRSTORS."
        PCONFIG                     65  "PCONFIG."
        SPP_EVENT                   66  "Miss or misconfiguration of sub-page permissions."
        UMWAIT                      67  "UMWAIT."
        TPAUSE                      68  "TPAUSE."
        LOADIWKEY                   69  "LOADIWKEY."
        ENCLV                       70  "ENCLV."
        ENQCMD_PASID_FAILURE        72  "ENQCMD with a process identifier that has no translation."
        ENQCMDS_PASID_FAILURE       73  "ENQCMDS with a process identifier that has no translation."
        BUS_LOCK                    74  "Bus lock, done."
        INSTRUCTION_TIMEOUT         75  "Too long without instruction boundary."
        SEAMCALL                    76  "SEAMCALL."
        TDCALL                      77  "TDCALL."
        RDMSRLIST                   78  "RDMSRLIST. Qualification: the register."
        WRMSRLIST                   79  "WRMSRLIST. Qualification: the register."
    }
}
