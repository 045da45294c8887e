//! Registers of a guest that stay in the CPU between exits: x87, SSE, AVX, debug addresses, IA32_TSC_AUX.
//!
//! Neither kernel nor domains use them, so they are saved only when another virtual CPU needs the place, or the virtual
//! CPU runs elsewhere.
#![expect(unsafe_code, reason = "the state is moved by privileged instructions")]

use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dragonfly_abi::{MAX_CPUS, Status};
use dragonfly_hw::x86::control::{Cr0, Cr4};
use dragonfly_hw::x86::cpuid::{LEAF_EXTENDED, LEAF_FEATURES, LEAF_XSAVE, Leaf1Ecx};
use dragonfly_hw::x86::msr::IA32_TSC_AUX;
use dragonfly_memory::{Account, PAGE_SIZE};

use super::super::registers::write_msr;
use super::super::{KERNEL, KernelHeap, X86, per_cpu};
use crate::frames::OwnedFrame;
use crate::vcpu::Vcpu;
use crate::{Lock, Ref};

/// Components that a guest may have: x87, SSE, AVX, AVX-512, PKRU. Not MPX, not AMX, whose state is too large for a page.
const COMPONENTS: u64 = 0b10_1110_0111;
/// Offset of MXCSR in the save area, and its value after reset (SDM 1, "Layout of the 64-bit-Mode FXSAVE64 Map").
const MXCSR: (usize, u32) = (24, 0x1f80);
/// CPUID 0x8000_0001, EDX: RDTSCP.
const RDTSCP: u32 = 1 << 27;
/// `live_on` of state that is in memory.
const IN_MEMORY: usize = usize::MAX;

/// What this machine's save areas hold, as XCR0; 0 before [`detect`].
static SUPPORTED: AtomicU64 = AtomicU64::new(0);
static HAS_TSC_AUX: AtomicBool = AtomicBool::new(false);
/// Whose state a CPU has.
type Owner = Lock<Option<Ref<Vcpu<X86>, X86>>, X86>;

/// Whose state each CPU has. Only that CPU changes its own.
static OWNERS: [Owner; MAX_CPUS] = [const { Lock::<_, X86>::new(None) }; MAX_CPUS];
/// CPUs that are asked to put what they have into memory.
static ASKED: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// Finds out what there is to save. False if the CPU has no XSAVE.
pub fn detect() -> bool {
    if !Leaf1Ecx::from_bits_retain(__cpuid(LEAF_FEATURES).ecx).contains(Leaf1Ecx::XSAVE) {
        return false;
    }
    let leaf = __cpuid_count(LEAF_XSAVE, 0);
    let mut supported = (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & COMPONENTS;
    // The standard format has fixed offsets: leave out what would reach past a page.
    for component in 2..10 {
        let leaf = __cpuid_count(LEAF_XSAVE, component);
        if u64::from(leaf.eax) + u64::from(leaf.ebx) > PAGE_SIZE {
            supported &= !(1 << component);
        }
    }
    SUPPORTED.store(supported, Ordering::Relaxed);
    HAS_TSC_AUX.store(__cpuid(LEAF_EXTENDED).edx & RDTSCP != 0, Ordering::Relaxed);
    true
}

/// Values of XCR0 that a guest may have: the bits that exist, and the rules of SDM 1, "XSETBV".
pub fn is_valid_xcr0(value: u64) -> bool {
    let avx512 = 0b1110_0000;
    value & !SUPPORTED.load(Ordering::Relaxed) == 0
        && value & 1 != 0
        && (value & 4 == 0 || value & 2 != 0)
        && (value & avx512 == 0 || value & (avx512 | 4) == avx512 | 4)
}

/// A virtual CPU's registers that stay in a CPU.
pub struct VectorState {
    area: OwnedFrame<X86>,
    /// The CPU that has them, or [`IN_MEMORY`].
    live_on: AtomicUsize,
    /// XCR0, changed by who runs the virtual CPU.
    pub xcr0: AtomicU64,
    /// DR0 to DR3, while in memory.
    pub dr: [AtomicU64; 4],
    /// IA32_TSC_AUX.
    pub tsc_aux: AtomicU64,
}

impl VectorState {
    /// As after reset.
    pub fn new(arch: X86, account: &Ref<Account<KernelHeap>, X86>) -> Result<Self, Status> {
        let area = OwnedFrame::new(arch, account)?;
        // SAFETY: The frame is this object's, and the offset is in it.
        unsafe { area.pointer().byte_add(MXCSR.0).cast::<u32>().write(MXCSR.1) };
        Ok(Self {
            area,
            live_on: AtomicUsize::new(IN_MEMORY),
            xcr0: AtomicU64::new(1),
            dr: [const { AtomicU64::new(0) }; 4],
            tsc_aux: AtomicU64::new(0),
        })
    }
}

/// Puts a virtual CPU's registers into this CPU.
#[inline]
pub fn load(vcpu: &Ref<Vcpu<X86>, X86>) {
    if vcpu.interrupts.vector.live_on.load(Ordering::Relaxed) != per_cpu::id() {
        switch(vcpu);
    }
}

#[cold]
fn switch(vcpu: &Ref<Vcpu<X86>, X86>) {
    let this = per_cpu::id();
    release();
    fetch(vcpu);
    let state = &vcpu.interrupts.vector;
    let supported = SUPPORTED.load(Ordering::Relaxed);
    with_vectors(|| {
        // SAFETY: The area is a page of this object, aligned, and holds what XSAVE wrote or an initial state. XCR0 has
        // only bits that exist. The kernel uses none of these registers.
        unsafe {
            write_xcr0(supported);
            asm!("xrstor64 [{}]", in(reg) state.area.pointer().as_ptr(), in("eax") supported as u32,
                in("edx") (supported >> 32) as u32, options(nostack));
            write_xcr0(state.xcr0.load(Ordering::Relaxed));
        }
    });
    let [dr0, dr1, dr2, dr3] = [0, 1, 2, 3].map(|number: usize| state.dr[number].load(Ordering::Relaxed));
    // SAFETY: No breakpoint is enabled while the host runs: DR7 is the guest's, and reset on exit.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) dr0, in(reg) dr1, in(reg) dr2,
            in(reg) dr3, options(nomem, nostack, preserves_flags));
    }
    set_tsc_aux(state.tsc_aux.load(Ordering::Relaxed));
    state.live_on.store(this, Ordering::Relaxed);
    *OWNERS[this % MAX_CPUS].lock() = Some(vcpu.clone());
}

