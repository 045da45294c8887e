//! Model-specific registers that neither the hardware nor the kernel has for the guest.
//!
//! The kernel answers for those that stock kernels read on any machine of a vendor, from the table that [`table`] gives.
//! The memory types ([`Mtrrs`]), which are many and seldom used, and KVM's clocks come to the VMM. Any other is a
//! general-protection exception, as on a processor without it.

use alloc::vec::Vec;

use dragonfly_abi::guest::MsrPolicy;
use dragonfly_hw::x86::msr::{
    self, ArchCapabilities, FeatureControl, MEMORY_TYPE_UC, MEMORY_TYPE_WB, MiscEnable, MtrrCap, MtrrDefType,
    MtrrPhysMask, VmCr,
};

/// Whose registers the processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// Intel.
    Intel,
    /// AMD and Hygon.
    Amd,
}

impl Vendor {
    /// The vendor with the name that CPUID leaf 0 gives in EBX, EDX and ECX.
    pub(crate) fn from_name(name: [u32; 3]) -> Self {
        let [ebx, ..] = name;
        match &ebx.to_le_bytes() {
            b"Auth" | b"Hygo" => Self::Amd,
            _ => Self::Intel,
        }
    }
}

/// An entry of the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The register.
    pub(crate) register: u32,
    /// What it has at the start.
    pub(crate) value: u64,
    /// What reads and writes do.
    pub(crate) policy: MsrPolicy,
}

/// Reads give the value, writes do nothing.
const CONSTANT: MsrPolicy = MsrPolicy::READ.union(MsrPolicy::IGNORE_WRITES);
/// Reads give what was written.
const STORED: MsrPolicy = MsrPolicy::READ.union(MsrPolicy::WRITE);
/// Writes are commands without effect, reads fault.
const COMMAND: MsrPolicy = MsrPolicy::IGNORE_WRITES;

/// What the processor is open to and how that is mended: the bits that name no other register.
const IMMUNITIES: ArchCapabilities = ArchCapabilities::RDCL_NO
    .union(ArchCapabilities::IBRS_ALL)
    .union(ArchCapabilities::RSBA)
    .union(ArchCapabilities::SKIP_L1DFL_VMENTRY)
    .union(ArchCapabilities::SSB_NO)
    .union(ArchCapabilities::MDS_NO)
    .union(ArchCapabilities::IF_PSCHANGE_MC_NO)
    .union(ArchCapabilities::TAA_NO)
    .union(ArchCapabilities::SBDR_SSDP_NO)
    .union(ArchCapabilities::FBSDP_NO)
    .union(ArchCapabilities::PSDP_NO)
    .union(ArchCapabilities::FB_CLEAR)
    .union(ArchCapabilities::RRSBA)
    .union(ArchCapabilities::BHI_NO)
    .union(ArchCapabilities::PBRSB_NO)
    .union(ArchCapabilities::GDS_NO)
    .union(ArchCapabilities::RFDS_NO)
    .union(ArchCapabilities::RFDS_CLEAR);

/// Registers of all vendors (SDM 4, "Architectural MSRs").
const COMMON: [(u32, u64, MsrPolicy); 11] = [
    (msr::MSR_SMI_COUNT, 0, CONSTANT),
    // The kernel puts it in force.
    (msr::IA32_SPEC_CTRL, 0, STORED),
    (msr::IA32_PRED_CMD, 0, COMMAND),
    // Of these the guest sees what the processor has.
    (msr::IA32_ARCH_CAPABILITIES, IMMUNITIES.bits(), CONSTANT),
    (msr::IA32_FLUSH_CMD, 0, COMMAND),
    // No banks.
    (msr::IA32_MCG_CAP, 0, CONSTANT),
    (msr::IA32_MCG_STATUS, 0, STORED),
    // No branch records.
    (msr::IA32_DEBUGCTL, 0, CONSTANT),
    (msr::IA32_PMC0, 0, CONSTANT),
    (msr::IA32_PERFEVTSEL0, 0, CONSTANT),
    (msr::IA32_PERF_GLOBAL_CTRL, 0, CONSTANT),
];

