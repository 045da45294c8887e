//! Which feature bits a guest keeps of the host's.
//!
//! A list names what is kept; all else is left out, features of the future too: a feature is kept only if its registers and
//! state are the guest's own. Left out on purpose are VMX, SVM and SMX, PCID and INVPCID, five-level paging, TSX, MPX,
//! SGX, AMX, CET, user interrupts, supervisor protection keys, MONITOR and its like, all of power and thermal management,
//! performance counters and traces, resource control, and the newer controls of speculation (leaf 7, sub-leaf 2).

use dragonfly_hw::x86::cpuid::{
    Extended1Ecx, Extended7Edx, Extended8Ebx, Extended21Eax, Leaf1Ecx, Leaf1Edx, Leaf7Ebx, Leaf7Ecx,
};

use super::topology::Topology;
use super::xsave::Components;
use super::{CpuidConfig, Registers, Vendor};

/// Masks of feature bits by name.
macro_rules! kept {
    ($($(#[$meta:meta])* $mask:ident: $($feature:ident $bit:literal),+;)+) => {
        $($(#[$meta])* const $mask: u32 = $(1 << $bit)|+;)+
    };
}

kept! {
    LEAF_1_ECX: SSE3 0, PCLMULQDQ 1, SSSE3 9, FMA 12, CMPXCHG16B 13, SSE4_1 19, SSE4_2 20, MOVBE 22, POPCNT 23, AESNI 25,
        XSAVE 26, AVX 28, F16C 29, RDRAND 30;
    LEAF_1_ECX_OF_AVX: FMA 12, AVX 28, F16C 29;
    LEAF_1_EDX: FPU 0, VME 1, DE 2, PSE 3, TSC 4, MSR 5, PAE 6, MCE 7, CX8 8, APIC 9, SEP 11, MTRR 12, PGE 13, MCA 14,
        CMOV 15, PAT 16, PSE_36 17, CLFSH 19, MMX 23, FXSR 24, SSE 25, SSE2 26, SELF_SNOOP 27;
    LEAF_7_EBX: FSGSBASE 0, BMI1 3, AVX2 5, FDP_EXCEPTION_ONLY 6, SMEP 7, BMI2 8, ERMS 9, FPU_SELECTORS_DEPRECATED 13,
        AVX512F 16, AVX512DQ 17, RDSEED 18, ADX 19, SMAP 20, AVX512_IFMA 21, CLFLUSHOPT 23, CLWB 24, AVX512PF 26,
        AVX512ER 27, AVX512CD 28, SHA 29, AVX512BW 30, AVX512VL 31;
    LEAF_7_EBX_OF_AVX_512: AVX512F 16, AVX512DQ 17, AVX512_IFMA 21, AVX512PF 26, AVX512ER 27, AVX512CD 28, AVX512BW 30,
        AVX512VL 31;
    LEAF_7_ECX: PREFETCHWT1 0, AVX512_VBMI 1, UMIP 2, PKU 3, AVX512_VBMI2 6, GFNI 8, VAES 9, VPCLMULQDQ 10, AVX512_VNNI 11,
        AVX512_BITALG 12, AVX512_VPOPCNTDQ 14, RDPID 22, CLDEMOTE 25, MOVDIRI 27, MOVDIR64B 28;
    LEAF_7_ECX_OF_AVX: VAES 9, VPCLMULQDQ 10;
    LEAF_7_ECX_OF_AVX_512: AVX512_VBMI 1, AVX512_VBMI2 6, AVX512_VNNI 11, AVX512_BITALG 12, AVX512_VPOPCNTDQ 14;
    LEAF_7_EDX: AVX512_4VNNIW 2, AVX512_4FMAPS 3, FSRM 4, AVX512_VP2INTERSECT 8, MD_CLEAR 10, SERIALIZE 14, AVX512_FP16 23,
        IBRS_IBPB 26, STIBP 27, ARCH_CAPABILITIES 29, SSBD 31;
    LEAF_7_EDX_OF_AVX_512: AVX512_4VNNIW 2, AVX512_4FMAPS 3, AVX512_VP2INTERSECT 8, AVX512_FP16 23;
    LEAF_7_1_EAX: SHA512 0, SM3 1, SM4 2, AVX_VNNI 4, AVX512_BF16 5, CMPCCXADD 7, FZRM 10, FSRS 11, FSRC 12, AVX_IFMA 23;
    LEAF_7_1_EAX_OF_AVX: SHA512 0, SM3 1, SM4 2, AVX_VNNI 4, AVX_IFMA 23;
    LEAF_7_1_EAX_OF_AVX_512: AVX512_BF16 5;
    LEAF_7_1_EDX_OF_AVX: AVX_VNNI_INT8 4, AVX_NE_CONVERT 5, AVX_VNNI_INT16 10;
    EXTENDED_1_ECX: LAHF_SAHF 0, ALTERNATIVE_CR8 4, LZCNT 5, SSE4A 6, MISALIGNED_SSE 7, PREFETCHW 8, XOP 11, FMA4 16, TBM 21;
    EXTENDED_1_ECX_OF_AVX: XOP 11, FMA4 16;
    /// Not FFXSR: guests have no EFER.FFXSR.
    EXTENDED_1_EDX: FPU 0, VME 1, DE 2, PSE 3, TSC 4, MSR 5, PAE 6, MCE 7, CX8 8, APIC 9, SYSCALL 11, MTRR 12, PGE 13,
        MCA 14, CMOV 15, PAT 16, PSE_36 17, NX 20, MMX_EXTENSIONS 22, MMX 23, FXSR 24, PAGE1GB 26, RDTSCP 27, LM 29,
        NOW_3D_EXTENSIONS 30, NOW_3D 31;
    EXTENDED_8_EBX: CLZERO 0, XSAVE_ERROR_POINTERS 2;
}

/// CMP_LEGACY: threads of the package are cores.
const CMP_LEGACY: u32 = 1 << 1;

/// Size of CLFLUSH from the host, how many APIC IDs the package has; the initial APIC ID is each vCPU's.
pub const fn leaf_1_ebx(ebx: u32, topology: Topology) -> u32 {
    ebx & 0xff00 | topology.apic_ids() << 16
}

pub fn leaf_1_ecx(ecx: u32, config: &CpuidConfig, components: &Components) -> u32 {
    let mut kept = ecx & LEAF_1_ECX;
    if !components.has_avx() {
        kept &= !LEAF_1_ECX_OF_AVX;
    }
    if !components.has_xsave() {
        kept &= !Leaf1Ecx::XSAVE.bits();
    }
    if config.has_tsc_deadline {
        kept |= Leaf1Ecx::TSC_DEADLINE.bits();
    }
    // The kernel emulates the local APIC in full.
    kept | Leaf1Ecx::X2APIC.bits() | Leaf1Ecx::HYPERVISOR.bits()
}

pub const fn leaf_1_edx(edx: u32, topology: Topology) -> u32 {
    edx & LEAF_1_EDX | if topology.vcpus() > 1 { Leaf1Edx::HTT.bits() } else { 0 }
}

/// Leaf 7, sub-leaf 0.
pub fn leaf_7([subleaves, mut ebx, mut ecx, mut edx]: Registers, components: &Components) -> Registers {
    (ebx, ecx, edx) = (ebx & LEAF_7_EBX, ecx & LEAF_7_ECX, edx & LEAF_7_EDX);
    if !components.has_avx() {
        ebx &= !Leaf7Ebx::AVX2.bits();
        ecx &= !LEAF_7_ECX_OF_AVX;
    }
    if !components.has_avx_512() {
        ebx &= !LEAF_7_EBX_OF_AVX_512;
        ecx &= !LEAF_7_ECX_OF_AVX_512;
        edx &= !LEAF_7_EDX_OF_AVX_512;
    }
    if !components.has_pkru() {
        ecx &= !Leaf7Ecx::PKU.bits();
    }
    // The kernel has the register for every guest; with it, kernels trust the counters of all vCPUs to agree.
    ebx |= Leaf7Ebx::TSC_ADJUST.bits();
    [subleaves.min(1), ebx, ecx, edx]
}

/// Leaf 7, sub-leaf 1.
pub fn leaf_7_1([mut eax, _, _, mut edx]: Registers, components: &Components) -> Registers {
    (eax, edx) = (eax & LEAF_7_1_EAX, edx & LEAF_7_1_EDX_OF_AVX);
    if !components.has_avx() {
        eax &= !LEAF_7_1_EAX_OF_AVX;
        edx = 0;
    }
    if !components.has_avx_512() {
        eax &= !LEAF_7_1_EAX_OF_AVX_512;
    }
    [eax, 0, 0, edx]
}

/// Leaf 0x8000_0001 ECX.
pub fn extended_1_ecx(
    ecx: u32,
    vendor: Vendor,
    has_topology_leaf: bool,
    topology: Topology,
    components: &Components,
) -> u32 {
    let mut kept = ecx & EXTENDED_1_ECX;
    if !components.has_avx() {
        kept &= !EXTENDED_1_ECX_OF_AVX;
    }
    if vendor == Vendor::Amd && topology.vcpus() > 1 {
        kept |= CMP_LEGACY;
    }
    if has_topology_leaf {
        kept |= ecx & Extended1Ecx::TOPOLOGY_EXTENSIONS.bits();
    }
    kept
}

/// Leaf 0x8000_0001 EDX.
pub const fn extended_1_edx(edx: u32) -> u32 {
    edx & EXTENDED_1_EDX
}

/// Leaf 0x8000_0007 EDX.
pub const fn extended_7_edx(edx: u32, config: &CpuidConfig) -> u32 {
    let invariant_tsc = Extended7Edx::INVARIANT_TSC.bits();
    if config.has_invariant_tsc { invariant_tsc } else { edx & invariant_tsc }
}

/// Leaf 0x8000_0008 EBX, on AMD: besides instructions, what the processor is not open to.
pub fn extended_8_ebx(ebx: u32) -> u32 {
    ebx & (EXTENDED_8_EBX | (Extended8Ebx::WBNOINVD | Extended8Ebx::SSB_NO | Extended8Ebx::BTC_NO).bits())
}

/// Leaf 0x8000_0021 EAX, on AMD: properties, not controls.
pub fn extended_21_eax(eax: u32) -> u32 {
    let kept = Extended21Eax::NO_NESTED_DATA_BP
        | Extended21Eax::LFENCE_ALWAYS_SERIALIZING
        | Extended21Eax::NULL_SELECT_CLEARS_BASE
        | Extended21Eax::SRSO_NO;
    eax & kept.bits()
}