/// Puts what this CPU has into memory.
pub fn release() {
    let this = per_cpu::id();
    let Some(owner) = OWNERS[this % MAX_CPUS].lock().take() else { return };
    let state = &owner.interrupts.vector;
    let supported = SUPPORTED.load(Ordering::Relaxed);
    with_vectors(|| {
        // SAFETY: As in `switch`; the area is large enough for the supported components.
        unsafe {
            write_xcr0(supported);
            asm!("xsave64 [{}]", in(reg) state.area.pointer().as_ptr(), in("eax") supported as u32,
                in("edx") (supported >> 32) as u32, options(nostack));
        }
    });
    let [dr0, dr1, dr2, dr3]: [u64; 4];
    // SAFETY: Reading debug registers has no effect.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", out(reg) dr0, out(reg) dr1, out(reg) dr2,
            out(reg) dr3, options(nomem, nostack, preserves_flags));
    }
    for (to, value) in state.dr.iter().zip([dr0, dr1, dr2, dr3]) {
        to.store(value, Ordering::Relaxed);
    }
    // Release: whoever sees it finds the state in memory.
    state.live_on.store(IN_MEMORY, Ordering::Release);
}

/// This CPU may be asked for what it has; called where it answers shoot-downs.
#[inline]
pub fn answer() {
    let this = per_cpu::id() % MAX_CPUS;
    if ASKED[this].load(Ordering::Acquire) && ASKED[this].swap(false, Ordering::AcqRel) {
        release();
    }
}

/// Brings a virtual CPU's state into memory, wherever it is.
fn fetch(vcpu: &Vcpu<X86>) {
    let state = &vcpu.interrupts.vector;
    let place = state.live_on.load(Ordering::Acquire);
    if place == IN_MEMORY {
        return;
    }
    if place == per_cpu::id() {
        release();
        return;
    }
    ASKED[place % MAX_CPUS].store(true, Ordering::Release);
    // When the flush is answered this has been, too.
    KERNEL.shoot_down(per_cpu::id(), 1 << place);
}

/// No CPU has anything of it any more.
pub fn retire(vcpu: &Vcpu<X86>) {
    fetch(vcpu);
}

/// Sets XCR0 of the guest whose state is loaded here.
pub fn set_xcr0(state: &VectorState, value: u64) {
    state.xcr0.store(value, Ordering::Relaxed);
    // SAFETY: The caller has checked the value by `is_valid_xcr0`.
    with_vectors(|| unsafe { write_xcr0(value) });
}

/// Sets IA32_TSC_AUX for the guest whose state is loaded here.
pub fn set_tsc_aux(value: u64) {
    if HAS_TSC_AUX.load(Ordering::Relaxed) {
        // SAFETY: The register is there, and the kernel does not use it.
        unsafe { write_msr(IA32_TSC_AUX, value & 0xffff_ffff) };
    }
}

/// Does something that needs these registers within the kernel. Domains keep being without.
fn with_vectors(work: impl FnOnce()) {
    let (cr0, cr4): (u64, u64);
    // SAFETY: Only the traps on floating point and the permission for XSAVE change, and are restored below.
    unsafe {
        asm!("mov {}, cr0", "mov {}, cr4", out(reg) cr0, out(reg) cr4, options(nomem, nostack, preserves_flags));
        asm!("mov cr0, {}", "mov cr4, {}", in(reg) cr0 & !(Cr0::TS | Cr0::EM).bits(),
            in(reg) cr4 | (Cr4::OSXSAVE | Cr4::OSFXSR).bits(), options(nostack, preserves_flags));
    }
    work();
    // SAFETY: The values from before.
    unsafe { asm!("mov cr4, {}", "mov cr0, {}", in(reg) cr4, in(reg) cr0, options(nostack, preserves_flags)) };
}

/// # Safety
/// The value has only bits that exist, by the rules of XSETBV, and CR4.OSXSAVE is set.
unsafe fn write_xcr0(value: u64) {
    // SAFETY: The caller's contract; register 0 is XCR0.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}
