//! What CPUID tells a guest: the host's processor, as far as the machine has it.
//!
//! [`CpuidTable::new`] asks the host's CPUID and answers leaf by leaf: features that the machine does not have are left out
//! (`features`), vCPUs are cores of one package (`topology`), state components are those that XCR0 may have
//! (`xsave`), and KVM's leaves tell stock kernels of the paravirtual clock and its like (`paravirtual`). Leaves that are
//! not in the table are zero.
//!
//! Left to who executes CPUID, as they follow the guest's registers: leaf 1 ECX.OSXSAVE, leaf 7 ECX.OSPKE, and the sizes in
//! EBX of leaf 0xd.
//!
//! Sources: SDM 2A, "CPUID"; APM 3, appendix E.

mod features;
mod paravirtual;
#[cfg(test)]
mod tests;
mod topology;
mod xsave;

use alloc::vec::Vec;

use dragonfly_hw::x86::cpuid::{
    LEAF_ADDRESS_SIZES, LEAF_CACHE, LEAF_EXTENDED, LEAF_EXTENDED_FEATURES, LEAF_EXTENDED_FEATURES_2,
    LEAF_EXTENDED_MAXIMUM, LEAF_EXTENDED_POWER, LEAF_FEATURES, LEAF_FREQUENCY, LEAF_HYPERVISOR, LEAF_HYPERVISOR_TIMING,
    LEAF_MAXIMUM_AND_VENDOR, LEAF_POWER, LEAF_TOPOLOGY, LEAF_TSC, LEAF_XSAVE, Leaf6Eax,
};

pub use paravirtual::KvmFeatures;
use topology::Topology;
use xsave::Components;

/// The timer of the vCPUs' local APICs counts at 1 GHz.
pub const APIC_TIMER_KHZ: u32 = 1_000_000;

const LEAF_CACHE_DESCRIPTORS: u32 = 2;
const LEAF_BRAND: core::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
const LEAF_AMD_L1: u32 = 0x8000_0005;
const LEAF_L2: u32 = 0x8000_0006;
const LEAF_AMD_1G_TLB: u32 = 0x8000_0019;
const LEAF_AMD_HINTS: u32 = 0x8000_001a;
const LEAF_AMD_CACHE: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

/// Highest basic leaf that the machine has, on Intel's processors and on others.
const MAXIMUM_INTEL: u32 = LEAF_FREQUENCY;
const MAXIMUM: u32 = LEAF_XSAVE;
/// Bits of guest-physical addresses that four levels of second-stage tables translate.
const MAX_PHYSICAL_BITS: u32 = 48;
/// Bits of linear addresses: five-level paging is left out, as no guest has so much memory.
const LINEAR_BITS: u32 = 48;
/// Sub-leaves of the cache leaves that are looked at; processors have about four.
const MAX_CACHES: u32 = 8;

/// Values of EAX, EBX, ECX and EDX.
pub type Registers = [u32; 4];

/// What the table depends on beside the host's processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidConfig {
    /// vCPUs.
    pub vcpus: u32,
    /// Bits of XCR0 that the kernel lets guests set; those that the host's processor does not have do not count.
    pub xcr0: u64,
    /// The local APICs' timers have TSC-deadline mode.
    pub has_tsc_deadline: bool,
    /// The time-stamp counter runs at one rate although the host's CPUID does not say so.
    pub has_invariant_tsc: bool,
    /// Frequency of the time-stamp counter in kHz, 0 if it is not to be told.
    pub tsc_khz: u32,
    /// Paravirtual features that the owner serves.
    pub kvm_features: KvmFeatures,
}

/// One answer of CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuidEntry {
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question; `None` if it does not matter.
    pub subleaf: Option<u32>,
    /// The answer.
    pub registers: Registers,
}

/// A register of an entry that holds the vCPU's number, which is its APIC ID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum VcpuField {
    /// Leaf 1: bits 31:24 of EBX.
    Leaf1,
    /// Leaf 0xb: EDX.
    Topology,
    /// Leaf 0x8000_001e: EAX, and the core's number in bits 7:0 of EBX.
    AmdTopology,
}

/// The answers for all vCPUs of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuidTable {
    entries: Vec<(CpuidEntry, Option<VcpuField>)>,
}

impl CpuidTable {
    /// The table for a machine on this host, whose CPUID `host` executes for a leaf and a sub-leaf.
    pub fn new(config: &CpuidConfig, host: impl FnMut(u32, u32) -> Registers) -> Self {
        let mut builder = Builder::new(config, host);
        builder.basic();
        builder.hypervisor();
        builder.extended();
        Self { entries: builder.entries }
    }

