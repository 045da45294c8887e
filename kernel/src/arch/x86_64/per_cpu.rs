//! What GS points at in the kernel: one CPU's own data.
#![expect(unsafe_code, reason = "GS is the only way to this CPU's data")]

use core::arch::asm;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use dragonfly_abi::MAX_CPUS;

use super::X86;
use super::context::Context;
use super::descriptors::Segments;
use crate::cpu::Cpu;

/// One CPU's own data.
#[repr(C)]
pub struct PerCpu {
    /// The user's stack pointer while SYSCALL's entry saves it.
    scratch: u64,
    /// The current thread's context, or a spare one while there is none.
    context: *const Context,
    /// Top of the kernel's stack, 8 above a multiple of 16: what the entry code pushes brings it to a call's state.
    stack: u64,
    /// Number of the CPU.
    id: usize,
    /// The scheduler.
    cpu: Cpu<X86>,
    /// Segments and task state.
    pub segments: Segments,
    /// Where registers would go if an interrupt came from a domain while none is current. That does not happen.
    spare: Context,
}

/// Offsets for the entry code.
pub mod offset {
    use super::PerCpu;
    use core::mem::offset_of;

    /// Offset of `scratch`.
    pub const SCRATCH: usize = offset_of!(PerCpu, scratch);
    /// Offset of `context`.
    pub const CONTEXT: usize = offset_of!(PerCpu, context);
    /// Offset of `stack`.
    pub const STACK: usize = offset_of!(PerCpu, stack);
    /// Offset of `id`.
    pub const ID: usize = offset_of!(PerCpu, id);
}

impl PerCpu {
    /// Data of a CPU whose stack ends at `stack_top`, a multiple of 16.
    pub fn new(id: usize, stack_top: u64) -> Self {
        Self {
            scratch: 0,
            context: ptr::null(),
            stack: stack_top - 8,
            id,
            cpu: Cpu::new(id),
            segments: Segments::EMPTY,
            spare: <Context as crate::arch::Context>::new(0, 0, 0),
        }
    }

    /// Lets the next interrupt or system call from a domain save its registers in `context`.
    #[inline]
    pub fn set_context(&mut self, context: &Context) {
        if !ptr::eq(self.context, context) {
            self.context = context;
            // The end of the context: the CPU pushes there.
            self.segments.tss.rsp[0] = (&raw const *context).wrapping_add(1) as u64;
        }
    }

    /// Copies registers that were saved elsewhere to where those of the current thread belong.
    pub fn copy_to_context(&mut self, frame: &Context) -> &'static Context {
        // SAFETY: `context` points at the current thread's context, or at the spare one, which both outlive this entry.
        let context = unsafe { &*self.context };
        context.copy_from(frame);
        context
    }

    /// Forgets the current context.
    pub fn set_no_context(&mut self) {
        let spare = &raw const self.spare;
        self.context = spare;
        self.segments.tss.rsp[0] = spare.wrapping_add(1) as u64;
    }

    /// Top of the kernel's stack.
    pub fn stack_top(&self) -> u64 {
        self.stack + 8
    }

    /// The scheduler.
    #[inline]
    pub fn cpu(&mut self) -> &mut Cpu<X86> {
        &mut self.cpu
    }
}

/// Number of this CPU, once [`install`] has run.
#[inline]
pub fn id() -> usize {
    let id: usize;
    // SAFETY: GS points at this CPU's data since before the first lock; `id` never changes.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) id, const offset::ID, options(nostack, readonly, preserves_flags)) };
    id
}

/// This CPU's data.
///
/// # Safety
/// Nobody else on this CPU borrows it: only the functions that the entry code calls use this, each once, and the
/// kernel is not entered again before they leave it.
#[inline]
pub unsafe fn this() -> &'static mut PerCpu {
    let data: *mut PerCpu;
    // SAFETY: GS's base is the address of this CPU's data, which is never freed; see the contract.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) data, const SELF, options(nostack, readonly, preserves_flags));
        &mut *data
    }
}

/// The word before the data: its own address.
const SELF: i32 = -8;

/// A CPU's data behind its own address, so that it can be found through GS.
#[repr(C, align(64))]
pub struct Anchored {
    padding: [u64; 7],
    this: *mut PerCpu,
    data: PerCpu,
}

impl Anchored {
    /// Anchors data; [`Anchored::fix`] must run once it is in its place.
    pub const fn new(data: PerCpu) -> Self {
        Self { padding: [0; 7], this: ptr::null_mut(), data }
    }

    /// Writes down where the data is, and gives it.
    pub fn fix(&'static mut self) -> &'static mut PerCpu {
        self.this = &raw mut self.data;
        self.data.set_no_context();
        &mut self.data
    }
}

/// APIC ID of each CPU.
static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];
/// How many CPUs have come up.
static UP: AtomicUsize = AtomicUsize::new(0);

/// Notes a CPU's APIC ID.
pub fn set_apic_id(cpu: usize, apic_id: u32) {
    APIC_IDS[cpu % MAX_CPUS].store(apic_id, Ordering::Release);
}

/// A CPU's APIC ID.
pub fn apic_id(cpu: usize) -> u32 {
    APIC_IDS[cpu % MAX_CPUS].load(Ordering::Acquire)
}

/// A CPU has come up.
pub fn count_up() {
    UP.fetch_add(1, Ordering::AcqRel);
}

/// How many CPUs have come up.
pub fn count() -> usize {
    UP.load(Ordering::Acquire)
}
