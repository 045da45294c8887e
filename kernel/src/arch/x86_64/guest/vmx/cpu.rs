//! What a CPU needs to run guests, and what it has of the last one.
#![expect(unsafe_code, reason = "VMX operation is switched on, and the host's registers are put back")]

use core::arch::asm;

use dragonfly_hw::x86::control::Cr4;
use dragonfly_hw::x86::msr::{
    FeatureControl, IA32_EFER, IA32_FEATURE_CONTROL, IA32_FMASK, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_LSTAR,
    IA32_PAT, IA32_STAR,
};
use dragonfly_hw::x86::vmx::ept::InveptType;
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_memory::{FrameUse, PhysicalMemory};

use super::capability::Setup;
use super::entry::exit_address;
use super::vmcs::{invalidate_ept, invalidate_vpids, vmxon, write};
use crate::arch::x86_64::descriptors::{KERNEL_CODE_SELECTOR, KERNEL_DATA_SELECTOR, TSS_SELECTOR, TablePointer};
use crate::arch::x86_64::registers::{read_msr, write_msr};
use crate::arch::x86_64::{FRAMES, X86};

/// Virtual-processor identifiers of a CPU: 1 to this.
const LAST_VPID: u16 = 0xffff;

/// The host's registers that an exit brings back, or a return to a domain.
#[derive(Clone, Copy, Debug, Default)]
struct Host {
    cr0: u64,
    cr4: u64,
    gs_base: u64,
    gdtr: (u64, u16),
    idtr_base: u64,
    tr_base: u64,
    efer: u64,
    pat: u64,
    star: u64,
    lstar: u64,
    fmask: u64,
}

/// Registers that an exit leaves as the guest's. The host's own matter when a domain runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemCall {
    pub star: u64,
    pub lstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
}

/// What a CPU keeps.
pub struct Local {
    host: Option<Host>,
    next_vpid: u16,
    /// How often the identifiers have run out.
    vpid_epoch: u64,
    /// Whose [`SystemCall`] registers the CPU has: a number that the virtual CPU chose, or 0 for the host's.
    system_call_of: u64,
    next_owner: u64,
}

impl Local {
    /// Of a CPU that has run no guest.
    pub const NEW: Self = Self { host: None, next_vpid: 1, vpid_epoch: 1, system_call_of: 0, next_owner: 1 };

    /// Switches VMX operation on. False if that does not work.
    pub fn enable(&mut self, setup: &Setup) -> bool {
        let control = FeatureControl::from_bits_retain(read_msr(IA32_FEATURE_CONTROL));
        if !control.contains(FeatureControl::LOCK) {
            let locked = control | FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX;
            // SAFETY: The register exists with VMX; what it allows is what is wanted.
            unsafe { write_msr(IA32_FEATURE_CONTROL, locked.bits()) };
        }
        let Some(region) = FRAMES.lock().alloc(0, 0, FrameUse::Kernel) else { return false };
        // SAFETY: The frame was just taken, and is this CPU's from now on. VMXE switches nothing but VMX on; the other
        // bits are those that the kernel has chosen, which VMX wants, too.
        let is_on = unsafe {
            let start = X86.pointer(region);
            start.write_bytes(0, dragonfly_memory::PAGE_SIZE as usize);
            start.cast::<u32>().write(setup.revision);
            let cr4: u64;
            asm!("mov {}, cr4", out(reg) cr4, options(nomem, nostack, preserves_flags));
            asm!("mov cr4, {}", in(reg) cr4 | Cr4::VMXE.bits(), options(nostack, preserves_flags));
            vmxon(region)
        };
        self.host = is_on.then(Host::read);
        is_on
    }

    /// Lets exits of the current VMCS come back to this CPU.
    pub fn write_host(&self) {
        let Some(host) = self.host else { return };
        for (field, value) in [
            (Field::HOST_CR0, host.cr0),
            (Field::HOST_CR4, host.cr4),
            (Field::HOST_CS_SELECTOR, KERNEL_CODE_SELECTOR.into()),
            (Field::HOST_SS_SELECTOR, KERNEL_DATA_SELECTOR.into()),
            (Field::HOST_DS_SELECTOR, 0),
            (Field::HOST_ES_SELECTOR, 0),
            (Field::HOST_FS_SELECTOR, 0),
            (Field::HOST_GS_SELECTOR, 0),
            (Field::HOST_TR_SELECTOR, TSS_SELECTOR.into()),
            (Field::HOST_FS_BASE, 0),
            (Field::HOST_GS_BASE, host.gs_base),
            (Field::HOST_TR_BASE, host.tr_base),
            (Field::HOST_GDTR_BASE, host.gdtr.0),
            (Field::HOST_IDTR_BASE, host.idtr_base),
            (Field::HOST_IA32_SYSENTER_CS, 0),
            (Field::HOST_IA32_SYSENTER_ESP, 0),
            (Field::HOST_IA32_SYSENTER_EIP, 0),
            (Field::HOST_IA32_EFER, host.efer),
            (Field::HOST_IA32_PAT, host.pat),
            (Field::HOST_RIP, exit_address()),
        ] {
            write(field, value);
        }
    }