    /// The answers for the vCPU `number`.
    pub fn for_vcpu(&self, number: u32) -> impl Iterator<Item = CpuidEntry> {
        self.entries.iter().map(move |(entry, field)| {
            let [eax, ebx, ecx, edx] = entry.registers;
            let registers = match field {
                None => entry.registers,
                Some(VcpuField::Leaf1) => [eax, ebx & 0x00ff_ffff | number << 24, ecx, edx],
                Some(VcpuField::Topology) => [eax, ebx, ecx, number],
                Some(VcpuField::AmdTopology) => [number, ebx & !0xff | number & 0xff, ecx, edx],
            };
            CpuidEntry { registers, ..*entry }
        })
    }
}

/// Collects entries.
struct Builder<'c, H> {
    config: &'c CpuidConfig,
    host: H,
    /// Highest leaves of the host.
    basic_maximum: u32,
    extended_maximum: u32,
    vendor: Vendor,
    topology: Topology,
    components: Components,
    entries: Vec<(CpuidEntry, Option<VcpuField>)>,
}

/// Whose leaves the processor has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Vendor {
    Intel,
    /// AMD and Hygon.
    Amd,
}

impl<'c, H: FnMut(u32, u32) -> Registers> Builder<'c, H> {
    fn new(config: &'c CpuidConfig, mut host: H) -> Self {
        let [basic_maximum, ebx, ..] = host(LEAF_MAXIMUM_AND_VENDOR, 0);
        let [extended_maximum, ..] = host(LEAF_EXTENDED_MAXIMUM, 0);
        let vendor = match &ebx.to_le_bytes() {
            b"Auth" | b"Hygo" => Vendor::Amd,
            _ => Vendor::Intel,
        };
        let components = Components::of_host(basic_maximum, config.xcr0, &mut host);
        let topology = Topology::new(config.vcpus);
        Self { config, host, basic_maximum, extended_maximum, vendor, topology, components, entries: Vec::new() }
    }

    /// The host's answer; zeros for leaves that it does not have.
    fn host(&mut self, leaf: u32, subleaf: u32) -> Registers {
        let maximum = if leaf < LEAF_EXTENDED_MAXIMUM { self.basic_maximum } else { self.extended_maximum };
        if leaf <= maximum { (self.host)(leaf, subleaf) } else { [0; 4] }
    }

    fn add(&mut self, leaf: u32, registers: Registers) {
        self.entries.push((CpuidEntry { leaf, subleaf: None, registers }, None));
    }

    fn add_subleaf(&mut self, leaf: u32, subleaf: u32, registers: Registers) {
        self.entries.push((CpuidEntry { leaf, subleaf: Some(subleaf), registers }, None));
    }

    fn copy(&mut self, leaf: u32) {
        let registers = self.host(leaf, 0);
        self.add(leaf, registers);
    }

    fn basic(&mut self) {
        let maximum = match self.vendor {
            Vendor::Intel => self.basic_maximum.clamp(MAXIMUM, MAXIMUM_INTEL),
            Vendor::Amd => MAXIMUM,
        };
        let [_, ebx, ecx, edx] = self.host(LEAF_MAXIMUM_AND_VENDOR, 0);
        self.add(LEAF_MAXIMUM_AND_VENDOR, [maximum, ebx, ecx, edx]);

        let [eax, ebx, ecx, edx] = self.host(LEAF_FEATURES, 0);
        let registers = [
            eax,
            features::leaf_1_ebx(ebx, self.topology),
            features::leaf_1_ecx(ecx, self.config, &self.components),
            features::leaf_1_edx(edx, self.topology),
        ];
        let entry = CpuidEntry { leaf: LEAF_FEATURES, subleaf: None, registers };
        self.entries.push((entry, Some(VcpuField::Leaf1)));

        if self.vendor == Vendor::Intel {
            self.copy(LEAF_CACHE_DESCRIPTORS);
            self.caches(LEAF_CACHE);
        }
        // The timer of the local APIC runs in every state of power: there is one state.
        self.add(LEAF_POWER, [Leaf6Eax::ARAT.bits(), 0, 0, 0]);
        self.extended_features();
        for (subleaf, registers) in (0..).zip(self.topology.levels()) {
            let entry = CpuidEntry { leaf: LEAF_TOPOLOGY, subleaf: Some(subleaf), registers };
            self.entries.push((entry, Some(VcpuField::Topology)));
        }
        for (subleaf, registers) in self.components.leaves() {
            self.add_subleaf(LEAF_XSAVE, subleaf, registers);
        }
        if maximum >= LEAF_TSC && self.config.tsc_khz != 0 {
            // The crystal is what the local APIC's timer counts; times EBX / EAX it is the counter's frequency.
            let crystal_hz = APIC_TIMER_KHZ.saturating_mul(1000);
            self.add(LEAF_TSC, [APIC_TIMER_KHZ, self.config.tsc_khz, crystal_hz, 0]);
        }
        if maximum >= LEAF_FREQUENCY {
            self.copy(LEAF_FREQUENCY);
        }
    }

