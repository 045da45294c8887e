//! Parts of the guest's state that are no registers, and segments (SDM 3C, "Guest-State Area").

flags! {
    /// Access rights of a segment, beside its type (bits 3:0) and privilege level ([`DPL`](Self::DPL_SHIFT)).
    AccessRights: u32 {
        A            0  "Accessed, of code or data."
        RW           1  "Code may be read, data written."
        CE           2  "Code conforms; data grows down."
        CODE         3  "Code; else data."
        S            4  "Code or data; else a system segment."
        P            7  "Present."
        AVL         12  "For software."
        L           13  "64-bit code."
        DB          14  "Operands and stack pointer of 32 bits."
        G           15  "The limit is in units of 4 KiB."
        UNUSABLE    16  "A null selector was loaded: using it is #GP, or #SS."
    }

    /// Guest interruptibility state.
    Interruptibility: u32 {
        BLOCKING_BY_STI      0  "Behind STI: no interrupt before the next instruction."
        BLOCKING_BY_MOV_SS   1  "Behind MOV SS or POP SS: no interrupt or debug trap before the next instruction."
        BLOCKING_BY_SMI      2  "In system-management mode."
        BLOCKING_BY_NMI      3  "Within an NMI's handler: no NMI before IRET."
        ENCLAVE_INTERRUPTION 4  "The exit was within an enclave."
    }

    /// Guest pending debug exceptions, with the bits of DR6.
    PendingDebug: u64 {
        B0                   0  "Breakpoint 0."
        B1                   1  "Breakpoint 1."
        B2                   2  "Breakpoint 2."
        B3                   3  "Breakpoint 3."
        BLD                 11  "Bus lock."
        ENABLED_BREAKPOINT  12  "At least one of the breakpoints is enabled."
        BS                  14  "Single step: required where RFLAGS.TF is set behind STI or MOV SS."
        RTM                 16  "Within a transaction."
    }
}

impl AccessRights {
    /// Lowest bit of the descriptor's privilege level, of two.
    pub const DPL_SHIFT: u32 = 5;

    /// Those of a descriptor in memory.
    #[must_use]
    pub const fn from_descriptor(descriptor: u64) -> Self {
        Self::from_bits_retain((descriptor >> 40 & 0xf0ff) as u32)
    }
}

const _: () = assert!(AccessRights::from_descriptor(crate::x86::descriptor::USER_CODE).bits() == 0xa0fb);

open_numbers! {
    /// Guest activity state.
    ActivityState: u32 {
        ACTIVE          0   "Executes instructions."
        HLT             1   "Waits for an interrupt."
        SHUTDOWN        2   "Had a triple fault or the like."
        WAIT_FOR_SIPI   3   "Waits for a start-up interrupt."
    }
}
