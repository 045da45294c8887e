//! Tables for made-up hosts.

use std::collections::BTreeMap;

use super::*;

const ALL_XCR0: u64 = 0b10_1110_0111;

const CONFIG: CpuidConfig = CpuidConfig {
    vcpus: 4,
    xcr0: ALL_XCR0,
    has_tsc_deadline: true,
    has_invariant_tsc: false,
    tsc_khz: 2_400_000,
    kvm_features: KvmFeatures::CLOCKSOURCE2.union(KvmFeatures::CLOCKSOURCE_STABLE),
};

/// A host that has every bit of every leaf, of this vendor, with highest leaves and XCR0.
fn full(vendor: &'static [u8; 12], maximum: u32, extended_maximum: u32, xcr0: u64) -> impl Fn(u32, u32) -> Registers {
    let word = move |index: usize| u32::from_le_bytes(vendor[index..index + 4].try_into().unwrap());
    move |leaf, subleaf| match (leaf, subleaf) {
        (0, _) => [maximum, word(0), word(8), word(4)],
        (0x8000_0000, _) => [extended_maximum, word(0), word(8), word(4)],
        // L1 data, L1 instruction, L2, L3; shared by many.
        (4 | 0x8000_001d, 0) => [0xffff_c121, 0x01c0_003f, 0x3f, 0],
        (4 | 0x8000_001d, 1) => [0xffff_c122, 0x01c0_003f, 0x3f, 0],
        (4 | 0x8000_001d, 2) => [0xffff_c143, 0x03c0_003f, 0x3ff, 0],
        (4 | 0x8000_001d, 3) => [0xffff_c163, 0x03c0_003f, 0x3fff, 6],
        (4 | 0x8000_001d, _) => [0; 4],
        (0xd, 0) => [xcr0 as u32, 0xa80, 0xa88, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 5) => [64, 1088, 0, 0],
        (0xd, 6) => [512, 1152, 0, 0],
        (0xd, 7) => [1024, 1664, 0, 0],
        (0xd, 9) => [8, 2688, 0, 0],
        _ => [u32::MAX; 4],
    }
}

fn intel() -> impl Fn(u32, u32) -> Registers {
    full(b"GenuineIntel", 0x20, 0x8000_0008, ALL_XCR0)
}

fn amd() -> impl Fn(u32, u32) -> Registers {
    full(b"AuthenticAMD", 0x10, 0x8000_0021, ALL_XCR0)
}

/// As QEMU's TCG: few leaves.
fn small_amd() -> impl Fn(u32, u32) -> Registers {
    full(b"AuthenticAMD", 0xd, 0x8000_000a, 7)
}

/// The answers as CPUID gives them.
struct Cpuid(BTreeMap<(u32, Option<u32>), Registers>);

impl Cpuid {
    fn new(config: &CpuidConfig, host: impl Fn(u32, u32) -> Registers, vcpu: u32) -> Self {
        let table = CpuidTable::new(config, host);
        let mut map = BTreeMap::new();
        for entry in table.for_vcpu(vcpu) {
            let old = map.insert((entry.leaf, entry.subleaf), entry.registers);
            assert_eq!(old, None, "leaf {:#x} {:?} twice", entry.leaf, entry.subleaf);
        }
        Self(map)
    }

    fn get(&self, leaf: u32, subleaf: u32) -> Registers {
        let whole = self.0.get(&(leaf, None));
        whole.or_else(|| self.0.get(&(leaf, Some(subleaf)))).copied().unwrap_or_default()
    }
}

fn bit(value: u32, bit: u32) -> bool {
    value & 1 << bit != 0
}

#[test]
fn the_table_fits_the_kernels() {
    for host in [full(b"GenuineIntel", 0x20, 0x8000_0008, ALL_XCR0), full(b"AuthenticAMD", 0x20, 0x8000_0021, ALL_XCR0)]
    {
        assert!(CpuidTable::new(&CONFIG, host).for_vcpu(0).count() <= 96);
    }
}

#[test]
fn vendor_and_model_are_the_hosts() {
    let cpuid = Cpuid::new(&CONFIG, intel(), 0);
    assert_eq!(cpuid.get(0, 0)[1..], intel()(0, 0)[1..]);
    assert_eq!(cpuid.get(1, 0)[0], u32::MAX);
    assert_eq!(cpuid.get(0x8000_0002, 0), [u32::MAX; 4]);
}

