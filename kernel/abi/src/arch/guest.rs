//! A guest's registers on x86-64: the page that kernel and VMM share for each vCPU.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A segment register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u32,
    /// Access rights as VT-x has them (SDM 3C, "Guest Register State"): bits 0–3 type, 4 S, 5–6 DPL, 7 P, 12 AVL, 13 L,
    /// 14 D/B, 15 G, 16 unusable.
    pub attributes: u32,
    /// Limit in bytes.
    pub limit: u32,
    /// Zero.
    pub reserved: u32,
    /// Base.
    pub base: u64,
}

/// A descriptor-table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct DescriptorTable {
    /// Base.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u64,
}

/// Number of a general register in [`VcpuState::general`]; the order of instruction encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "the registers have their own names")]
pub enum General {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

/// The state page of a vCPU.
///
/// General registers are the guest's own while it runs; RIP and RFLAGS are valid after each exit; the other groups are
/// valid after [`VcpuSync`](crate::Call::VcpuSync) and where the exit's reason says so. The VMM writes a group and names
/// it in [`RunFlags`](crate::guest::RunFlags); whatever it writes, the kernel brings into a form that the hardware takes
/// or reports the entry as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers have their own names")]
pub struct VcpuState {
    pub general: [u64; 16],
    pub rip: u64,
    pub rflags: u64,

    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,

    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub xcr0: u64,

    pub dr: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,

    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub tsc_aux: u64,
    /// Added to the CPU's time-stamp counter, which is multiplied by the [`TscRatio`] first.
    pub tsc_offset: u64,
    /// TSC value at which the local APIC's timer comes, 0 if it is not armed that way. Read-only.
    pub tsc_deadline: u64,

    /// An exception or interrupt to inject, in the form of VT-x's VM-entry interruption information (SDM 3C, "VM-Entry
    /// Controls for Event Injection"): bits 0–7 vector, 8–10 type, 11 has an error code, 31 valid. Zero for none.
    pub inject: u64,
    /// Its error code.
    pub inject_error: u64,
    /// Bit 0: blocked by STI, bit 1: by MOV SS, bit 3: NMIs are blocked (SDM 3C, "Guest Non-Register State").
    pub interruptibility: u64,
    pub reserved: u64,

    /// How often the guest was left, by hardware reason; see [`ExitCounter`].
    pub exits: [u64; EXIT_COUNTERS],
}

/// How many counters a vCPU has.
pub const EXIT_COUNTERS: usize = 32;

/// What [`VcpuState::exits`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ExitCounter {
    /// All exits.
    Total = 0,
    /// Exits that went to the VMM.
    ToVmm = 1,
    /// Interrupts of the host.
    Interrupt = 2,
    /// CPUID.
    Cpuid = 3,
    /// RDMSR.
    MsrRead = 4,
    /// WRMSR.
    MsrWrite = 5,
    /// Port accesses.
    Port = 6,
    /// Second-stage faults that the kernel resolved.
    PageFault = 7,
    /// Second-stage faults that went to the VMM or were doorbells.
    Mmio = 8,
    /// HLT.
    Halt = 9,
    /// Hypercalls.
    Hypercall = 10,
    /// Interrupt windows.
    Window = 11,
    /// Doorbells.
    Doorbell = 12,
    /// Pause loops.
    Pause = 13,
    /// Any other.
    Other = 14,
    /// Interrupts that the kernel has delivered to the guest. Those that the processor delivers itself are not counted.
    Injected = 15,
}

/// Offset of the general registers, of RIP and of RFLAGS, for the kernel's entry code.
pub const VCPU_GENERAL_OFFSET: usize = 0;

const _: () = {
    assert!(size_of::<Segment>() == 24);
    assert!(core::mem::offset_of!(VcpuState, general) == VCPU_GENERAL_OFFSET);
    assert!(core::mem::offset_of!(VcpuState, rip) == 128);
    assert!(core::mem::offset_of!(VcpuState, es) == 144);
    assert!(core::mem::offset_of!(VcpuState, cr0) == 368);
    assert!(core::mem::offset_of!(VcpuState, exits) == 600);
    assert!(size_of::<VcpuState>() <= crate::PAGE_SIZE as usize);
};

/// Ticks of a guest's time-stamp counter for each of the host's: a fixed-point number with 48 bits after the point, as
/// VT-x has it (SDM 3C, "TSC multiplier").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TscRatio(u64);

impl TscRatio {
    const FRACTION: u32 = 48;
    /// The host's own rate.
    pub const ONE: Self = Self(1 << Self::FRACTION);

    /// The ratio of two frequencies, rounded down; `None` if it is 0 or 65,536 and more.
    #[must_use]
    pub const fn new(guest_hz: u64, host_hz: u64) -> Option<Self> {
        match ((guest_hz as u128) << Self::FRACTION).checked_div(host_hz as u128) {
            Some(ratio) if ratio <= u64::MAX as u128 => Self::from_bits(ratio as u64),
            _ => None,
        }
    }

    /// The ratio with these bits; `None` for 0.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// Its bits.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The guest's counter, without its offset, when the host's shows `ticks`; modulo 2^64, as the processor has it.
    #[inline]
    #[must_use]
    pub const fn times(self, ticks: u64) -> u64 {
        (self.product(ticks) >> Self::FRACTION) as u64
    }

    /// Ticks of the host, from `now` on, after which the guest's counter has gone on by `ticks`: no less, and no more than
    /// it takes.
    #[inline]
    #[must_use]
    pub const fn host_ticks(self, now: u64, ticks: u64) -> u64 {
        if self.0 == Self::ONE.0 || ticks == 0 {
            return ticks;
        }
        // What the counter at `now` has behind its point counts, too. 64 bits before the point and 48 behind it fit.
        let behind_point = self.product(now) & (Self::ONE.0 as u128 - 1);
        let host = (((ticks as u128) << Self::FRACTION) - behind_point).div_ceil(self.0 as u128);
        if host > u64::MAX as u128 { u64::MAX } else { host as u64 }
    }

    const fn product(self, ticks: u64) -> u128 {
        ticks as u128 * self.0 as u128
    }
}
