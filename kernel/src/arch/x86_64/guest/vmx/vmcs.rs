//! The VMCS: its fields, and on which CPU it is.
//!
//! A processor keeps parts of a VMCS to itself from VMPTRLD to VMCLEAR, so a virtual CPU that moves is cleared where it
//! was first (SDM 3C, "Initializing a VMCS", "Software Use of Virtual-Machine Control Structures").
#![expect(unsafe_code, reason = "VMX instructions")]

use core::arch::asm;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::{MAX_CPUS, Status};
use dragonfly_hw::x86::vmx::ept::{InveptDescriptor, InveptType, InvvpidDescriptor, InvvpidType};
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_memory::{Account, HostPhys};

use super::capability::Setup;
use crate::arch::x86_64::{KERNEL, KernelHeap, X86, per_cpu};
use crate::frames::OwnedFrame;
use crate::{Lock, Ref};

/// The VMCS that is current on each CPU, or 0. Only that CPU uses its own.
static CURRENT: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// The VMCS that each CPU is asked to clear, or 0.
static ASKED: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
/// Who has asked a CPU, and waits.
static ASKING: [Lock<(), X86>; MAX_CPUS] = [const { Lock::<_, X86>::new(()) }; MAX_CPUS];

/// `place` of a VMCS that is in memory.
const IN_MEMORY: usize = usize::MAX;

/// A VMCS.
pub struct Vmcs {
    region: OwnedFrame<X86>,
    /// The CPU that has parts of it, or [`IN_MEMORY`].
    place: Cell<usize>,
    /// It was entered since it was cleared: VMRESUME, not VMLAUNCH.
    is_launched: Cell<bool>,
}

impl Vmcs {
    /// One with undefined fields.
    pub fn new(arch: X86, account: &Ref<Account<KernelHeap>, X86>, setup: &Setup) -> Result<Self, Status> {
        let region = OwnedFrame::new(arch, account)?;
        // SAFETY: The frame is this object's alone. It starts with the revision (SDM 3C, "Format of the VMCS Region").
        unsafe { region.pointer().cast::<u32>().write(setup.revision) };
        vmclear(region.address().as_u64());
        Ok(Self { region, place: Cell::new(IN_MEMORY), is_launched: Cell::new(false) })
    }

    /// Makes it current on this CPU, wherever it was.
    #[inline]
    pub fn load(&self) {
        if CURRENT[per_cpu::id() % MAX_CPUS].load(Ordering::Relaxed) != self.region.address().as_u64() {
            self.fetch();
        }
    }

    #[cold]
    fn fetch(&self) {
        let this = per_cpu::id();
        if self.place.get() != this {
            self.clear();
        }
        let region = self.region.address().as_u64();
        // SAFETY: The region has the revision, is in memory or this CPU's, and is cleared before its frame is freed.
        unsafe { asm!("vmptrld [{}]", in(reg) &region, options(nostack)) };
        self.place.set(this);
        CURRENT[this % MAX_CPUS].store(region, Ordering::Relaxed);
    }

    /// Brings it into memory.
    pub fn clear(&self) {
        let (place, region) = (self.place.get(), self.region.address().as_u64());
        if place == per_cpu::id() {
            forget(region);
        } else if place != IN_MEMORY {
            let _asking = ASKING[place % MAX_CPUS].lock();
            ASKED[place % MAX_CPUS].store(region, Ordering::Release);
            // When the flush is answered this has been, too.
            KERNEL.shoot_down(per_cpu::id(), 1 << place);
        }
        self.place.set(IN_MEMORY);
        self.is_launched.set(false);
    }

    /// Whether VMRESUME is the way in.
    #[inline]
    pub fn is_launched(&self) -> bool {
        self.is_launched.get()
    }

    /// It was entered.
    #[inline]
    pub fn set_launched(&self) {
        self.is_launched.set(true);
    }
}

impl Drop for Vmcs {
    fn drop(&mut self) {
        self.clear();
    }
}

/// This CPU may be asked for a VMCS; called where it answers shoot-downs.
#[inline]
pub fn answer() {
    let asked = &ASKED[per_cpu::id() % MAX_CPUS];
    if asked.load(Ordering::Acquire) != 0 {
        forget(asked.swap(0, Ordering::AcqRel));
    }
}

/// Clears a VMCS that this CPU has.
fn forget(region: u64) {
    vmclear(region);
    let current = &CURRENT[per_cpu::id() % MAX_CPUS];
    if current.load(Ordering::Relaxed) == region {
        current.store(0, Ordering::Relaxed);
    }
}

fn vmclear(region: u64) {
    // SAFETY: The region is a VMCS; what the processor has of it goes to its own frame.
    unsafe { asm!("vmclear [{}]", in(reg) &region, options(nostack)) };
}

/// Reads a field of the current VMCS.
#[inline]
pub fn read(field: Field) -> u64 {
    let value;
    // SAFETY: VMREAD has no effect but on its operand.
    unsafe { asm!("vmread {}, {}", out(reg) value, in(reg) u64::from(field.0), options(nomem, nostack)) };
    value
}

/// Writes a field of the current VMCS. Fields on which the host's safety depends are written in two places only: where a
/// virtual CPU is made, and where it comes to a CPU.
#[inline]
pub fn write(field: Field, value: u64) {
    // SAFETY: It changes what the next entry or exit of this guest does; see above.
    unsafe { asm!("vmwrite {}, {}", in(reg) u64::from(field.0), in(reg) value, options(nostack)) };
}

/// Forgets what this CPU has translated by an EPT pointer.
pub fn invalidate_ept(eptp: u64, kind: InveptType) {
    let descriptor = InveptDescriptor { eptp, reserved: 0 };
    // SAFETY: Forgetting translations changes nothing else.
    unsafe { asm!("invept {}, [{}]", in(reg) kind.0, in(reg) &descriptor, options(nostack)) };
}

/// Forgets what this CPU has translated for all guests' linear addresses.
pub fn invalidate_vpids() {
    let descriptor = InvvpidDescriptor { vpid: 0, address: 0 };
    let kind = InvvpidType::ALL_CONTEXTS;
    // SAFETY: As in `invalidate_ept`.
    unsafe { asm!("invvpid {}, [{}]", in(reg) kind.0, in(reg) &descriptor, options(nostack)) };
}

/// Switches VMX operation on, with a region of this CPU's own. False if the processor refuses.
///
/// # Safety
/// The region has the revision, and is used for nothing else from now on. CR0 and CR4 are as VMX wants them.
pub unsafe fn vmxon(region: HostPhys) -> bool {
    let region = region.as_u64();
    let has_failed: u8;
    // SAFETY: The caller's contract. CF or ZF says that it failed (SDM 3C, "Conventions").
    unsafe { asm!("vmxon [{}]", "setbe {}", in(reg) &region, out(reg_byte) has_failed, options(nostack)) };
    has_failed == 0
}
