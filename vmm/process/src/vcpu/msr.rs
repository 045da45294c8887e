//! Model-specific registers that neither the hardware nor the kernel has for the guest.
//!
//! The kernel answers for those that stock kernels read on any machine of a vendor, from the table that [`table`] gives.
//! The memory types ([`Mtrrs`]), which are many and seldom used, and KVM's clocks come to the VMM. Any other is a
//! general-protection exception, as on a processor without it.

use alloc::vec::Vec;

use dragonfly_abi::guest::MsrPolicy;

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

/// Limits of speculation. Only processors that name it in CPUID have it.
pub(crate) const SPEC_CTRL: u32 = 0x48;

/// Bits of ARCH_CAPABILITIES that tell what the processor is open to and how that is mended, and name no other register:
/// RDCL_NO 0, IBRS_ALL 1, RSBA 2, SKIP_L1DFL_VMENTRY 3, SSB_NO 4, MDS_NO 5, IF_PSCHANGE_MC_NO 6, TAA_NO 8, SBDR_SSDP_NO 13,
/// FBSDP_NO 14, PSDP_NO 15, FB_CLEAR 17, RRSBA 19, BHI_NO 20, PBRSB_NO 24, GDS_NO 26, RFDS_NO 27, RFDS_CLEAR 28.
const IMMUNITIES: u64 = 0x1d1a_e17f;

/// Registers of all vendors (SDM 4, "Architectural MSRs").
const COMMON: [(u32, u64, MsrPolicy); 11] = [
    (0x34, 0, CONSTANT),           // SMI_COUNT
    (SPEC_CTRL, 0, STORED),        // SPEC_CTRL: the kernel puts it in force
    (0x49, 0, COMMAND),            // PRED_CMD
    (0x10a, IMMUNITIES, CONSTANT), // ARCH_CAPABILITIES: of these the guest sees what the processor has
    (0x10b, 0, COMMAND),           // FLUSH_CMD
    (0x179, 0, CONSTANT),          // MCG_CAP: no banks
    (0x17a, 0, STORED),            // MCG_STATUS
    (0x1d9, 0, CONSTANT),          // DEBUGCTL: no branch records
    (0xc1, 0, CONSTANT),           // PMC0
    (0x186, 0, CONSTANT),          // PERFEVTSEL0
    (0x38f, 0, CONSTANT),          // PERF_GLOBAL_CTRL
];

/// Registers of Intel's processors that kernels look at without asking CPUID.
const INTEL: [(u32, u64, MsrPolicy); 15] = [
    (0x17, 0, CONSTANT),          // PLATFORM_ID
    (0x2a, 0, CONSTANT),          // EBL_CR_POWERON
    (0x3a, 1, CONSTANT),          // FEATURE_CONTROL: locked, nothing enabled
    (0x8b, 1 << 32, CONSTANT),    // BIOS_SIGN_ID: revision 1 of the microcode
    (0xcd, 3, CONSTANT),          // FSB_FREQ
    (0xce, 0, CONSTANT),          // PLATFORM_INFO
    (0xe2, 0, CONSTANT),          // PKG_CST_CONFIG_CONTROL
    (0x140, 0, CONSTANT),         // MISC_FEATURES_ENABLES
    (0x198, 0, CONSTANT),         // PERF_STATUS
    (0x19b, 0, CONSTANT),         // THERM_INTERRUPT
    (0x19c, 0, CONSTANT),         // THERM_STATUS
    (0x1a0, MISC_ENABLE, STORED), // MISC_ENABLE
    (0x1fc, 0, CONSTANT),         // POWER_CTL
    (0x606, 0, CONSTANT),         // RAPL_POWER_UNIT
    (0x4e, 0, CONSTANT),          // PPIN_CTL: none
];

/// Fast strings; no branch trace, no event-based sampling (SDM 4, IA32_MISC_ENABLE).
const MISC_ENABLE: u64 = 1 << 12 | 1 << 11 | 1;

