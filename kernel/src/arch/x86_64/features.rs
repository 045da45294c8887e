//! What this CPU can do, and what the kernel switches on.

use core::arch::x86_64::__cpuid;

use dragonfly_hw::x86::control::{Cr0, Cr4};
use dragonfly_hw::x86::cpuid::{
    Extended1Edx, LEAF_ADDRESS_SIZES, LEAF_EXTENDED, LEAF_EXTENDED_FEATURES, LEAF_EXTENDED_MAXIMUM, LEAF_FEATURES,
    LEAF_MAXIMUM_AND_VENDOR, Leaf1Ecx, Leaf1Edx, Leaf7Ebx, Leaf7Ecx, Leaf7Edx,
};
use dragonfly_hw::x86::msr::Efer;

/// Features of the boot CPU; the others are taken to have the same.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Leaf 1, ECX.
    pub leaf_1_ecx: Leaf1Ecx,
    /// Leaf 1, EDX.
    pub leaf_1_edx: Leaf1Edx,
    /// Leaf 7, EBX.
    pub leaf_7_ebx: Leaf7Ebx,
    /// Leaf 7, ECX.
    pub leaf_7_ecx: Leaf7Ecx,
    /// Leaf 7, EDX.
    pub leaf_7_edx: Leaf7Edx,
    /// Leaf 0x80000001, EDX.
    pub extended_1_edx: Extended1Edx,
    /// Physical address bits.
    pub physical_bits: u32,
}

impl Features {
    /// Asks this CPU.
    pub fn detect() -> Self {
        let highest = __cpuid(LEAF_MAXIMUM_AND_VENDOR).eax;
        let highest_extended = __cpuid(LEAF_EXTENDED_MAXIMUM).eax;
        let leaf_1 = __cpuid(LEAF_FEATURES);
        let leaf_7 =
            (highest >= LEAF_EXTENDED_FEATURES).then(|| core::arch::x86_64::__cpuid_count(LEAF_EXTENDED_FEATURES, 0));
        let (ebx, ecx, edx) = leaf_7.map_or((0, 0, 0), |leaf| (leaf.ebx, leaf.ecx, leaf.edx));
        let sizes = (highest_extended >= LEAF_ADDRESS_SIZES).then(|| __cpuid(LEAF_ADDRESS_SIZES).eax & 0xff);
        Self {
            leaf_1_ecx: Leaf1Ecx::from_bits_retain(leaf_1.ecx),
            leaf_1_edx: Leaf1Edx::from_bits_retain(leaf_1.edx),
            leaf_7_ebx: Leaf7Ebx::from_bits_retain(ebx),
            leaf_7_ecx: Leaf7Ecx::from_bits_retain(ecx),
            leaf_7_edx: Leaf7Edx::from_bits_retain(edx),
            extended_1_edx: Extended1Edx::from_bits_retain(__cpuid(LEAF_EXTENDED).edx),
            physical_bits: sizes.unwrap_or(36),
        }
    }

    /// Whether pages can be made not executable.
    pub fn has_no_execute(&self) -> bool {
        self.extended_1_edx.contains(Extended1Edx::NX)
    }

    /// Whether there are 1 GiB pages.
    pub fn has_1g_pages(&self) -> bool {
        self.extended_1_edx.contains(Extended1Edx::PAGE1GB)
    }

    /// CR4: protections and what the kernel needs, nothing for domains to play with. Without OSFXSR an SSE instruction
    /// is invalid: domains have no floating point yet.
    pub fn cr4(&self) -> Cr4 {
        let mut cr4 = Cr4::PAE | Cr4::MCE | Cr4::DE;
        for (has, flag) in [
            (self.leaf_1_edx.contains(Leaf1Edx::PGE), Cr4::PGE),
            (self.leaf_7_ebx.contains(Leaf7Ebx::SMEP), Cr4::SMEP),
            (self.leaf_7_ebx.contains(Leaf7Ebx::SMAP), Cr4::SMAP),
            (self.leaf_7_ecx.contains(Leaf7Ecx::UMIP), Cr4::UMIP),
        ] {
            if has {
                cr4 |= flag;
            }
        }
        cr4
    }

    /// CR0: paging, and write protection for the kernel too; x87 and MMX instructions fault.
    pub fn cr0() -> Cr0 {
        Cr0::PE | Cr0::MP | Cr0::TS | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::PG
    }

    /// EFER: system calls, and no-execute where there is.
    pub fn efer(&self) -> Efer {
        let efer = Efer::SCE | Efer::LME | Efer::LMA;
        if self.has_no_execute() { efer | Efer::NXE } else { efer }
    }
}

impl core::fmt::Display for Features {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let all = [
            ("NX", self.has_no_execute()),
            ("SMEP", self.leaf_7_ebx.contains(Leaf7Ebx::SMEP)),
            ("SMAP", self.leaf_7_ebx.contains(Leaf7Ebx::SMAP)),
            ("UMIP", self.leaf_7_ecx.contains(Leaf7Ecx::UMIP)),
            ("PGE", self.leaf_1_edx.contains(Leaf1Edx::PGE)),
            ("1G-pages", self.has_1g_pages()),
            ("x2APIC", self.leaf_1_ecx.contains(Leaf1Ecx::X2APIC)),
            ("TSC-deadline", self.leaf_1_ecx.contains(Leaf1Ecx::TSC_DEADLINE)),
        ];
        write!(formatter, "{} address bits, used:", self.physical_bits)?;
        all.iter().filter(|(_, has)| *has).try_for_each(|(name, _)| write!(formatter, " {name}"))?;
        write!(formatter, ", missing:")?;
        all.iter().filter(|(_, has)| !*has).try_for_each(|(name, _)| write!(formatter, " {name}"))
    }
}