/// Registers of Intel's processors that kernels look at without asking CPUID.
const INTEL: [(u32, u64, MsrPolicy); 15] = [
    (msr::IA32_PLATFORM_ID, 0, CONSTANT),
    (msr::MSR_EBL_CR_POWERON, 0, CONSTANT),
    // Locked, nothing enabled.
    (msr::IA32_FEATURE_CONTROL, FeatureControl::LOCK.bits(), CONSTANT),
    // Revision 1 of the microcode.
    (msr::IA32_BIOS_SIGN_ID, 1 << 32, CONSTANT),
    (msr::MSR_FSB_FREQ, 3, CONSTANT),
    (msr::MSR_PLATFORM_INFO, 0, CONSTANT),
    (msr::MSR_PKG_CST_CONFIG_CONTROL, 0, CONSTANT),
    (msr::MSR_MISC_FEATURE_ENABLES, 0, CONSTANT),
    (msr::IA32_PERF_STATUS, 0, CONSTANT),
    (msr::IA32_THERM_INTERRUPT, 0, CONSTANT),
    (msr::IA32_THERM_STATUS, 0, CONSTANT),
    (msr::IA32_MISC_ENABLE, MISC_ENABLE.bits(), STORED),
    (msr::MSR_POWER_CTL, 0, CONSTANT),
    (msr::MSR_RAPL_POWER_UNIT, 0, CONSTANT),
    // None.
    (msr::MSR_PPIN_CTL, 0, CONSTANT),
];

/// Fast strings; no branch trace, no event-based sampling.
const MISC_ENABLE: MiscEnable =
    MiscEnable::FAST_STRINGS_ENABLE.union(MiscEnable::BTS_UNAVAILABLE).union(MiscEnable::PEBS_UNAVAILABLE);

/// Registers of AMD's processors that kernels look at without asking CPUID (APM 2, appendix A; the processors' PPRs).
const AMD: [(u32, u64, MsrPolicy); 18] = [
    // Revision of the microcode.
    (msr::IA32_BIOS_SIGN_ID, 0x0100_0065, CONSTANT),
    (msr::SYSCFG, 0, CONSTANT),
    // The counter runs at P0's frequency.
    (msr::HWCR, 1 << 24, CONSTANT),
    (msr::TOP_MEM, 3 << 30, CONSTANT),
    (msr::TOP_MEM2, 0, CONSTANT),
    (msr::NB_CFG, 0, CONSTANT),
    (msr::INT_PENDING, 0, CONSTANT),
    // Off.
    (msr::MMIO_CONF_BASE, 0, CONSTANT),
    (msr::SMM_ADDR, 0, CONSTANT),
    (msr::SMM_MASK, 0, CONSTANT),
    (msr::VM_CR, VmCr::SVMDIS.union(VmCr::LOCK).bits(), CONSTANT),
    (msr::OSVW_ID_LENGTH, 0, CONSTANT),
    (msr::OSVW_STATUS, 0, CONSTANT),
    (msr::LS_CFG, 0, CONSTANT),
    (msr::DC_CFG, 0, CONSTANT),
    (msr::BU_CFG, 0, CONSTANT),
    // LFENCE waits for all before it.
    (msr::DE_CFG, 1 << 1, CONSTANT),
    (msr::BU_CFG2, 0, CONSTANT),
];

/// What the kernel is to answer for.
pub(crate) fn table(vendor: Vendor) -> impl Iterator<Item = Entry> {
    let own: &[_] = match vendor {
        Vendor::Intel => &INTEL,
        Vendor::Amd => &AMD,
    };
    COMMON.iter().chain(own).map(|(register, value, policy)| Entry {
        register: *register,
        value: *value,
        policy: *policy,
    })
}