    fn extended_features(&mut self) {
        let registers = features::leaf_7(self.host(LEAF_EXTENDED_FEATURES, 0), &self.components);
        self.add_subleaf(LEAF_EXTENDED_FEATURES, 0, registers);
        if self.host(LEAF_EXTENDED_FEATURES, 0)[0] >= 1 {
            let registers = features::leaf_7_1(self.host(LEAF_EXTENDED_FEATURES, 1), &self.components);
            self.add_subleaf(LEAF_EXTENDED_FEATURES, 1, registers);
        }
    }

    /// The caches, shared as the machine's cores share them; both vendors' leaves look alike.
    fn caches(&mut self, leaf: u32) {
        for subleaf in 0..MAX_CACHES {
            let registers = self.host(leaf, subleaf);
            if !topology::is_cache(registers) {
                break;
            }
            let registers = self.topology.cache(registers, self.vendor);
            self.add_subleaf(leaf, subleaf, registers);
        }
    }

    fn hypervisor(&mut self) {
        self.add(LEAF_HYPERVISOR, paravirtual::signature());
        self.add(paravirtual::LEAF_KVM_FEATURES, [self.config.kvm_features.bits(), 0, 0, 0]);
        self.add(LEAF_HYPERVISOR_TIMING, [self.config.tsc_khz, APIC_TIMER_KHZ, 0, 0]);
    }

    fn extended(&mut self) {
        let [_, ebx, ecx, edx] = self.host(LEAF_EXTENDED_MAXIMUM, 0);
        let maximum = match self.vendor {
            Vendor::Intel => LEAF_ADDRESS_SIZES,
            Vendor::Amd => self.extended_maximum.clamp(LEAF_ADDRESS_SIZES, LEAF_EXTENDED_FEATURES_2),
        };
        self.add(LEAF_EXTENDED_MAXIMUM, [maximum, ebx, ecx, edx]);

        let has_topology_leaf = self.vendor == Vendor::Amd && maximum >= LEAF_AMD_TOPOLOGY;
        let [eax, ebx, ecx, edx] = self.host(LEAF_EXTENDED, 0);
        let ecx = features::extended_1_ecx(ecx, self.vendor, has_topology_leaf, self.topology, &self.components);
        self.add(LEAF_EXTENDED, [eax, ebx, ecx, features::extended_1_edx(edx)]);
        LEAF_BRAND.for_each(|leaf| self.copy(leaf));
        self.copy(LEAF_L2);
        let [.., edx] = self.host(LEAF_EXTENDED_POWER, 0);
        self.add(LEAF_EXTENDED_POWER, [0, 0, 0, features::extended_7_edx(edx, self.config)]);

        let [eax, ebx, ..] = self.host(LEAF_ADDRESS_SIZES, 0);
        let eax = (eax & 0xff).min(MAX_PHYSICAL_BITS) | LINEAR_BITS << 8;
        let (ebx, ecx) = match self.vendor {
            Vendor::Intel => (0, 0),
            Vendor::Amd => (features::extended_8_ebx(ebx), self.topology.extended_8_ecx()),
        };
        self.add(LEAF_ADDRESS_SIZES, [eax, ebx, ecx, 0]);
        if self.vendor == Vendor::Amd {
            self.amd(has_topology_leaf);
        }
    }

    fn amd(&mut self, has_topology_leaf: bool) {
        for leaf in [LEAF_AMD_L1, LEAF_AMD_1G_TLB, LEAF_AMD_HINTS] {
            self.copy(leaf);
        }
        if has_topology_leaf {
            self.caches(LEAF_AMD_CACHE);
            // One thread for each core, one node; the core's number is the vCPU's.
            let entry = CpuidEntry { leaf: LEAF_AMD_TOPOLOGY, subleaf: None, registers: [0; 4] };
            self.entries.push((entry, Some(VcpuField::AmdTopology)));
        }
        let [eax, ..] = self.host(LEAF_EXTENDED_FEATURES_2, 0);
        self.add(LEAF_EXTENDED_FEATURES_2, [features::extended_21_eax(eax), 0, 0, 0]);
    }
}