    /// Puts a virtual CPU's registers into the CPU, unless it has them still: `owner` is what this gave the last time on
    /// this CPU, or 0 if the registers have changed since. Gives the number by which the CPU knows them.
    pub fn load_system_call(&mut self, owner: u64, registers: &SystemCall) -> u64 {
        if owner != 0 && owner == self.system_call_of {
            return owner;
        }
        registers.write();
        self.system_call_of = self.next_owner;
        self.next_owner += 1;
        self.system_call_of
    }

    /// A fresh virtual-processor identifier and its epoch, for a virtual CPU that has come to this CPU or whose second
    /// stage has changed. Forgets what was translated by its EPT pointer.
    pub fn tag(&mut self, eptp: u64) -> (u16, u64) {
        // Translations of guest-physical addresses have no identifier (SDM 3C, "Cached Translation Information").
        invalidate_ept(eptp, InveptType::SINGLE_CONTEXT);
        if self.next_vpid == LAST_VPID {
            self.next_vpid = 1;
            self.vpid_epoch += 1;
            invalidate_vpids();
        }
        let vpid = self.next_vpid;
        self.next_vpid += 1;
        (vpid, self.vpid_epoch)
    }

    /// How often the identifiers have run out.
    pub fn vpid_epoch(&self) -> u64 {
        self.vpid_epoch
    }

    /// A domain is about to run: it needs what guests have changed.
    #[inline]
    pub fn before_domain(&mut self) {
        if self.system_call_of != 0 {
            self.restore();
        }
    }

    #[cold]
    fn restore(&mut self) {
        self.system_call_of = 0;
        let Some(host) = self.host else { return };
        SystemCall { star: host.star, lstar: host.lstar, fmask: host.fmask, kernel_gs_base: 0 }.write();
        // An exit sets the limit to 64 KiB (SDM 3C, "Loading Host Segment and Descriptor-Table Registers"): behind the
        // table there is other data, which is not for a domain to load as a descriptor.
        let gdtr = TablePointer { limit: host.gdtr.1, base: host.gdtr.0 };
        // SAFETY: It is this CPU's own table, as set up at the start.
        unsafe { asm!("lgdt [{}]", in(reg) &gdtr, options(nostack, readonly, preserves_flags)) };
    }
}

impl SystemCall {
    /// Puts them into the CPU.
    pub fn write(&self) {
        // SAFETY: The kernel uses none of them until a domain runs. The addresses are canonical: the host's own, or a
        // guest's after `canonical`.
        unsafe {
            write_msr(IA32_STAR, self.star);
            write_msr(IA32_LSTAR, self.lstar);
            write_msr(IA32_FMASK, self.fmask);
            write_msr(IA32_KERNEL_GS_BASE, self.kernel_gs_base);
        }
    }
}

impl Host {
    /// This CPU's.
    fn read() -> Self {
        let mut gdtr = TablePointer { limit: 0, base: 0 };
        let mut idtr = TablePointer { limit: 0, base: 0 };
        let (cr0, cr4);
        // SAFETY: The instructions store ten bytes each, and read registers. TR's descriptor is two words of the table,
        // which lives for ever.
        let descriptor = unsafe {
            asm!("sgdt [{}]", in(reg) &raw mut gdtr, options(nostack, preserves_flags));
            asm!("sidt [{}]", in(reg) &raw mut idtr, options(nostack, preserves_flags));
            asm!("mov {}, cr0", "mov {}, cr4", out(reg) cr0, out(reg) cr4, options(nomem, nostack, preserves_flags));
            (gdtr.base as *const [u64; 2]).byte_add(usize::from(TSS_SELECTOR)).read()
        };
        let [low, high] = descriptor;
        Self {
            cr0,
            cr4,
            gs_base: read_msr(IA32_GS_BASE),
            gdtr: (gdtr.base, gdtr.limit),
            idtr_base: idtr.base,
            // SDM 3A, figure "Format of TSS and LDT Descriptors in 64-bit Mode".
            tr_base: low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32,
            efer: read_msr(IA32_EFER),
            pat: read_msr(IA32_PAT),
            star: read_msr(IA32_STAR),
            lstar: read_msr(IA32_LSTAR),
            fmask: read_msr(IA32_FMASK),
        }
    }
}

/// The nearest address that the CPU takes in LSTAR or as a base (SDM 1, "Canonical Addressing").
pub fn canonical(address: u64) -> u64 {
    ((address << 16) as i64 >> 16) as u64
}
