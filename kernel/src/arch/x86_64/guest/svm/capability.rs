//! What SVM there is, and what all guests share.
#![expect(unsafe_code, reason = "permission maps are written through the direct map")]

use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dragonfly_hw::x86::cpuid::{Extended1Ecx, ExtendedAEdx, LEAF_EXTENDED, LEAF_EXTENDED_MAXIMUM, LEAF_SVM};
use dragonfly_hw::x86::msr::{
    IA32_CSTAR, IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_LSTAR, IA32_PAT, IA32_STAR,
    IA32_SYSENTER_CS, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, VM_CR, VmCr,
};
use dragonfly_hw::x86::svm::permission::{IOPM_SIZE, MSRPM_SIZE, msrpm_bit};
use dragonfly_memory::PhysicalMemory;

use super::super::capability::{Names, is_wanted, new_map};
use crate::arch::x86_64::X86;
use crate::arch::x86_64::registers::read_msr;

/// Registers that the guest reads and writes itself: VMLOAD, VMSAVE and VMRUN switch them.
const GUEST_MSRS: [u32; 11] = [
    IA32_STAR,
    IA32_LSTAR,
    IA32_CSTAR,
    IA32_FMASK,
    IA32_KERNEL_GS_BASE,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_ESP,
    IA32_SYSENTER_EIP,
    IA32_PAT,
];
/// Features that are used where they are: names, options that switch them off.
const OPTIONAL: [(&str, &str, ExtendedAEdx); 2] =
    [("nRIP", "svm.nrip", ExtendedAEdx::NRIPS), ("pause-filter", "svm.pause-filter", ExtendedAEdx::PAUSE_FILTER)];
/// CPUID 0x8000_000a, EDX, without what is switched off.
static FEATURES: AtomicU32 = AtomicU32::new(0);
/// How many address space identifiers there are.
pub static ASIDS: AtomicU32 = AtomicU32::new(0);
/// Permission maps, the same for all guests: all ports are intercepted, and all registers but [`GUEST_MSRS`].
pub static IOPM: AtomicU64 = AtomicU64::new(0);
pub static MSRPM: AtomicU64 = AtomicU64::new(0);

/// Whether the processor has a feature that is not switched off.
pub fn has(feature: ExtendedAEdx) -> bool {
    ExtendedAEdx::from_bits_retain(FEATURES.load(Ordering::Relaxed)).contains(feature)
}

/// Finds out whether this machine has it.
pub fn detect() -> bool {
    if __cpuid(LEAF_EXTENDED_MAXIMUM).eax < LEAF_SVM
        || !Extended1Ecx::from_bits_retain(__cpuid(LEAF_EXTENDED).ecx).contains(Extended1Ecx::SVM)
    {
        return false;
    }
    let leaf = __cpuid(LEAF_SVM);
    let off = OPTIONAL.iter().filter(|(_, option, _)| !is_wanted(option)).map(|(.., feature)| feature.bits());
    FEATURES.store(off.fold(leaf.edx, |features, off| features & !off), Ordering::Relaxed);
    ASIDS.store(leaf.ebx.max(2), Ordering::Relaxed);
    if VmCr::from_bits_retain(read_msr(VM_CR)).contains(VmCr::SVMDIS) {
        log::warn!("no virtual machines: the firmware has disabled SVM");
        return false;
    }
    if !has(ExtendedAEdx::NP) {
        log::warn!("no virtual machines: SVM without nested paging");
        return false;
    }
    let (Some(ports), Some(msrs)) = (new_map(IOPM_SIZE), new_map(MSRPM_SIZE)) else {
        log::error!("no virtual machines: no memory for permission maps");
        return false;
    };
    for bit in GUEST_MSRS.into_iter().filter_map(msrpm_bit) {
        // SAFETY: The map was just made, is this large, and no guest uses it yet.
        unsafe {
            let byte = X86.pointer(msrs).add(bit as usize / 8);
            byte.write(byte.read() & !(0b11 << (bit % 8)));
        }
    }
    IOPM.store(ports.as_u64(), Ordering::Relaxed);
    MSRPM.store(msrs.as_u64(), Ordering::Relaxed);
    let list =
        |is_there: bool| OPTIONAL.iter().filter(move |(.., feature)| has(*feature) == is_there).map(|(name, ..)| *name);
    log::info!("virtual machines by SVM, {} address spaces; used: {}", leaf.ebx, Names(list(true)));
    log::info!("SVM features that are missing or off: {}", Names(list(false)));
    true
}
