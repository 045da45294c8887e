//! What VMX can do on a processor: values of the registers from `IA32_VMX_BASIC` on (SDM 3D, appendix A, "VMX
//! Capability Reporting Facility").

/// `IA32_VMX_BASIC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Basic(pub u64);

impl Basic {
    /// Revision identifier, which starts the VMXON region and each VMCS.
    #[must_use]
    pub const fn revision(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }

    /// Bytes of the VMXON region and of a VMCS, at most 4096.
    #[must_use]
    pub const fn region_size(self) -> u32 {
        (self.0 >> 32) as u32 & 0x1fff
    }

    /// Regions have to lie below 4 GiB.
    #[must_use]
    pub const fn has_32_bit_addresses(self) -> bool {
        self.0 & 1 << 48 != 0
    }

    /// Memory type that the processor uses for its regions: `msr::MEMORY_TYPE_WB` on all processors so far.
    #[must_use]
    pub const fn memory_type(self) -> u8 {
        (self.0 >> 50) as u8 & 0xf
    }

    /// Exits due to INS and OUTS give instruction information.
    #[must_use]
    pub const fn has_string_io_information(self) -> bool {
        self.0 & 1 << 54 != 0
    }

    /// The TRUE registers exist, and controls that default to 1 may be 0 as they tell.
    #[must_use]
    pub const fn has_true_controls(self) -> bool {
        self.0 & 1 << 55 != 0
    }
}

/// Allowed settings of 32 controls: `IA32_VMX_PINBASED_CTLS` and the like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllowedControls(pub u64);

impl AllowedControls {
    /// Controls that have to be 1.
    #[must_use]
    pub const fn required(self) -> u32 {
        self.0 as u32
    }

    /// Controls that may be 1.
    #[must_use]
    pub const fn allowed(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The wanted controls that may be 1, and those that have to.
    #[must_use]
    pub const fn adjust(self, wanted: u32) -> u32 {
        wanted & self.allowed() | self.required()
    }
}

const _: () = assert!(AllowedControls(0x0000_00ff_0000_0016).adjust(0x181) == 0x97);

/// `IA32_VMX_MISC`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Misc(pub u64);

impl Misc {
    /// The VMX-preemption timer counts whenever this bit of the time stamp counter changes.
    #[must_use]
    pub const fn preemption_timer_shift(self) -> u32 {
        self.0 as u32 & 0x1f
    }

    /// An exit stores IA32_EFER.LMA in the entry control "IA-32e mode guest"; so it is with unrestricted guests.
    #[must_use]
    pub const fn stores_long_mode(self) -> bool {
        self.0 & 1 << 5 != 0
    }

    /// A guest may be entered in this activity state.
    #[must_use]
    pub const fn has_activity_state(self, state: super::state::ActivityState) -> bool {
        state.0 == 0 || (state.0 <= 3 && self.0 >> (5 + state.0) & 1 != 0)
    }

    /// Number of CR3 targets, 0 to 256.
    #[must_use]
    pub const fn cr3_targets(self) -> u32 {
        (self.0 >> 16) as u32 & 0x1ff
    }

    /// Entries that lists of MSRs to load and store may have.
    #[must_use]
    pub const fn msr_list_limit(self) -> u32 {
        512 * (((self.0 >> 25) as u32 & 0x7) + 1)
    }

    /// VMWRITE can write every field.
    #[must_use]
    pub const fn can_write_all_fields(self) -> bool {
        self.0 & 1 << 29 != 0
    }

    /// A software event may be injected with an instruction length of 0.
    #[must_use]
    pub const fn can_inject_without_length(self) -> bool {
        self.0 & 1 << 30 != 0
    }
}

/// Bits that VMX operation wants in CR0 or CR4: `IA32_VMX_CR0_FIXED0` and `FIXED1`, or those of CR4. An unrestricted
/// guest's CR0 is free of PE and PG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedBits {
    /// Bits that have to be 1.
    pub fixed_0: u64,
    /// Bits that may be 1.
    pub fixed_1: u64,
}

impl FixedBits {
    /// The value with what has to be 1, and without what has to be 0.
    #[must_use]
    pub const fn adjust(self, value: u64) -> u64 {
        value & self.fixed_1 | self.fixed_0
    }
}

flags! {
    /// `IA32_VMX_EPT_VPID_CAP`.
    EptVpidCapability: u64 {
        EXECUTE_ONLY                     0  "Pages that are executable, but not readable."
        PAGE_WALK_LENGTH_4               6  "Four levels."
        PAGE_WALK_LENGTH_5               7  "Five levels."
        MEMORY_TYPE_UC                   8  "The structures may be uncacheable."
        MEMORY_TYPE_WB                  14  "The structures may be write-back."
        PAGE_2M                         16  "2 MiB pages."
        PAGE_1G                         17  "1 GiB pages."
        INVEPT                          20  "INVEPT."
        ACCESSED_DIRTY                  21  "Accessed and dirty flags."
        ADVANCED_EXIT_INFORMATION       22  "EPT violations tell of the guest's own page's rights."
        SUPERVISOR_SHADOW_STACK         23  "Supervisor shadow stack control."
        INVEPT_SINGLE_CONTEXT           25  "INVEPT of one EPT pointer."
        INVEPT_ALL_CONTEXTS             26  "INVEPT of all."
        INVVPID                         32  "INVVPID."
        INVVPID_ADDRESS                 40  "INVVPID of an address of one identifier."
        INVVPID_SINGLE_CONTEXT          41  "INVVPID of one identifier."
        INVVPID_ALL_CONTEXTS            42  "INVVPID of all."
        INVVPID_RETAINING_GLOBALS       43  "INVVPID of one identifier but for global pages."
    }
}