/// A register of KVM's that comes to the VMM (Linux, `Documentation/virt/kvm/x86/msr.rst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvmMsr {
    /// Where the time of day at the start is to be written.
    WallClock,
    /// Where the time since the start is to be written; bit 0: that it is.
    SystemTime,
    /// Where stolen time is to be told; bit 0: that it is.
    StealTime,
    /// Where the guest ends interrupts; bit 0: that it does.
    EndOfInterrupt,
}

impl KvmMsr {
    /// The register with this number: those of the clock have an old and a new one.
    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        match number {
            0x11 | 0x4b56_4d00 => Some(Self::WallClock),
            0x12 | 0x4b56_4d01 => Some(Self::SystemTime),
            0x4b56_4d03 => Some(Self::StealTime),
            0x4b56_4d04 => Some(Self::EndOfInterrupt),
            _ => None,
        }
    }
}

/// Memory types of the MTRRs (SDM 3A 12.11.2): eight fields of a byte each.
const ALL_WRITE_BACK: u64 = u64::from_le_bytes([MEMORY_TYPE_WB; 8]);
const ALL_UNCACHEABLE: u64 = u64::from_le_bytes([MEMORY_TYPE_UC; 8]);

/// MTRRs on, fixed ranges too, write-back where nothing else is said.
const DEFAULT_TYPE: u64 = MtrrDefType::E.union(MtrrDefType::FE).bits() | MEMORY_TYPE_WB as u64;

/// Fixed ranges, write-combining, and so many variable ones.
const MTRR_CAPABILITIES: u64 = MtrrCap::WC.union(MtrrCap::FIX).bits() | VARIABLE_RANGES as u64;
const VARIABLE_RANGES: u32 = 8;

/// Where the devices are: the last GiB below 4 GiB is not cached.
const DEVICES_BASE: u64 = 3 << 30;
const DEVICES_SIZE: u64 = 1 << 30;

/// Registers of the fixed ranges with their types: all RAM but the one of the video memory's 128 KiB.
const FIXED_RANGES: [(u32, u64); 11] = [
    (msr::IA32_MTRR_FIX64K_00000, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX16K_80000, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX16K_A0000, ALL_UNCACHEABLE),
    (msr::IA32_MTRR_FIX4K_C0000, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX4K_C0000 + 1, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX4K_C0000 + 2, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX4K_C0000 + 3, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX4K_C0000 + 4, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX4K_C0000 + 5, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX4K_C0000 + 6, ALL_WRITE_BACK),
    (msr::IA32_MTRR_FIX4K_C0000 + 7, ALL_WRITE_BACK),
];

/// A vCPU's memory type range registers. The hardware has the types from the guest's page tables and the second stage:
/// what is written here is kept and has no effect.
#[derive(Clone, Debug)]
pub(crate) struct Mtrrs {
    values: Vec<(u32, u64)>,
}

impl Mtrrs {
    /// As firmware leaves them. `physical_bits` is how wide the guest's physical addresses are.
    pub(crate) fn new(physical_bits: u8) -> Self {
        let addresses = u64::MAX.checked_shr(u64::BITS.saturating_sub(physical_bits.into())).unwrap_or(0);
        let devices_mask = addresses & !(DEVICES_SIZE - 1) | MtrrPhysMask::V.bits();
        // Base and mask by turns.
        let variable = (0..2 * VARIABLE_RANGES).map(move |index| {
            let value = match index {
                0 => DEVICES_BASE,
                1 => devices_mask,
                _ => 0,
            };
            (msr::IA32_MTRR_PHYSBASE0 + index, value)
        });
        Self { values: variable.chain(FIXED_RANGES).chain([(msr::IA32_MTRR_DEF_TYPE, DEFAULT_TYPE)]).collect() }
    }

    /// What a read gives; `None` if it is no such register.
    pub(crate) fn read(&self, register: u32) -> Option<u64> {
        if register == msr::IA32_MTRRCAP {
            return Some(MTRR_CAPABILITIES);
        }
        self.values.iter().find(|(number, _)| *number == register).map(|(_, value)| *value)
    }

