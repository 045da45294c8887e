//! Exit qualifications and instruction information (SDM 3C, "Basic VM-Exit Information", "Information for VM Exits Due to
//! Instruction Execution").

flags! {
    /// Of an EPT violation (table "Exit Qualification for EPT Violations").
    EptViolation: u64 {
        READ             0  "The access was a read."
        WRITE            1  "The access was a write."
        FETCH            2  "The access was an instruction fetch."
        READABLE         3  "All entries on the way allowed reads; with the next two: none was present if all are 0."
        WRITABLE         4  "All allowed writes."
        EXECUTABLE       5  "All allowed execution, at supervisor-mode addresses with mode-based execute control."
        USER_EXECUTABLE  6  "All allowed execution at user-mode addresses, with mode-based execute control."
        LINEAR           7  "The guest linear-address field is valid."
        FINAL            8  "The access was to the translated address; else to an entry of the guest's tables."
        USER             9  "The linear address is a user-mode one; this and the next two with advanced information."
        PAGE_WRITABLE   10  "The guest's own tables allowed writes."
        PAGE_NX         11  "The guest's own tables forbade execution."
        NMI_UNBLOCKING  12  "IRET had already ended the blocking by NMI, unless an event was being delivered."
        SHADOW_STACK    13  "The access was one to a shadow stack."
        SSS             14  "The entry has supervisor shadow stack set."
        GUEST_PAGING    15  "Guest-paging verification failed."
        ASYNCHRONOUS    16  "The access was none of an instruction or of an event's delivery."
    }

    /// Of an I/O instruction (table "Exit Qualification for I/O Instructions"), beside size and port.
    IoAccess: u64 {
        IN               3  "IN or INS; else OUT or OUTS."
        STRING           4  "INS or OUTS."
        REP              5  "With a REP prefix."
        IMMEDIATE        6  "The port was an immediate operand; else in DX."
    }

    /// Of a MOV of a debug register (table "Exit Qualification for MOV DR"), beside the registers.
    MovDr: u64 {
        FROM_DR          4  "From the debug register; else to it."
    }

    /// Of an access to a control register (table "Exit Qualification for Control-Register Accesses"), beside numbers.
    CrAccess: u64 {
        LMSW_MEMORY      6  "LMSW's operand was in memory."
    }

    /// Of an access to the APIC-access page (table "Exit Qualification for APIC-Access VM Exits"), beside offset and
    /// type.
    ApicAccess: u64 {
        ASYNCHRONOUS    16  "The access was none of an instruction or of an event's delivery."
    }

    /// Of a #DB (table "Exit Qualification for Debug Exceptions"), with the bits of DR6, which is not updated.
    DebugException: u64 {
        B0               0  "Breakpoint 0."
        B1               1  "Breakpoint 1."
        B2               2  "Breakpoint 2."
        B3               3  "Breakpoint 3."
        BLD             11  "Bus lock."
        BD              13  "Access to a debug register."
        BS              14  "Single step."
        RTM             16  "Within a transaction."
    }
}

impl IoAccess {
    /// Bytes of each access: 1, 2 or 4.
    #[must_use]
    pub const fn access_size(self) -> u8 {
        (self.bits() as u8 & 0x7) + 1
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.bits() >> 16) as u16
    }
}

impl MovDr {
    /// Number of the debug register.
    #[must_use]
    pub const fn debug_register(self) -> u8 {
        self.bits() as u8 & 0x7
    }

    /// Number of the general register, 4 RSP.
    #[must_use]
    pub const fn general_register(self) -> u8 {
        (self.bits() >> 8) as u8 & 0xf
    }
}

/// How a control register was accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrAccessType {
    /// MOV to the control register.
    MovTo,
    /// MOV from the control register.
    MovFrom,
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw,
}

impl CrAccess {
    /// Number of the control register.
    #[must_use]
    pub const fn control_register(self) -> u8 {
        self.bits() as u8 & 0xf
    }

    /// How it was accessed.
    #[must_use]
    pub const fn kind(self) -> CrAccessType {
        match self.bits() >> 4 & 0b11 {
            0 => CrAccessType::MovTo,
            1 => CrAccessType::MovFrom,
            2 => CrAccessType::Clts,
            _ => CrAccessType::Lmsw,
        }
    }

    /// Number of the general register of a MOV, 4 RSP.
    #[must_use]
    pub const fn general_register(self) -> u8 {
        (self.bits() >> 8) as u8 & 0xf
    }

    /// Operand of LMSW.
    #[must_use]
    pub const fn lmsw_source(self) -> u16 {
        (self.bits() >> 16) as u16
    }
}

open_numbers! {
    /// How the APIC-access page was accessed.
    ApicAccessType: u8 {
        LINEAR_READ              0  "Read by an instruction."
        LINEAR_WRITE             1  "Write by an instruction."
        LINEAR_FETCH             2  "Instruction fetch."
        LINEAR_EVENT_DELIVERY    3  "While an event was delivered."
        PHYSICAL_EVENT_DELIVERY 10  "By a guest-physical address, while an event was delivered."
        PHYSICAL_INSTRUCTION    15  "By a guest-physical address, by an instruction or its fetch."
    }
}

impl ApicAccess {
    /// Offset in the page; only if the access was by a linear address.
    #[must_use]
    pub const fn offset(self) -> u16 {
        self.bits() as u16 & 0xfff
    }

    /// How it was accessed.
    #[must_use]
    pub const fn kind(self) -> ApicAccessType {
        ApicAccessType((self.bits() >> 12) as u8 & 0xf)
    }
}

/// Of a task switch (table "Exit Qualification for Task Switches").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskSwitch(pub u64);

/// What switched the task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskSwitchSource {
    /// CALL.
    Call,
    /// IRET.
    Iret,
    /// JMP.
    Jmp,
    /// An event, through a task gate.
    TaskGate,
}

impl TaskSwitch {
    /// Selector of the new TSS.
    #[must_use]
    pub const fn selector(self) -> u16 {
        self.0 as u16
    }

    /// What switched the task.
    #[must_use]
    pub const fn source(self) -> TaskSwitchSource {
        match self.0 >> 30 & 0b11 {
            0 => TaskSwitchSource::Call,
            1 => TaskSwitchSource::Iret,
            2 => TaskSwitchSource::Jmp,
            _ => TaskSwitchSource::TaskGate,
        }
    }
}

/// Instruction information of INS and OUTS (table "Format of the VM-Exit Instruction-Information Field as Used for INS
/// and OUTS"), if `Basic::has_string_io_information`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringIoInformation(pub u32);

impl StringIoInformation {
    /// Bytes of an address: 2, 4 or 8.
    #[must_use]
    pub const fn address_size(self) -> u8 {
        2 << (self.0 >> 7 & 0b11)
    }

    /// Segment of OUTS: 0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS.
    #[must_use]
    pub const fn segment(self) -> u8 {
        (self.0 >> 15) as u8 & 0x7
    }
}

const _: () = {
    let in_dword = IoAccess::from_bits_retain(0x0cfc_000b);
    assert!(in_dword.access_size() == 4 && in_dword.port() == 0xcfc && in_dword.contains(IoAccess::IN));
    let mov_to_cr3 = CrAccess::from_bits_retain(0x703);
    assert!(matches!(mov_to_cr3.kind(), CrAccessType::MovTo));
    assert!(mov_to_cr3.control_register() == 3 && mov_to_cr3.general_register() == 7);
    assert!(StringIoInformation(0x1_8100).address_size() == 8 && StringIoInformation(0x1_8100).segment() == 3);
};
