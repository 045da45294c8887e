//! The processor that the guest sees: the host's, as far as kernel and machine have it for guests.

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use dragonfly_abi::Status;
use dragonfly_hw::x86::cpuid::{
    LEAF_ADDRESS_SIZES, LEAF_EXTENDED_FEATURES, LEAF_FEATURES, LEAF_MAXIMUM_AND_VENDOR, Leaf7Edx,
};
use dragonfly_hw::x86::msr::IA32_SPEC_CTRL;
use dragonfly_machine::cpuid::{self, CpuidConfig, CpuidTable, KvmFeatures, Registers};
use dragonfly_rt::start_info;
use dragonfly_rt::sys::{CpuidEntry, Vcpu};

use crate::vcpu::msr::{self, Vendor};

/// Any of these says that there is IA32_SPEC_CTRL.
const SPECULATION_CONTROLS: Leaf7Edx = Leaf7Edx::IBRS_IBPB.union(Leaf7Edx::STIBP).union(Leaf7Edx::SSBD);

/// State components that the kernel keeps for guests: x87, SSE, AVX, AVX-512, PKRU.
const COMPONENTS: u64 = 0b10_1110_0111;

/// The processor of a guest's vCPUs.
pub(crate) struct Processor {
    vendor: Vendor,
    table: CpuidTable,
}

impl Processor {
    /// The host's processor, as far as guests have it, with so many vCPUs and the frequency of their time-stamp counters
    /// in kHz, if that is not the host's.
    pub(crate) fn of_host(vcpus: u32, tsc_khz: Option<u32>) -> Self {
        let host_khz = || start_info().and_then(|info| u32::try_from(info.tsc_hz / 1000).ok());
        Self::new(vcpus, tsc_khz.or_else(host_khz).unwrap_or(0), |leaf, sub_leaf| {
            let CpuidResult { eax, ebx, ecx, edx } = __cpuid_count(leaf, sub_leaf);
            [eax, ebx, ecx, edx]
        })
    }

    fn new(vcpus: u32, tsc_khz: u32, mut host: impl FnMut(u32, u32) -> Registers) -> Self {
        let [_, ebx, ecx, edx] = host(LEAF_MAXIMUM_AND_VENDOR, 0);
        let config = CpuidConfig {
            vcpus,
            xcr0: COMPONENTS,
            // The kernel has both for every guest, whatever the host's processor has.
            has_tsc_deadline: true,
            has_invariant_tsc: true,
            tsc_khz,
            kvm_features: KvmFeatures::CLOCKSOURCE
                | KvmFeatures::CLOCKSOURCE2
                | KvmFeatures::CLOCKSOURCE_STABLE
                | KvmFeatures::STEAL_TIME
                | KvmFeatures::PV_EOI
                | KvmFeatures::PV_TLB_FLUSH
                | KvmFeatures::PV_SEND_IPI
                | KvmFeatures::NOP_IO_DELAY,
        };
        Self { vendor: Vendor::from_name([ebx, edx, ecx]), table: CpuidTable::new(&config, host) }
    }

    /// How wide the guest's physical addresses are.
    pub(crate) fn physical_bits(&self) -> u8 {
        let [eax, ..] = self.leaf(LEAF_ADDRESS_SIZES);
        eax as u8
    }

    /// Family, model and stepping, which RDX tells after a reset (SDM 3A 10.1.2).
    pub(crate) fn signature(&self) -> u32 {
        let [eax, ..] = self.leaf(LEAF_FEATURES);
        eax
    }

    /// Fills the tables of a vCPU.
    pub(crate) fn set_up(&self, vcpu: &Vcpu, number: u32) -> Result<(), Status> {
        for cpuid::CpuidEntry { leaf, subleaf, registers: [eax, ebx, ecx, edx] } in self.table.for_vcpu(number) {
            vcpu.set_cpuid(&CpuidEntry { leaf, sub_leaf: subleaf, eax, ebx, ecx, edx })?;
        }
        let [_, _, _, edx] = self.leaf(LEAF_EXTENDED_FEATURES);
        let has_control = Leaf7Edx::from_bits_retain(edx).intersects(SPECULATION_CONTROLS);
        let mut registers = msr::table(self.vendor).filter(|entry| has_control || entry.register != IA32_SPEC_CTRL);
        registers.try_for_each(|entry| vcpu.set_msr(entry.register, entry.value, entry.policy))
    }

    /// A leaf as the first vCPU has it; zeros if there is none.
    fn leaf(&self, leaf: u32) -> Registers {
        self.table.for_vcpu(0).find(|entry| entry.leaf == leaf).map_or([0; 4], |entry| entry.registers)
    }
}

#[cfg(test)]
mod tests {
    use super::Processor;

    /// A processor of AMD's that has few leaves.
    fn host(leaf: u32, _: u32) -> [u32; 4] {
        let name = |part: &[u8; 4]| u32::from_le_bytes(*part);
        match leaf {
            0 => [1, name(b"Auth"), name(b"cAMD"), name(b"enti")],
            1 => [0x0066_0f51, 0, 0, u32::MAX],
            0x8000_0000 => [0x8000_0008, 0, 0, 0],
            0x8000_0008 => [0x3028, 0, 0, 0],
            _ => [0; 4],
        }
    }

    #[test]
    fn the_guest_has_the_hosts_signature_and_address_width() {
        let processor = Processor::new(2, 2_000_000, host);
        assert_eq!((processor.signature(), processor.physical_bits()), (0x0066_0f51, 40));
    }

    #[test]
    fn the_guest_is_told_what_the_vmm_serves_of_kvms_interface() {
        let processor = Processor::new(1, 0, host);
        let [features, ..] = processor.leaf(0x4000_0001);
        assert_eq!(features, 1 << 24 | 1 << 11 | 1 << 9 | 1 << 6 | 1 << 5 | 1 << 3 | 1 << 1 | 1);
    }
}
