//! Why a guest left (APM 2, appendix C) and what EXITINFO1 and EXITINFO2 say then.

open_numbers! {
    /// Exit code, low half. [`CR0_READ`](Self::CR0_READ), [`CR0_WRITE`](Self::CR0_WRITE),
    /// [`DR0_READ`](Self::DR0_READ), [`DR0_WRITE`](Self::DR0_WRITE), [`CR0_WRITE_TRAP`](Self::CR0_WRITE_TRAP) are the
    /// first of 16, [`EXCP0`](Self::EXCP0) is the first of 32.
    ExitCode: u32 {
        CR0_READ             0x000  "Read of CR0; of CRn at + n."
        CR0_WRITE            0x010  "Write of CR0; of CRn at + n. EXITINFO1: [`MovCr`]."
        DR0_READ             0x020  "Read of DR0; of DRn at + n. EXITINFO1: general register in bits 3:0."
        DR0_WRITE            0x030  "Write of DR0; of DRn at + n. EXITINFO1: general register in bits 3:0."
        EXCP0                0x040  "Exception 0; n at + n. EXITINFO1: error code. EXITINFO2: address, of #PF."
        INTR                 0x060  "Physical interrupt, which stays pending."
        NMI                  0x061  "Physical NMI."
        SMI                  0x062  "Physical SMI. EXITINFO1: bit 0: it is an external one."
        INIT                 0x063  "Physical INIT."
        VINTR                0x064  "The guest could take its virtual interrupt now."
        CR0_SEL_WRITE        0x065  "Write of CR0 that changes other bits than TS and MP."
        IDTR_READ            0x066  "SIDT."
        GDTR_READ            0x067  "SGDT."
        LDTR_READ            0x068  "SLDT."
        TR_READ              0x069  "STR."
        IDTR_WRITE           0x06a  "LIDT."
        GDTR_WRITE           0x06b  "LGDT."
        LDTR_WRITE           0x06c  "LLDT."
        TR_WRITE             0x06d  "LTR."
        RDTSC                0x06e  "RDTSC."
        RDPMC                0x06f  "RDPMC."
        PUSHF                0x070  "PUSHF."
        POPF                 0x071  "POPF."
        CPUID                0x072  "CPUID."
        RSM                  0x073  "RSM."
        IRET                 0x074  "IRET."
        SWINT                0x075  "INT n. EXITINFO1: vector in bits 7:0."
        INVD                 0x076  "INVD."
        PAUSE                0x077  "PAUSE."
        HLT                  0x078  "HLT."
        INVLPG               0x079  "INVLPG. EXITINFO1: linear address."
        INVLPGA              0x07a  "INVLPGA. EXITINFO1: linear address."
        IOIO                 0x07b  "IN or OUT. EXITINFO1: [`IoInfo`]. EXITINFO2: address of the next instruction."
        MSR                  0x07c  "EXITINFO1: 0 RDMSR, 1 WRMSR."
        TASK_SWITCH          0x07d  "Task switch. EXITINFO1: selector of the new TSS. EXITINFO2: [`TaskSwitchInfo`]."
        FERR_FREEZE          0x07e  "x87 error, frozen."
        SHUTDOWN             0x07f  "Shutdown. The saved state is undefined."
        VMRUN                0x080  "VMRUN."
        VMMCALL              0x081  "VMMCALL."
        VMLOAD               0x082  "VMLOAD."
        VMSAVE               0x083  "VMSAVE."
        STGI                 0x084  "STGI."
        CLGI                 0x085  "CLGI."
        SKINIT               0x086  "SKINIT."
        RDTSCP               0x087  "RDTSCP."
        ICEBP                0x088  "INT1."
        WBINVD               0x089  "WBINVD or WBNOINVD."
        MONITOR              0x08a  "MONITOR or MONITORX."
        MWAIT                0x08b  "MWAIT or MWAITX."
        MWAIT_CONDITIONAL    0x08c  "MWAIT or MWAITX with the monitor armed."
        XSETBV               0x08d  "XSETBV."
        RDPRU                0x08e  "RDPRU."
        EFER_WRITE_TRAP      0x08f  "Write of EFER, done."
        CR0_WRITE_TRAP       0x090  "Write of CR0, done; of CRn at + n."
        INVLPGB              0x0a0  "INVLPGB."
        INVLPGB_ILLEGAL      0x0a1  "INVLPGB that a guest may not use."
        INVPCID              0x0a2  "INVPCID."
        MCOMMIT              0x0a3  "MCOMMIT."
        TLBSYNC              0x0a4  "TLBSYNC."
        BUS_LOCK             0x0a5  "Bus lock."
        IDLE_HLT             0x0a6  "HLT with no virtual interrupt pending."
        NPF                  0x400  "Nested page fault. EXITINFO1: [`NestedPageFault`]. EXITINFO2: guest-physical address."
        AVIC_INCOMPLETE_IPI  0x401  "EXITINFO1: interrupt command. EXITINFO2: [`AvicIpiFailure`] in bits 63:32."
        AVIC_NOACCEL         0x402  "EXITINFO1: [`AvicAccess`]. EXITINFO2: vector in bits 7:0."
        VMGEXIT              0x403  "VMGEXIT of an SEV-ES guest."
        INVALID      0xffff_ffff    "VMRUN refused the VMCB (APM 2, 15.5.1)."
        BUSY         0xffff_fffe    "The encrypted state is in use."
        IDLE_REQUIRED 0xffff_fffd   "The sibling thread is not idle, which the guest requires."
        INVALID_PMC  0xffff_fffc    "The performance counters do not match."
    }

    /// Why AVIC did not deliver an interrupt command to all destinations (APM 2, table 15-30).
    AvicIpiFailure: u32 {
        INVALID_INTERRUPT_TYPE   0  "AVIC does not do such commands: the hypervisor carries it out."
        TARGET_NOT_RUNNING       1  "It is in the destination's page, but a destination does not run: wake it."
        INVALID_TARGET           2  "There is no such destination."
        INVALID_BACKING_PAGE     3  "The destination's entry has no page."
        INVALID_VECTOR           4  "The vector is below 16."
    }
}