#[test]
fn no_host_has_more_leaves_than_the_table_answers_for() {
    for (host, basic, extended) in [
        (full(b"GenuineIntel", 0x20, 0x8000_0008, ALL_XCR0), 0x16, 0x8000_0008),
        (full(b"GenuineIntel", 0xd, 0x8000_0008, ALL_XCR0), 0xd, 0x8000_0008),
        (full(b"AuthenticAMD", 0x10, 0x8000_0028, ALL_XCR0), 0xd, 0x8000_0021),
        (full(b"AuthenticAMD", 0xd, 0x8000_000a, ALL_XCR0), 0xd, 0x8000_000a),
    ] {
        let cpuid = Cpuid::new(&CONFIG, host, 0);
        assert_eq!((cpuid.get(0, 0)[0], cpuid.get(0x8000_0000, 0)[0]), (basic, extended));
    }
}

#[test]
fn features_that_the_machine_does_not_have_are_left_out() {
    for host in [full(b"GenuineIntel", 0x20, 0x8000_0008, ALL_XCR0), full(b"AuthenticAMD", 0x10, 0x8000_0021, ALL_XCR0)]
    {
        let cpuid = Cpuid::new(&CONFIG, host, 0);
        let [_, _, ecx, edx] = cpuid.get(1, 0);
        // DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, CNXT-ID, SDBG, xTPR, PDCM, PCID, DCA, OSXSAVE.
        for feature in [2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 15, 17, 18, 27] {
            assert!(!bit(ecx, feature), "leaf 1 ECX {feature}");
        }
        // Processor serial number, debug store, ACPI, thermal monitor, PBE.
        for feature in [18, 21, 22, 29, 31] {
            assert!(!bit(edx, feature), "leaf 1 EDX {feature}");
        }
        let [_, ebx, ecx, edx] = cpuid.get(7, 0);
        // SGX, HLE, INVPCID, RTM, RDT-M, MPX, RDT-A, processor trace.
        for feature in [2, 4, 10, 11, 12, 14, 15, 25] {
            assert!(!bit(ebx, feature), "leaf 7 EBX {feature}");
        }
        // OSPKE, WAITPKG, CET_SS, TME, LA57, key locker, bus lock detection, ENQCMD, SGX_LC, PKS.
        for feature in [4, 5, 7, 13, 16, 23, 24, 29, 30, 31] {
            assert!(!bit(ecx, feature), "leaf 7 ECX {feature}");
        }
        // UINTR, SRBDS_CTRL, HYBRID, PCONFIG, ARCH_LBR, CET_IBT, AMX, L1D_FLUSH, CORE_CAPABILITIES.
        for feature in [5, 9, 15, 18, 19, 20, 22, 24, 25, 28, 30] {
            assert!(!bit(edx, feature), "leaf 7 EDX {feature}");
        }
        let [_, _, ecx, edx] = cpuid.get(0x8000_0001, 0);
        // SVM, extended APIC space, OSVW, IBS, SKINIT, WDT, LWP, TCE, NODEID, performance counters, MONITORX.
        for feature in [2, 3, 9, 10, 12, 13, 15, 17, 19, 23, 24, 26, 27, 28, 29] {
            assert!(!bit(ecx, feature), "leaf 0x8000_0001 ECX {feature}");
        }
        // FFXSR.
        assert!(!bit(edx, 25));
        // MONITOR, performance counters, SGX, trace, AMX; SVM.
        for leaf in [5, 0xa, 0xf, 0x10, 0x12, 0x14, 0x1d, 0x1e, 0x8000_000a] {
            assert_eq!(cpuid.get(leaf, 0), [0; 4], "{leaf:#x}");
        }
    }
}

#[test]
fn features_that_both_have_are_kept() {
    let cpuid = Cpuid::new(&CONFIG, intel(), 0);
    // SSE3, FMA, SSE4.2, AES, XSAVE, AVX; AVX2, AVX-512F, SHA; FPU, PAT, SSE2; syscall, NX, 1 GiB pages, RDTSCP, LM.
    assert!([0, 12, 20, 25, 26, 28].iter().all(|feature| bit(cpuid.get(1, 0)[2], *feature)));
    assert!([5, 16, 29].iter().all(|feature| bit(cpuid.get(7, 0)[1], *feature)));
    assert!([0, 16, 26].iter().all(|feature| bit(cpuid.get(1, 0)[3], *feature)));
    assert!([11, 20, 26, 27, 29].iter().all(|feature| bit(cpuid.get(0x8000_0001, 0)[3], *feature)));
}

