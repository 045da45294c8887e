//! Fields of the control area beside intercepts, events and exits (APM 2, table B-1).

stored_flags! {
    /// Virtual interrupts (APM 2, 15.21), beside the numbers in
    /// [`V_TPR`](Self::V_TPR_MASK), [`V_INTR_PRIO`](Self::V_INTR_PRIO_SHIFT) and
    /// [`V_INTR_VECTOR`](Self::V_INTR_VECTOR_SHIFT).
    VirtualInterrupt: u64 {
        V_IRQ            8  "A virtual interrupt is pending; the processor clears it when the guest takes it."
        V_GIF            9  "The virtual global interrupt flag is set, with CPUID's `VGIF`."
        V_NMI           11  "A virtual NMI is pending, with CPUID's `VNMI`."
        V_NMI_MASK      12  "Virtual NMIs are masked, with CPUID's `VNMI`."
        V_IGN_TPR       20  "The virtual interrupt does not heed V_TPR."
        V_INTR_MASKING  24  "RFLAGS.IF and CR8 of the guest affect virtual interrupts only."
        V_GIF_ENABLE    25  "STGI and CLGI of the guest use V_GIF."
        V_NMI_ENABLE    26  "The processor delivers virtual NMIs."
        X2AVIC_ENABLE   30  "AVIC is in x2APIC mode."
        AVIC_ENABLE     31  "AVIC."
    }

    /// Interrupt shadow (APM 2, 15.21.5).
    InterruptShadow: u64 {
        INTERRUPT_SHADOW     0  "The guest is behind STI or MOV SS: no interrupt before the next instruction."
        GUEST_INTERRUPT_MASK 1  "RFLAGS.IF, where the guest's flags are encrypted; read-only."
    }

    /// Nested paging and what came later.
    NestedControl: u64 {
        NP_ENABLE       0   "Nested paging (APM 2, 15.25)."
        SEV             1   "Encrypted memory (APM 2, 15.34)."
        SEV_ES          2   "Encrypted state (APM 2, 15.35)."
        GMET            3   "Guest mode execute trap: pages that users may use are not executable at CPL 0 to 2."
        SSS_CHECK       4   "Supervisor shadow stack restrictions."
        VTE             5   "Virtual transparent encryption."
        ROGPT           6   "Read-only guest page tables."
        INVLPGB         7   "INVLPGB and TLBSYNC in the guest."
    }

    /// Virtualization of last branch records, VMLOAD and VMSAVE.
    VirtualizationControl: u64 {
        LBR              0  "Last branch records are the guest's (APM 2, 15.23)."
        VMSAVE_VMLOAD    1  "VMSAVE and VMLOAD of the guest take guest-physical addresses (APM 2, 15.33.1)."
        IBS              2  "Instruction-based sampling is the guest's."
        PMC              3  "Performance counters are the guest's."
    }

    /// VMCB clean bits (APM 2, 15.15.3): the processor may use what it kept of these fields. A hint that has to be
    /// right, and only for the block that ran last on this processor, at the same address.
    CleanBits: u32 {
        I        0  "Intercepts, TSC offset, pause filter."
        IOPM     1  "I/O and MSR permissions map addresses."
        ASID     2  "Address space identifier."
        TPR      3  "Virtual interrupts, but for what the processor itself changes: V_TPR, V_IRQ, V_GIF."
        NP       4  "Nested paging: N_CR3, G_PAT and the controls."
        CRX      5  "CR0, CR3, CR4, EFER."
        DRX      6  "DR6, DR7."
        DT       7  "GDTR, IDTR."
        SEG      8  "CS, DS, ES, SS, CPL."
        CR2      9  "CR2."
        LBR     10  "Last branch records."
        AVIC    11  "AVIC's addresses."
        CET     12  "S_CET, SSP, ISST_ADDR."
    }
}

impl VirtualInterrupt {
    /// V_TPR: the guest's CR8, bits 7:0, of which 3:0 are used.
    pub const V_TPR_MASK: u64 = 0xff;
    /// Lowest bit of V_INTR_PRIO, of four: priority class of the virtual interrupt, its vector divided by 16.
    pub const V_INTR_PRIO_SHIFT: u32 = 16;
    /// Lowest bit of V_INTR_VECTOR, of eight: vector of the virtual interrupt.
    pub const V_INTR_VECTOR_SHIFT: u32 = 32;

    /// A pending interrupt with its vector and priority, to be put together with the other flags.
    #[must_use]
    pub const fn pending(vector: u8) -> Self {
        let (vector, priority) = (vector as u64, (vector >> 4) as u64);
        Self::from_bits_retain(
            Self::V_IRQ.bits() | priority << Self::V_INTR_PRIO_SHIFT | vector << Self::V_INTR_VECTOR_SHIFT,
        )
    }

    /// What [`pending`](Self::pending) sets.
    pub const PENDING_MASK: Self =
        Self::from_bits_retain(Self::V_IRQ.bits() | 0xf << Self::V_INTR_PRIO_SHIFT | 0xff << Self::V_INTR_VECTOR_SHIFT);

    /// V_TPR: the task priority class that the guest has set by CR8.
    #[must_use]
    pub const fn tpr(self) -> u8 {
        (self.bits() & Self::V_TPR_MASK) as u8
    }
}

const _: () = assert!(VirtualInterrupt::pending(0x31).bits() == 0x31_0003_0100);

open_numbers! {
    /// What VMRUN does with the TLB (APM 2, 15.16.1). The processor does not change it afterwards.
    TlbControl: u8 {
        NOTHING             0   "Nothing."
        FLUSH_ALL           1   "Flush all entries of all address space identifiers; on every SVM processor."
        FLUSH_GUEST         3   "Flush all entries of this guest, with CPUID's `FLUSH_BY_ASID`."
        FLUSH_GUEST_LOCAL   7   "Flush this guest's entries that are not global, with CPUID's `FLUSH_BY_ASID`."
    }
}

/// AVIC's table of physical destinations: host-physical address in bits 51:12, and in the low bits the highest index
/// in use, which takes 8 bits, or 12 in x2APIC mode.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(transparent)]
pub struct AvicPhysicalTable(pub u64);
