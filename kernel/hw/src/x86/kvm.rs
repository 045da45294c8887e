//! KVM's paravirtual interface, which guests of any hypervisor may find (Linux, Documentation/virt/kvm/x86: cpuid.rst,
//! msr.rst, hypercalls.rst).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// EBX, ECX and EDX of CPUID leaf `cpuid::LEAF_HYPERVISOR`.
pub const SIGNATURE: [u8; 12] = *b"KVMKVMKVM\0\0\0";

constants! { u32 {
    LEAF_FEATURES       0x4000_0001 "EAX: [`Features`]. EDX: hints, bit 0: vCPUs are never descheduled."

    WALL_CLOCK_NEW      0x4b56_4d00 "Address of a [`WallClock`], filled in at once."
    SYSTEM_TIME_NEW     0x4b56_4d01 "Address of this vCPU's [`VcpuTime`], and in bit 0 whether it is on."
    ASYNC_PF_EN         0x4b56_4d02 "Address of the asynchronous page faults' state, and switches."
    STEAL_TIME          0x4b56_4d03 "Address of this vCPU's [`StealTime`], and in bit 0 whether it is on."
    PV_EOI_EN           0x4b56_4d04 "Address of this vCPU's EOI word, and in bit 0 whether it is on."
    POLL_CONTROL        0x4b56_4d05 "Bit 0: the hypervisor may poll before it halts the vCPU."
    ASYNC_PF_INT        0x4b56_4d06 "Vector of \"page ready\"."
    ASYNC_PF_ACK        0x4b56_4d07 "Bit 0: \"page ready\" was taken."
    MIGRATION_CONTROL   0x4b56_4d08 "Bit 0: the guest may be migrated."
}}

/// The first and the last of KVM's MSRs.
pub const MSRS: core::ops::RangeInclusive<u32> = 0x4b56_4d00..=0x4b56_4dff;

/// Bit 0 of a register with an address: what it names is on.
pub const ENABLED: u64 = 1 << 0;

flags! {
    /// Leaf [`LEAF_FEATURES`], EAX.
    Features: u32 {
        CLOCKSOURCE          0  "The clock, through MSRs 0x11 and 0x12."
        NOP_IO_DELAY         1  "I/O needs no delays."
        CLOCKSOURCE2         3  "The clock, through WALL_CLOCK_NEW and SYSTEM_TIME_NEW."
        ASYNC_PF             4  "Asynchronous page faults, through ASYNC_PF_EN."
        STEAL_TIME           5  "STEAL_TIME."
        PV_EOI               6  "PV_EOI_EN."
        PV_UNHALT            7  "Hypercall KICK_CPU."
        PV_TLB_FLUSH         9  "TLB flushes of vCPUs that do not run wait, through STEAL_TIME."
        ASYNC_PF_VMEXIT     10  "Asynchronous page faults of nested guests."
        PV_SEND_IPI         11  "Hypercall SEND_IPI."
        POLL_CONTROL        12  "POLL_CONTROL."
        PV_SCHED_YIELD      13  "Hypercall SCHED_YIELD."
        ASYNC_PF_INT        14  "ASYNC_PF_INT and ASYNC_PF_ACK."
        MSI_EXT_DEST_ID     15  "Destinations of 15 bits: `msi::Address::extended_destination`."
        HC_MAP_GPA_RANGE    16  "Hypercall MAP_GPA_RANGE."
        MIGRATION_CONTROL   17  "MIGRATION_CONTROL."
        CLOCKSOURCE_STABLE  24  "The clock is the same on all vCPUs, where [`ClockFlags::TSC_STABLE`] says so."
    }
}

// Hypercalls: number in RAX, arguments in RBX, RCX, RDX, RSI, result in RAX; by VMCALL or VMMCALL.
constants! { u64 {
    HC_VAPIC_POLL_IRQ   1   "Leaves the guest, so that it may get interrupts."
    HC_KICK_CPU         5   "Wakes the vCPU with the APIC ID in RCX from HLT."
    HC_CLOCK_PAIRING    9   "Wall clock and TSC at one moment."
    HC_SEND_IPI         10  "Interrupt to the vCPUs of a bit map (RBX, RCX) from the APIC ID in RDX on; RSI: command."
    HC_SCHED_YIELD      11  "Yields, best to the vCPU with the APIC ID in RBX."
    HC_MAP_GPA_RANGE    12  "Tells which pages are encrypted."
}}

/// Result of a hypercall that does not exist: -ENOSYS of KVM.
pub const ENOSYS: i64 = -1000;
/// Result of a hypercall from outside ring 0: -EPERM.
pub const EPERM: i64 = -1;

stored_flags! {
    /// Flags of [`VcpuTime`].
    ClockFlags: u8 {
        TSC_STABLE      0   "The clock is the same on all vCPUs and never goes back."
        GUEST_STOPPED   1   "The hypervisor stopped the guest: time has passed that no watchdog should count."
    }
}

/// A vCPU's clock, on a boundary of 4 bytes: nanoseconds since the guest's start are `system_time` + ((TSC -
/// `tsc_timestamp`) « `tsc_shift`) × `tsc_to_system_mul` / 2³².
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VcpuTime {
    /// Odd while the hypervisor changes the rest; each change makes it another number.
    pub version: u32,
    /// Unused.
    pub pad_0: u32,
    /// Guest's TSC at `system_time`.
    pub tsc_timestamp: u64,
    /// Nanoseconds.
    pub system_time: u64,
    /// Nanoseconds per shifted tick, 0.32 fixed point.
    pub tsc_to_system_mul: u32,
    /// Ticks are shifted left by this, or right if it is negative.
    pub tsc_shift: i8,
    /// Flags.
    pub flags: ClockFlags,
    /// Unused.
    pub pad: [u8; 2],
}

/// Time of day at the guest's start, since 1970. The whole is written at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WallClock {
    /// As in [`VcpuTime`].
    pub version: u32,
    /// Seconds.
    pub sec: u32,
    /// Nanoseconds.
    pub nsec: u32,
}

/// Time that a vCPU wanted to run but did not, on a boundary of 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StealTime {
    /// Nanoseconds.
    pub steal: u64,
    /// As in [`VcpuTime`].
    pub version: u32,
    /// None so far.
    pub flags: u32,
    /// [`PREEMPTED`](Self::PREEMPTED) and [`FLUSH_TLB`](Self::FLUSH_TLB).
    pub preempted: u8,
    /// Unused.
    pub pad_0: [u8; 3],
    /// Unused.
    pub pad: [u32; 11],
}

impl StealTime {
    /// In [`preempted`](Self::preempted): the vCPU does not run.
    pub const PREEMPTED: u8 = 1 << 0;
    /// In [`preempted`](Self::preempted), set by the guest: flush the vCPU's TLB before it runs.
    pub const FLUSH_TLB: u8 = 1 << 1;
}

const _: () = {
    assert!(size_of::<VcpuTime>() == 32 && size_of::<WallClock>() == 12 && size_of::<StealTime>() == 64);
    assert!(offset_of!(VcpuTime, tsc_to_system_mul) == 24 && offset_of!(VcpuTime, flags) == 29);
    assert!(offset_of!(StealTime, preempted) == 16);
};