#[test]
fn what_the_host_does_not_have_the_guest_does_not_have() {
    let host = |leaf, subleaf| if leaf == 0 { intel()(leaf, subleaf) } else { [0; 4] };
    let cpuid = Cpuid::new(&CONFIG, host, 0);
    // But for what the hypervisor itself provides: x2APIC, TSC deadline, HYPERVISOR; TSC_ADJUST.
    assert_eq!(cpuid.get(1, 0)[2], 1 << 21 | 1 << 24 | 1 << 31);
    assert_eq!(cpuid.get(1, 0)[3], 1 << 28);
    assert_eq!(cpuid.get(7, 0), [0, 1 << 1, 0, 0]);
}

#[test]
fn what_needs_a_state_component_goes_with_it() {
    for (xcr0, avx, avx_512, pku) in
        [(0x3, false, false, false), (0x7, true, false, false), (0xe7, true, true, false), (0x207, true, false, true)]
    {
        let cpuid = Cpuid::new(&CpuidConfig { xcr0, ..CONFIG }, intel(), 0);
        let [_, ebx, ecx, _] = cpuid.get(7, 0);
        assert!([12, 28, 29].iter().all(|feature| bit(cpuid.get(1, 0)[2], *feature) == avx), "{xcr0:#x}");
        assert_eq!((bit(ebx, 5), bit(ecx, 9), bit(cpuid.get(7, 1)[0], 4)), (avx, avx, avx), "{xcr0:#x}");
        assert_eq!((bit(ebx, 16), bit(ecx, 11), bit(cpuid.get(7, 1)[0], 5)), (avx_512, avx_512, avx_512), "{xcr0:#x}");
        assert_eq!(bit(ecx, 3), pku, "{xcr0:#x}");
    }
}

#[test]
fn tsc_deadline_and_invariant_tsc_are_as_the_owner_says() {
    for has in [false, true] {
        let config = CpuidConfig { has_tsc_deadline: has, has_invariant_tsc: has, ..CONFIG };
        let cpuid = Cpuid::new(&config, small_amd(), 0);
        assert_eq!(bit(cpuid.get(1, 0)[2], 24), has);
        let host = |leaf, subleaf| if leaf == 0x8000_0007 { [0; 4] } else { amd()(leaf, subleaf) };
        assert_eq!(Cpuid::new(&config, host, 0).get(0x8000_0007, 0), [0, 0, 0, u32::from(has) << 8]);
    }
}

#[test]
fn the_local_apics_timer_runs_always() {
    assert_eq!(Cpuid::new(&CONFIG, amd(), 0).get(6, 0), [4, 0, 0, 0]);
}

#[test]
fn each_vcpu_has_its_number_as_apic_id_in_every_leaf() {
    for vcpu in 0..4 {
        let cpuid = Cpuid::new(&CONFIG, amd(), vcpu);
        assert_eq!(cpuid.get(1, 0)[1] >> 24, vcpu);
        assert!((0..3).all(|subleaf| cpuid.get(0xb, subleaf)[3] == vcpu));
        assert_eq!(cpuid.get(0x8000_001e, 0), [vcpu, vcpu, 0, 0]);
    }
}

#[test]
fn all_leaves_say_that_vcpus_are_cores_of_one_package() {
    for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (32, 5), (64, 6)] {
        let config = CpuidConfig { vcpus, ..CONFIG };
        let cpuid = Cpuid::new(&config, intel(), 0);
        assert_eq!(cpuid.get(1, 0)[1] >> 16 & 0xff, 1 << bits);
        assert_eq!(bit(cpuid.get(1, 0)[3], 28), vcpus > 1);
        assert_eq!(cpuid.get(0xb, 0), [0, 1, 0x100, 0]);
        assert_eq!(cpuid.get(0xb, 1), [bits, vcpus, 0x201, 0]);
        assert_eq!(cpuid.get(0xb, 2), [0, 0, 2, 0]);
        assert_eq!(cpuid.get(4, 0)[0] >> 26, (1 << bits) - 1);

        let cpuid = Cpuid::new(&config, amd(), 0);
        assert_eq!(cpuid.get(0x8000_0008, 0)[2], bits << 12 | (vcpus - 1));
        assert_eq!(bit(cpuid.get(0x8000_0001, 0)[2], 1), vcpus > 1);
        assert!(bit(cpuid.get(0x8000_0001, 0)[2], 22));
    }
}