    /// Keeps what is written. Whether it is such a register.
    pub(crate) fn write(&mut self, register: u32, value: u64) -> bool {
        let place = self.values.iter_mut().find(|(number, _)| *number == register);
        place.map(|(_, kept)| *kept = value).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Entry, KvmMsr, Mtrrs, Vendor, table};

    fn value(vendor: Vendor, register: u32) -> Option<u64> {
        table(vendor).find(|entry| entry.register == register).map(|Entry { value, .. }| value)
    }

    #[test]
    fn no_register_is_named_twice() {
        for vendor in [Vendor::Intel, Vendor::Amd] {
            let mut seen = BTreeSet::new();
            assert!(table(vendor).all(|entry| seen.insert(entry.register)), "{vendor:?}");
        }
    }

    #[test]
    fn the_ranges_make_ram_cached_and_the_devices_not() {
        let mtrrs = Mtrrs::new(40);
        let values = [(0xfe, 0x508), (0x2ff, 0xc06), (0x200, 0xc000_0000), (0x201, 0xff_c000_0800), (0x20f, 0)];
        for (register, value) in values {
            assert_eq!(mtrrs.read(register), Some(value), "{register:#x}");
        }
        assert_eq!(Mtrrs::new(64).read(0x201), Some(0xffff_ffff_c000_0800));
        assert_eq!(mtrrs.read(0x210), None);
    }

    #[test]
    fn a_memory_type_is_kept_and_what_is_none_is_refused() {
        let mut mtrrs = Mtrrs::new(40);
        assert!(mtrrs.write(0x26f, 7));
        assert_eq!(mtrrs.read(0x26f), Some(7));
        // The capabilities are read-only.
        assert!(!mtrrs.write(0xfe, 7) && !mtrrs.write(0x1a0, 7));
    }

    #[test]
    fn a_guest_is_told_of_no_register_by_what_its_processor_is_immune_to() {
        // TSX_CTRL, MCU_CONTROL, MISC_PACKAGE_CTLS, ENERGY_FILTERING_CTL, DOITM, MCU_ENUMERATION, FB_CLEAR_CTRL,
        // XAPIC_DISABLE_STATUS, MCU_EXTENDED_SERVICE, OVERCLOCKING_STATUS and GDS_CTRL; and what is not defined.
        assert_eq!(value(Vendor::Intel, 0x10a), Some(0x1fff_ffff & !0x02e5_1e80));
    }

    #[test]
    fn each_vendor_has_its_own_registers() {
        assert_eq!(value(Vendor::Intel, 0x8b), Some(1 << 32));
        assert_eq!(value(Vendor::Amd, 0x8b), Some(0x0100_0065));
        assert_eq!(value(Vendor::Intel, 0xc001_0015), None);
        assert_eq!(value(Vendor::Amd, 0x1a0), None);
    }

    #[test]
    fn the_vendor_is_known_by_its_name() {
        let name = |text: &[u8; 4]| [u32::from_le_bytes(*text), 0, 0];
        assert_eq!(Vendor::from_name(name(b"Auth")), Vendor::Amd);
        assert_eq!(Vendor::from_name(name(b"Hygo")), Vendor::Amd);
        assert_eq!(Vendor::from_name(name(b"Genu")), Vendor::Intel);
    }

    #[test]
    fn the_clocks_have_an_old_and_a_new_number() {
        assert_eq!(KvmMsr::from_number(0x11), Some(KvmMsr::WallClock));
        assert_eq!(KvmMsr::from_number(0x4b56_4d01), Some(KvmMsr::SystemTime));
        assert_eq!(KvmMsr::from_number(0x4b56_4d03), Some(KvmMsr::StealTime));
        assert_eq!(KvmMsr::from_number(0x4b56_4d04), Some(KvmMsr::EndOfInterrupt));
        assert_eq!(KvmMsr::from_number(0x4b56_4d05), None);
    }
}
