//! Leaves by which stock kernels find that they run under KVM (Linux, `Documentation/virt/kvm/x86/cpuid.rst`).

use bitflags::bitflags;

use super::Registers;

/// Features and hints.
pub const LEAF_KVM_FEATURES: u32 = 0x4000_0001;

bitflags! {
    /// What the owner of the machine serves of KVM's paravirtual interface: leaf 0x4000_0001 EAX.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct KvmFeatures: u32 {
        /// Clock by MSRs 0x11 and 0x12.
        const CLOCKSOURCE = 1 << 0;
        /// Delays between port accesses are not needed: kernels leave out many writes to port 0x80.
        const NOP_IO_DELAY = 1 << 1;
        /// Clock by MSRs 0x4b564d00 and 0x4b564d01.
        const CLOCKSOURCE2 = 1 << 3;
        /// Page faults of the host told to the guest.
        const ASYNC_PF = 1 << 4;
        /// Time that a vCPU did not run, by MSR 0x4b564d03.
        const STEAL_TIME = 1 << 5;
        /// End of interrupt in memory, by MSR 0x4b564d04.
        const PV_EOI = 1 << 6;
        /// Hypercall that wakes a vCPU.
        const PV_UNHALT = 1 << 7;
        /// TLB flush of vCPUs that do not run left to the host; needs STEAL_TIME.
        const PV_TLB_FLUSH = 1 << 9;
        /// Hypercall that sends IPIs to several vCPUs.
        const PV_SEND_IPI = 1 << 11;
        /// Polling before HLT left to the guest, by MSR 0x4b564d05.
        const POLL_CONTROL = 1 << 12;
        /// Hypercall that yields to another vCPU.
        const PV_SCHED_YIELD = 1 << 13;
        /// Messages to APIC IDs of 15 bits.
        const MSI_EXT_DEST_ID = 1 << 15;
        /// The clocks never go backwards from one vCPU to another.
        const CLOCKSOURCE_STABLE = 1 << 24;
    }
}

/// Leaf 0x4000_0000: KVM, with leaves up to that of the frequencies.
pub fn signature() -> Registers {
    let name = |part: &[u8; 4]| u32::from_le_bytes(*part);
    [dragonfly_hw::x86::cpuid::LEAF_HYPERVISOR_TIMING, name(b"KVMK"), name(b"VMKV"), name(b"M\0\0\0")]
}
