//! How vCPUs, cores and packages relate: each vCPU is a core with one thread, all in one package, the APIC ID is the number.
//! Kernels compare what the several leaves say and complain of firmware if they differ.

use super::{Registers, Vendor};

// Levels of leaf 0xb (SDM 2A, table 3-8, "V2 and legacy extended topology").
const LEVEL_INVALID: u32 = 0;
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Type of a cache, in bits 4:0 of EAX; 0: there are no more.
const CACHE_TYPE: u32 = 0x1f;
const CACHE_LEVEL_SHIFT: u32 = 5;
/// From this level on a cache belongs to the package, below to a core.
const PACKAGE_CACHE_LEVEL: u32 = 3;

/// The vCPUs of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Topology {
    vcpus: u32,
}

impl Topology {
    pub fn new(vcpus: u32) -> Self {
        Self { vcpus: vcpus.max(1) }
    }

    pub const fn vcpus(self) -> u32 {
        self.vcpus
    }

    /// Bits of the APIC ID that number a core in its package.
    const fn core_bits(self) -> u32 {
        self.vcpus.next_power_of_two().trailing_zeros()
    }

    /// APIC IDs of a package, used or not.
    pub const fn apic_ids(self) -> u32 {
        1 << self.core_bits()
    }

    /// Sub-leaves of leaf 0xb, without the APIC ID in EDX.
    pub const fn levels(self) -> [Registers; 3] {
        [
            [0, 1, LEVEL_THREAD << 8, 0],
            [self.core_bits(), self.vcpus, 1 | LEVEL_CORE << 8, 0],
            [0, 0, 2 | LEVEL_INVALID << 8, 0],
        ]
    }

    /// A sub-leaf of leaf 4 (Intel) or 0x8000_001d (AMD) with who shares that cache: all below level 3 belong to one core.
    pub const fn cache(self, [eax, ebx, ecx, edx]: Registers, vendor: Vendor) -> Registers {
        let level = eax >> CACHE_LEVEL_SHIFT & 0b111;
        let sharing = if level >= PACKAGE_CACHE_LEVEL { self.apic_ids() } else { 1 };
        let cores = match vendor {
            Vendor::Intel => self.apic_ids() - 1,
            Vendor::Amd => 0,
        };
        [eax & 0x3fff | (sharing - 1) << 14 | cores << 26, ebx, ecx, edx]
    }

    /// Leaf 0x8000_0008 ECX, on AMD: cores less 1, and bits of the APIC ID that number them.
    pub const fn extended_8_ecx(self) -> u32 {
        self.core_bits() << 12 | (self.vcpus - 1)
    }
}

/// Whether a sub-leaf describes a cache.
pub const fn is_cache([eax, ..]: Registers) -> bool {
    eax & CACHE_TYPE != 0
}
