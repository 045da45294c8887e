//! The processor that the guest sees: what CPUID and model-specific registers tell it.

use core::arch::x86_64::{__cpuid_count, CpuidResult};

use dragonfly_abi::Status;
use dragonfly_rt::sys::Vcpu;

use crate::vcpu::msr::{self, Vendor};

/// Leaf of the vendor's name.
const VENDOR: u32 = 0;
/// Leaf of family and model.
const SIGNATURE: u32 = 1;
/// Leaf of the widths of addresses.
const ADDRESSES: u32 = 0x8000_0008;

/// The processor of one guest's vCPUs.
pub(crate) struct Processor {
    vendor: Vendor,
    signature: u32,
    physical_bits: u8,
}

impl Processor {
    /// The host's processor, as far as guests may use it, with so many vCPUs.
    pub(crate) fn of_host(_vcpus: u32) -> Self {
        let CpuidResult { ebx, ecx, edx, .. } = __cpuid_count(VENDOR, 0);
        Self {
            vendor: Vendor::from_name([ebx, edx, ecx]),
            signature: __cpuid_count(SIGNATURE, 0).eax,
            physical_bits: __cpuid_count(ADDRESSES, 0).eax as u8,
        }
    }

    /// How wide the guest's physical addresses are.
    pub(crate) const fn physical_bits(&self) -> u8 {
        self.physical_bits
    }

    /// Family, model and stepping, which RDX tells after a reset (SDM 3A 10.1.2).
    pub(crate) const fn signature(&self) -> u32 {
        self.signature
    }

    /// Fills the tables of a vCPU.
    pub(crate) fn set_up(&self, vcpu: &Vcpu, _number: u32) -> Result<(), Status> {
        msr::table(self.vendor).try_for_each(|entry| vcpu.set_msr(entry.register, entry.value, entry.policy))
    }
}