/// Registers of AMD's processors that kernels look at without asking CPUID (APM 2, appendix A; the processors' PPRs).
const AMD: [(u32, u64, MsrPolicy); 18] = [
    (0x8b, 0x0100_0065, CONSTANT),            // PATCH_LEVEL
    (0xc001_0010, 0, CONSTANT),               // SYSCFG
    (0xc001_0015, 1 << 24, CONSTANT),         // HWCR: the counter runs at P0's frequency
    (0xc001_001a, 3 << 30, CONSTANT),         // TOP_MEM
    (0xc001_001d, 0, CONSTANT),               // TOP_MEM2
    (0xc001_001f, 0, CONSTANT),               // NB_CFG
    (0xc001_0055, 0, CONSTANT),               // INT_PENDING
    (0xc001_0058, 0, CONSTANT),               // MMIO_CFG_BASE: off
    (0xc001_0112, 0, CONSTANT),               // SMM_ADDR
    (0xc001_0113, 0, CONSTANT),               // SMM_MASK
    (0xc001_0114, 1 << 4 | 1 << 3, CONSTANT), // VM_CR: SVM is off and locked
    (0xc001_0140, 0, CONSTANT),               // OSVW_ID_LENGTH
    (0xc001_0141, 0, CONSTANT),               // OSVW_STATUS
    (0xc001_1020, 0, CONSTANT),               // LS_CFG
    (0xc001_1022, 0, CONSTANT),               // DC_CFG
    (0xc001_1023, 0, CONSTANT),               // BU_CFG
    (0xc001_1029, 1 << 1, CONSTANT),          // DE_CFG: LFENCE waits for all before it
    (0xc001_102a, 0, CONSTANT),               // BU_CFG2
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
const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
const ALL_UNCACHEABLE: u64 = 0;

/// MTRRs on, fixed ranges too, write-back where nothing else is said.
const DEFAULT_TYPE: u64 = 1 << 11 | 1 << 10 | 6;

/// Fixed ranges, write-combining, and so many variable ones.
const MTRR_CAPABILITIES: u64 = 1 << 10 | 1 << 8 | VARIABLE_RANGES as u64;
const VARIABLE_RANGES: u32 = 8;

/// First register of the variable ranges: base and mask by turns.
const VARIABLE_BASE: u32 = 0x200;

/// Where the devices are: the last GiB below 4 GiB is not cached.
const DEVICES_BASE: u64 = 3 << 30;
const DEVICES_SIZE: u64 = 1 << 30;
const RANGE_VALID: u64 = 1 << 11;

/// Registers of the fixed ranges with their types: all RAM but the one of the video memory's 128 KiB.
const FIXED_RANGES: [(u32, u64); 11] = [
    (0x250, ALL_WRITE_BACK),
    (0x258, ALL_WRITE_BACK),
    (0x259, ALL_UNCACHEABLE),
    (0x268, ALL_WRITE_BACK),
    (0x269, ALL_WRITE_BACK),
    (0x26a, ALL_WRITE_BACK),
    (0x26b, ALL_WRITE_BACK),
    (0x26c, ALL_WRITE_BACK),
    (0x26d, ALL_WRITE_BACK),
    (0x26e, ALL_WRITE_BACK),
    (0x26f, ALL_WRITE_BACK),
];

/// Register that tells what the others are.
const CAPABILITIES: u32 = 0xfe;
/// Register of the default type.
const DEFAULT: u32 = 0x2ff;

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
        let devices_mask = addresses & !(DEVICES_SIZE - 1) | RANGE_VALID;
        let variable = (0..2 * VARIABLE_RANGES).map(move |index| {
            let value = match index {
                0 => DEVICES_BASE,
                1 => devices_mask,
                _ => 0,
            };
            (VARIABLE_BASE + index, value)
        });
        Self { values: variable.chain(FIXED_RANGES).chain([(DEFAULT, DEFAULT_TYPE)]).collect() }
    }

    /// What a read gives; `None` if it is no such register.
    pub(crate) fn read(&self, register: u32) -> Option<u64> {
        if register == CAPABILITIES {
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
