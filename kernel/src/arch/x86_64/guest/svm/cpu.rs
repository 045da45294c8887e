//! What a CPU keeps.
#![expect(unsafe_code, reason = "SVM is switched on by registers that decide what memory the CPU writes")]

use dragonfly_hw::x86::msr::{Efer, IA32_EFER, VM_HSAVE_PA};
use dragonfly_memory::FrameUse;

use crate::arch::x86_64::FRAMES;
use crate::arch::x86_64::registers::{read_msr, write_msr};

/// What a CPU keeps.
pub struct Local {
    /// Where VMSAVE has put the host's registers that VMRUN does not switch.
    pub(super) host: u64,
    pub(super) next_asid: u32,
    /// How often the address space identifiers have run out.
    pub(super) asid_epoch: u64,
}

impl Local {
    /// Of a CPU that has run no guest.
    pub const NEW: Self = Self { host: 0, next_asid: 1, asid_epoch: 1 };
}

/// Switches SVM on. False if there is no memory.
pub fn enable_on_this_cpu(local: &mut Local) -> bool {
    let frames = [0; 2].map(|_| FRAMES.lock().alloc(0, 0, FrameUse::Kernel));
    let [Some(saved), Some(host)] = frames else { return false };
    // SAFETY: The CPU has SVM, and both frames are its own from now on. VMSAVE stores segments and system-call registers,
    // which stay as they are.
    unsafe {
        write_msr(IA32_EFER, read_msr(IA32_EFER) | Efer::SVME.bits());
        write_msr(VM_HSAVE_PA, saved.as_u64());
        core::arch::asm!("vmsave rax", in("rax") host.as_u64(), options(nostack));
    }
    local.host = host.as_u64();
    true
}
