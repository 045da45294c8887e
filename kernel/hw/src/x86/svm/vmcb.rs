//! The virtual machine control block (APM 2, appendix B).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::control::{
    AvicPhysicalTable, CleanBits, InterruptShadow, NestedControl, TlbControl, VirtualInterrupt, VirtualizationControl,
};
use super::event::EventInjection;
use super::exit::ExitCode;
use super::intercept::{Intercept3, Intercept4, Intercept5, InterceptException};

/// The page that VMRUN, VMLOAD and VMSAVE take. All zero is a valid value to start from, not one to run.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What the hypervisor asks for and learns.
    pub control: ControlArea,
    /// The guest's registers.
    pub save: StateSaveArea,
}

/// The control area (APM 2, table B-1).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
pub struct ControlArea {
    /// Vector 0, low half: bit n intercepts reads of CRn.
    pub intercept_cr_read: u16,
    /// Vector 0, high half: bit n intercepts writes of CRn.
    pub intercept_cr_write: u16,
    /// Vector 1, low half: bit n intercepts reads of DRn.
    pub intercept_dr_read: u16,
    /// Vector 1, high half: bit n intercepts writes of DRn.
    pub intercept_dr_write: u16,
    /// Vector 2: bit n intercepts exception n.
    pub intercept_exception: InterceptException,
    /// Vector 3.
    pub intercept_3: Intercept3,
    /// Vector 4.
    pub intercept_4: Intercept4,
    /// Vector 5.
    pub intercept_5: Intercept5,
    /// Reserved.
    pub reserved_018: [u8; 0x24],
    /// PAUSEs closer together than so many cycles count down, with CPUID's `PAUSE_FILTER_THRESHOLD`.
    pub pause_filter_threshold: u16,
    /// PAUSEs until an exit, with CPUID's `PAUSE_FILTER`.
    pub pause_filter_count: u16,
    /// Host-physical address of the I/O permissions map; its low 12 bits are ignored.
    pub iopm_base_pa: u64,
    /// Host-physical address of the MSR permissions map; its low 12 bits are ignored.
    pub msrpm_base_pa: u64,
    /// Added to what the guest reads of the time stamp counter.
    pub tsc_offset: u64,
    /// Address space identifier of the guest, not 0.
    pub guest_asid: u32,
    /// What to do with the TLB on VMRUN.
    pub tlb_control: TlbControl,
    /// Reserved.
    pub reserved_05d: [u8; 3],
    /// Virtual interrupts.
    pub virtual_interrupt: VirtualInterrupt,
    /// Interrupts are held back for one instruction.
    pub interrupt_shadow: InterruptShadow,
    /// Low half of EXITCODE, which suffices to tell all codes apart; some emulators leave the high half at 0 where the
    /// processor has copies of the sign.
    pub exit_code: ExitCode,
    /// High half of EXITCODE.
    pub exit_code_high: u32,
    /// Depends on the exit code, see [`exit`](super::exit).
    pub exit_info_1: u64,
    /// Depends on the exit code, see [`exit`](super::exit).
    pub exit_info_2: u64,
    /// The event whose delivery the exit interrupted, if it is valid; it has to be injected again.
    pub exit_int_info: EventInjection,
    /// Nested paging and other features.
    pub nested_control: NestedControl,
    /// Guest-physical address of the virtual local APIC, for AVIC.
    pub avic_apic_bar: u64,
    /// Guest-physical address of the guest-hypervisor communication block, for SEV-ES.
    pub ghcb_pa: u64,
    /// The event to deliver on VMRUN. The processor clears its validity on exit.
    pub event_injection: EventInjection,
    /// Host-physical address of the root of the nested page table.
    pub n_cr3: u64,
    /// Virtualization of last branch records, VMLOAD and VMSAVE.
    pub virtualization_control: VirtualizationControl,
    /// What has not changed since the last VMRUN of this block.
    pub clean_bits: CleanBits,
    /// Reserved.
    pub reserved_0c4: u32,
    /// Address of the next instruction, with CPUID's `NRIPS`, after exits due to instructions; else 0.
    pub next_rip: u64,
    /// How many of the bytes that follow are valid, 0 to 15, with CPUID's `DECODE_ASSISTS`, after nested and ordinary
    /// page faults of data accesses; 0 if they could not be fetched.
    pub instruction_length: u8,
    /// The bytes of the instruction.
    pub instruction_bytes: [u8; 15],
    /// Host-physical address of the virtual local APIC's page, for AVIC.
    pub avic_backing_page: u64,
    /// Reserved.
    pub reserved_0e8: u64,
    /// Host-physical address of the table of logical destinations, for AVIC.
    pub avic_logical_table: u64,
    /// The table of physical destinations, for AVIC.
    pub avic_physical_table: AvicPhysicalTable,
    /// Reserved.
    pub reserved_100: u64,
    /// Host-physical address of the encrypted state, for SEV-ES.
    pub vmsa_pa: u64,
    /// RAX on VMGEXIT, for SEV-ES.
    pub vmgexit_rax: u64,
    /// CPL on VMGEXIT, for SEV-ES.
    pub vmgexit_cpl: u8,
    /// Reserved.
    pub reserved_119: [u8; 7],
    /// Bus locks until an exit.
    pub bus_lock_threshold: u16,
    /// Reserved, and fields of SEV.
    pub reserved_122: [u8; 0x2be],
    /// Reserved for the hypervisor: the processor neither reads nor writes it.
    pub software: [u8; 0x20],
}