impl ExitCode {
    /// The vector of an intercepted exception.
    #[must_use]
    pub const fn exception(self) -> Option<u8> {
        if self.0 >= Self::EXCP0.0 && self.0 < Self::EXCP0.0 + 32 { Some((self.0 - Self::EXCP0.0) as u8) } else { None }
    }
}

const _: () = {
    assert!(matches!(ExitCode(0x4e).exception(), Some(14)) && ExitCode(0x60).exception().is_none());
    assert!(ExitCode::INVALID.0.cast_signed() == -1 && ExitCode::INVALID_PMC.0.cast_signed() == -4);
};

flags! {
    /// EXITINFO1 of a nested page fault (APM 2, 15.25.6).
    NestedPageFault: u64 {
        P        0  "The page was present and its rights were violated; else a nested page was not present."
        RW       1  "The access was a write; always set while the guest's own tables were walked."
        US       2  "The access was one at ring 3, as all walks of the guest's tables and most accesses are."
        RSV      3  "A reserved bit of a nested entry was set."
        ID       4  "The access was an instruction fetch."
        SS       6  "The access was one to a shadow stack."
        RMP     31  "The access violated the reverse map table."
        FINAL   32  "At the guest's final address."
        WALK    33  "While the guest's page tables were walked: EXITINFO2 is the address of an entry of theirs."
        ENC     34  "The page was encrypted."
        SIZEM   35  "The nested page's size does not match the reverse map table."
        VMPL    36  "A privilege level of the virtual machine forbade it."
        SSS     37  "Supervisor shadow stack restrictions forbade it."
    }

    /// EXITINFO1 of an IN or OUT (APM 2, 15.10.2), beside [`segment`](Self::segment) and [`port`](Self::port).
    IoInfo: u64 {
        IN       0  "IN or INS; else OUT or OUTS."
        STR      2  "INS or OUTS."
        REP      3  "With a REP prefix."
        SZ8      4  "A byte."
        SZ16     5  "Two bytes."
        SZ32     6  "Four bytes."
        A16      7  "16-bit addresses."
        A32      8  "32-bit addresses."
        A64      9  "64-bit addresses."
    }

    /// EXITINFO1 of a MOV of a control register, with CPUID's `DECODE_ASSISTS` (APM 2, 15.8.1), beside the general
    /// register in bits 3:0.
    MovCr: u64 {
        MOV     63  "It is a MOV; else CLTS, LMSW or SMSW, without general register."
    }

    /// EXITINFO2 of a task switch (APM 2, 15.14.1), beside the error code in bits 31:0.
    TaskSwitchInfo: u64 {
        IRET            36  "By IRET."
        FAR_JUMP        38  "By a far jump."
        HAS_ERROR_CODE  44  "By an event that pushes an error code."
        RF              48  "RFLAGS.RF, as it is to be saved."
    }

    /// EXITINFO1 of an access to the local APIC that AVIC leaves to the hypervisor, beside the register's offset in
    /// bits 11:4 (APM 2, 15.29.9.2).
    AvicAccess: u64 {
        WRITE   32  "A write, done already if the register is of the trap kind; else a read."
    }
}

impl IoInfo {
    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        (self.bits() >> 16) as u16
    }

    /// Segment of an OUTS: 0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS; with CPUID's `DECODE_ASSISTS`.
    #[must_use]
    pub const fn segment(self) -> u8 {
        (self.bits() >> 10 & 0x7) as u8
    }

    /// Bytes of each access: 1, 2 or 4; 0 if no size is given, which no processor does.
    #[must_use]
    pub const fn access_size(self) -> u8 {
        (self.bits() >> 4 & 0x7) as u8
    }
}

const _: () = {
    let out_byte = IoInfo::from_bits_retain(0x03f8_0210);
    assert!(out_byte.port() == 0x3f8 && out_byte.access_size() == 1 && out_byte.segment() == 0);
    assert!(IoInfo::SZ16.access_size() == 2 && IoInfo::SZ32.access_size() == 4);
};
