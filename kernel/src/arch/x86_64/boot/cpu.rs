//! What each CPU needs before it schedules: its stacks and data, its tables, its registers.
#![expect(unsafe_code, reason = "it loads the registers that everything else rests on")]

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr;

use dragonfly_hw::x86::control::Cr4;
use dragonfly_hw::x86::descriptor::InterruptGate;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::msr::{
    Efer, IA32_EFER, IA32_FMASK, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_LSTAR, IA32_PAT, IA32_STAR, PAT_RESET,
};
use dragonfly_memory::{FrameUse, PAGE_SIZE, PhysicalMemory};
use spin::Once;

use super::handoff::features;
use crate::arch::x86_64::descriptors::{
    INTERRUPT_STACKS, IST_DEBUG, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_NMI, InterruptTable, KERNEL_CODE_SELECTOR,
    KERNEL_DATA_SELECTOR, STAR, TSS_SELECTOR, TablePointer,
};
use crate::arch::x86_64::features::Features;
use crate::arch::x86_64::per_cpu::{self, Anchored, PerCpu};
use crate::arch::x86_64::{FRAMES, X86, apic, entry, kernel_space, registers};

/// Bytes of a CPU's kernel stack.
const STACK_SIZE: u64 = if cfg!(debug_assertions) { 96 << 10 } else { 32 << 10 };
/// Bytes of an interrupt stack.
const INTERRUPT_STACK_SIZE: u64 = 8 << 10;
/// RFLAGS bits that SYSCALL clears: interrupts, direction, trap, alignment check, nested task, I/O privilege.
const SYSCALL_FLAGS: u64 = 0x200 | 0x400 | 0x100 | 0x4_0000 | 0x4000 | 0x3000;

static INTERRUPT_TABLE: Once<InterruptTable> = Once::new();

/// Lets the page tables use no-execute and global pages.
pub fn enable_paging_features(features: Features) {
    // SAFETY: The CPU has each of these; the loader's tables stay valid under them.
    unsafe {
        registers::write_msr(IA32_EFER, features.efer().bits());
        asm!("mov cr4, {}", in(reg) features.cr4().bits(), options(nostack));
        asm!("mov cr0, {}", in(reg) Features::cr0().bits(), options(nostack));
        registers::write_msr(IA32_PAT, PAT_RESET);
    }
}

/// Register values for CPUs that start.
pub struct ControlRegisters {
    /// CR4 on the way to long mode.
    pub cr4_at_start: u64,
    /// EFER.
    pub efer: u64,
    /// CR0.
    pub cr0: u64,
}

/// Register values for CPUs that start.
pub fn control_registers() -> ControlRegisters {
    let features = features();
    let efer = features.efer() & !Efer::LMA;
    ControlRegisters { cr4_at_start: Cr4::PAE.bits(), efer: efer.bits(), cr0: Features::cr0().bits() }
}

/// Makes a CPU's data and stacks.
pub fn new_per_cpu(id: usize) -> Option<&'static mut PerCpu> {
    let mut tops = [0; INTERRUPT_STACKS];
    let stack = kernel_space::new_stack(id, 0, STACK_SIZE)?;
    for (number, top) in tops.iter_mut().enumerate() {
        *top = kernel_space::new_stack(id, number as u64 + 1, INTERRUPT_STACK_SIZE)?;
    }
    let bytes = size_of::<Anchored>() as u64;
    let order = bytes.div_ceil(PAGE_SIZE).next_power_of_two().trailing_zeros();
    let place = FRAMES.lock().alloc(order, 0, FrameUse::Kernel)?;
    let place = X86.pointer(place).cast::<MaybeUninit<Anchored>>();
    // SAFETY: The block is fresh, large and aligned enough, and never given back.
    let anchored = unsafe { (*place.as_ptr()).write(Anchored::new(PerCpu::new(id, stack))) };
    let this = anchored.fix();
    this.segments.set_up(tops);
    Some(this)
}

/// Top of a CPU's kernel stack.
pub fn stack_of(this: &PerCpu) -> u64 {
    this.stack_top()
}

/// Loads a CPU's segments, interrupt table, system call entry and APIC.
pub fn set_up_cpu(this: &mut PerCpu) {
    enable_paging_features(features());
    let gdt =
        TablePointer { limit: (size_of_val(&this.segments.gdt) - 1) as u16, base: this.segments.gdt.as_ptr() as u64 };
    let idt = INTERRUPT_TABLE.get().map_or(ptr::null(), ptr::from_ref);
    let idt = TablePointer { limit: (size_of::<InterruptTable>() - 1) as u16, base: idt as u64 };
    // SAFETY: Both tables live for ever and hold what the selectors name. GS is set after the selectors, which clear
    // its base. SYSCALL's registers name kernel code.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:x}",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov fs, {null:x}",
            "mov gs, {null:x}",
            "ltr {tss:x}",
            "lidt [{idt}]",
            "lldt {null:x}",
            gdt = in(reg) &gdt,
            idt = in(reg) &idt,
            code = const KERNEL_CODE_SELECTOR,
            data = in(reg) KERNEL_DATA_SELECTOR,
            null = in(reg) 0u64,
            tss = in(reg) TSS_SELECTOR,
            scratch = out(reg) _,
        );
        registers::write_msr(IA32_GS_BASE, ptr::from_mut(this) as u64);
        registers::write_msr(IA32_KERNEL_GS_BASE, 0);
        registers::write_msr(IA32_STAR, STAR);
        registers::write_msr(IA32_LSTAR, entry::syscall_entry());
        registers::write_msr(IA32_FMASK, SYSCALL_FLAGS);
    }
    let apic_id = apic::enable();
    per_cpu::set_apic_id(per_cpu::id(), apic_id);
    per_cpu::count_up();
}

/// Makes the table that all CPUs share.
pub fn fill_interrupt_table() {
    INTERRUPT_TABLE.call_once(|| {
        let mut gates = [InterruptGate::ABSENT; 256];
        for (vector, gate) in (0..=u8::MAX).zip(&mut gates) {
            let ist = match Exception::from_vector(vector) {
                Some(Exception::Debug) => IST_DEBUG,
                Some(Exception::DoubleFault) => IST_DOUBLE_FAULT,
                Some(Exception::Nmi) => IST_NMI,
                Some(Exception::MachineCheck) => IST_MACHINE_CHECK,
                _ => 0,
            };
            // INT3 and INTO are for domains too; other gates would be a way to forge exceptions.
            let dpl = match Exception::from_vector(vector) {
                Some(Exception::Breakpoint | Exception::Overflow) => 3,
                _ => 0,
            };
            *gate = InterruptGate::new(entry::interrupt_stub(vector), KERNEL_CODE_SELECTOR, ist, dpl);
        }
        InterruptTable(gates)
    });
}