#[test]
fn low_caches_belong_to_a_core_and_the_last_level_to_all() {
    for (leaf, cpuid) in [(4, Cpuid::new(&CONFIG, intel(), 0)), (0x8000_001d, Cpuid::new(&CONFIG, amd(), 0))] {
        let sharing = |subleaf| (cpuid.get(leaf, subleaf)[0] >> 14 & 0xfff) + 1;
        assert_eq!([sharing(0), sharing(1), sharing(2), sharing(3)], [1, 1, 1, 4], "{leaf:#x}");
        assert_eq!(cpuid.get(leaf, 2)[0] & 0x3fff, 0x143);
        assert_eq!(cpuid.get(leaf, 2)[1..], [0x03c0_003f, 0x3ff, 0]);
        assert_eq!(cpuid.get(leaf, 4), [0; 4]);
    }
}

#[test]
fn amd_hosts_without_topology_leaves_give_none_to_the_guest() {
    let cpuid = Cpuid::new(&CONFIG, small_amd(), 1);
    assert!(!bit(cpuid.get(0x8000_0001, 0)[2], 22));
    assert_eq!(cpuid.get(0x8000_001e, 0), [0; 4]);
    assert_eq!(cpuid.get(0xb, 1)[3], 1);
}

#[test]
fn addresses_are_no_wider_than_the_machine_translates() {
    for (host_bits, bits) in [(40, 40), (48, 48), (52, 48)] {
        let host =
            |leaf, subleaf| if leaf == 0x8000_0008 { [0x3900 | host_bits, 0, 0, 0] } else { intel()(leaf, subleaf) };
        assert_eq!(Cpuid::new(&CONFIG, host, 0).get(0x8000_0008, 0)[0], 0x3000 | bits);
    }
}

#[test]
fn state_components_are_those_that_xcr0_may_have() {
    let cpuid = Cpuid::new(&CpuidConfig { xcr0: 0xe7, ..CONFIG }, intel(), 0);
    assert_eq!(cpuid.get(0xd, 0), [0xe7, 2688, 2688, 0]);
    // Not XSAVES.
    assert_eq!(cpuid.get(0xd, 1)[0], 7);
    assert_eq!(cpuid.get(0xd, 2), [256, 576, 0, 0]);
    assert_eq!(cpuid.get(0xd, 7), [1024, 1664, 0, 0]);
    assert_eq!(cpuid.get(0xd, 9), [0; 4]);
}

#[test]
fn a_host_without_xsave_gives_none() {
    let cpuid = Cpuid::new(&CONFIG, full(b"GenuineIntel", 7, 0x8000_0008, 0), 0);
    assert!(!bit(cpuid.get(1, 0)[2], 26));
    assert_eq!(cpuid.get(0xd, 0), [0; 4]);
}

#[test]
fn intels_frequency_leaf_gives_the_frequency_of_the_counter() {
    let cpuid = Cpuid::new(&CONFIG, intel(), 0);
    let [denominator, numerator, crystal_hz, _] = cpuid.get(0x15, 0).map(u64::from);
    assert_eq!(crystal_hz * numerator / denominator, 2_400_000_000);
    assert_eq!(crystal_hz, 1_000_000_000);
    assert_eq!(Cpuid::new(&CpuidConfig { tsc_khz: 0, ..CONFIG }, intel(), 0).get(0x15, 0), [0; 4]);
}

#[test]
fn kvms_leaves_are_there() {
    let cpuid = Cpuid::new(&CONFIG, amd(), 0);
    let [maximum, rest @ ..] = cpuid.get(0x4000_0000, 0);
    assert_eq!(rest.map(u32::to_le_bytes).concat(), b"KVMKVMKVM\0\0\0");
    assert_eq!(maximum, 0x4000_0010);
    assert_eq!(cpuid.get(0x4000_0001, 0), [1 << 3 | 1 << 24, 0, 0, 0]);
    assert_eq!(cpuid.get(0x4000_0010, 0), [2_400_000, 1_000_000, 0, 0]);
}