/// The state save area (APM 2, table B-2): what VMRUN loads and an exit saves, and, where said, what VMLOAD loads and
/// VMSAVE saves.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
pub struct StateSaveArea {
    /// ES.
    pub es: VmcbSegment,
    /// CS.
    pub cs: VmcbSegment,
    /// SS; the descriptor's privilege level is not used, see `cpl`.
    pub ss: VmcbSegment,
    /// DS.
    pub ds: VmcbSegment,
    /// FS: VMLOAD.
    pub fs: VmcbSegment,
    /// GS: VMLOAD.
    pub gs: VmcbSegment,
    /// GDTR: base and a limit of 16 bits.
    pub gdtr: VmcbSegment,
    /// LDTR: VMLOAD.
    pub ldtr: VmcbSegment,
    /// IDTR: base and a limit of 16 bits.
    pub idtr: VmcbSegment,
    /// TR: VMLOAD.
    pub tr: VmcbSegment,
    /// Reserved.
    pub reserved_0a0: [u8; 0x2b],
    /// Current privilege level; the processor forces it to 0 in real mode and to 3 in virtual-8086 mode.
    pub cpl: u8,
    /// Reserved.
    pub reserved_0cc: u32,
    /// `IA32_EFER`, with SVME set, always.
    pub efer: u64,
    /// Reserved, and performance counters.
    pub reserved_0d8: [u8; 0x70],
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    /// Reserved, and performance counters.
    pub reserved_180: [u8; 0x58],
    /// RSP.
    pub rsp: u64,
    /// Shadow stack configuration of the supervisor.
    pub s_cet: u64,
    /// Shadow stack pointer.
    pub ssp: u64,
    /// Address of the interrupt shadow stack table.
    pub isst_addr: u64,
    /// RAX; the other general registers are the hypervisor's to load and save.
    pub rax: u64,
    /// `IA32_STAR`: VMLOAD.
    pub star: u64,
    /// `IA32_LSTAR`: VMLOAD.
    pub lstar: u64,
    /// `IA32_CSTAR`: VMLOAD.
    pub cstar: u64,
    /// `IA32_FMASK`: VMLOAD.
    pub sfmask: u64,
    /// `IA32_KERNEL_GS_BASE`: VMLOAD.
    pub kernel_gs_base: u64,
    /// `IA32_SYSENTER_CS`: VMLOAD.
    pub sysenter_cs: u64,
    /// `IA32_SYSENTER_ESP`: VMLOAD.
    pub sysenter_esp: u64,
    /// `IA32_SYSENTER_EIP`: VMLOAD.
    pub sysenter_eip: u64,
    /// CR2.
    pub cr2: u64,
    /// Reserved.
    pub reserved_248: [u8; 0x20],
    /// The guest's `IA32_PAT`, with nested paging.
    pub g_pat: u64,
    /// `IA32_DEBUGCTL`, with virtualization of last branch records; so are the next four.
    pub dbgctl: u64,
    /// Last branch: from.
    pub br_from: u64,
    /// Last branch: to.
    pub br_to: u64,
    /// Last exception: from.
    pub last_excp_from: u64,
    /// Last exception: to.
    pub last_excp_to: u64,
    /// Extended last branch control.
    pub dbg_extn_ctl: u64,
    /// Reserved.
    pub reserved_2a0: [u8; 0x40],
    /// The guest's `IA32_SPEC_CTRL`, with CPUID's `SPEC_CTRL`.
    pub spec_ctrl: u64,
    /// Reserved, and the last branch record stack.
    pub reserved_2e8: [u8; 0x918],
}

/// A segment register, as visible in the state save area. LDTR and TR have an attribute of a system segment; GDTR and
/// IDTR have neither selector nor attributes.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C)]
pub struct VmcbSegment {
    /// Selector.
    pub selector: u16,
    /// Attributes.
    pub attributes: SegmentAttributes,
    /// Limit in bytes, the granularity already applied.
    pub limit: u32,
    /// Base; of CS, DS, ES and SS the low 32 bits only.
    pub base: u64,
}

stored_flags! {
    /// Bits 47:40 and 55:52 of a segment's descriptor, packed into 12 bits (APM 2, 15.5.1), beside
    /// [`DPL`](Self::DPL_SHIFT). The low four are the type of a code or data segment.
    SegmentAttributes: u16 {
        A        0  "Accessed."
        RW       1  "Code may be read, data written."
        CE       2  "Code conforms; data grows down."
        CODE     3  "Code; else data."
        S        4  "Code or data; else a system segment."
        P        7  "Present."
        AVL      8  "For software."
        L        9  "64-bit code."
        DB      10  "Operands and stack pointer of 32 bits."
        G       11  "The limit was in units of 4 KiB."
    }
}

impl SegmentAttributes {
    /// Lowest bit of the descriptor's privilege level, of two.
    pub const DPL_SHIFT: u32 = 5;

    /// Those of a descriptor in memory.
    #[must_use]
    pub const fn from_descriptor(descriptor: u64) -> Self {
        Self::from_bits_retain((descriptor >> 40 & 0xff | descriptor >> 44 & 0xf00) as u16)
    }
}

const _: () = assert!(SegmentAttributes::from_descriptor(crate::x86::descriptor::USER_CODE).bits() == 0xafb);

macro_rules! offsets {
    ($($type:ty { $($field:ident $offset:literal)* })*) => {
        const _: () = {
            $($(assert!(offset_of!($type, $field) == $offset);)*)*
        };
    };
}

offsets! {
    Vmcb { control 0x000 save 0x400 }
    ControlArea {
        intercept_cr_read 0x000 intercept_dr_read 0x004 intercept_exception 0x008 intercept_3 0x00c intercept_4 0x010
        intercept_5 0x014 pause_filter_threshold 0x03c pause_filter_count 0x03e iopm_base_pa 0x040 msrpm_base_pa 0x048
        tsc_offset 0x050 guest_asid 0x058 tlb_control 0x05c virtual_interrupt 0x060 interrupt_shadow 0x068
        exit_code 0x070 exit_info_1 0x078 exit_info_2 0x080 exit_int_info 0x088 nested_control 0x090
        avic_apic_bar 0x098 ghcb_pa 0x0a0 event_injection 0x0a8 n_cr3 0x0b0 virtualization_control 0x0b8
        clean_bits 0x0c0 next_rip 0x0c8 instruction_length 0x0d0 instruction_bytes 0x0d1 avic_backing_page 0x0e0
        avic_logical_table 0x0f0 avic_physical_table 0x0f8 vmsa_pa 0x108 vmgexit_rax 0x110 vmgexit_cpl 0x118
        bus_lock_threshold 0x120 software 0x3e0
    }
    StateSaveArea {
        es 0x000 cs 0x010 ss 0x020 ds 0x030 fs 0x040 gs 0x050 gdtr 0x060 ldtr 0x070 idtr 0x080 tr 0x090 cpl 0x0cb
        efer 0x0d0 cr4 0x148 cr3 0x150 cr0 0x158 dr7 0x160 dr6 0x168 rflags 0x170 rip 0x178 rsp 0x1d8 s_cet 0x1e0
        ssp 0x1e8 isst_addr 0x1f0 rax 0x1f8 star 0x200 lstar 0x208 cstar 0x210 sfmask 0x218 kernel_gs_base 0x220
        sysenter_cs 0x228 sysenter_esp 0x230 sysenter_eip 0x238 cr2 0x240 g_pat 0x268 dbgctl 0x270 br_from 0x278
        br_to 0x280 last_excp_from 0x288 last_excp_to 0x290 dbg_extn_ctl 0x298 spec_ctrl 0x2e0
    }
    VmcbSegment { selector 0x0 attributes 0x2 limit 0x4 base 0x8 }
}

const _: () = assert!(size_of::<Vmcb>() == 4096 && size_of::<ControlArea>() == 0x400);
