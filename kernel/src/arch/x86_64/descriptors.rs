//! Segments, task state and interrupt gates.

use dragonfly_hw::x86::descriptor::{
    InterruptGate, KERNEL_CODE, KERNEL_DATA, TSS_SIZE, Tss64, USER_CODE, USER_DATA, tss_descriptor,
};

/// Kernel code.
pub const KERNEL_CODE_SELECTOR: u16 = 0x08;
/// Kernel data; SYSCALL wants it right behind the code (SDM 2B, SYSCALL).
pub const KERNEL_DATA_SELECTOR: u16 = 0x10;
/// User data; SYSRET wants it right before the code.
pub const USER_DATA_SELECTOR: u16 = 0x18 | 3;
/// User code.
pub const USER_CODE_SELECTOR: u16 = 0x20 | 3;
/// Task state.
pub const TSS_SELECTOR: u16 = 0x28;

/// Interrupt stack of double faults.
pub const IST_DOUBLE_FAULT: u8 = 1;
/// Interrupt stack of non-maskable interrupts.
pub const IST_NMI: u8 = 2;
/// Interrupt stack of machine checks.
pub const IST_MACHINE_CHECK: u8 = 3;
/// Interrupt stack of debug traps: a single step over SYSCALL may trap at the entry, on the domain's stack.
pub const IST_DEBUG: u8 = 4;
/// How many interrupt stacks there are.
pub const INTERRUPT_STACKS: usize = 4;

/// Value of IA32_STAR: SYSCALL loads CS from bits 47:32 and SS from 8 above; SYSRET loads CS from 16 above bits 63:48
/// and SS from 8 above.
pub const STAR: u64 = (0x10 | 3) << 48 | (KERNEL_CODE_SELECTOR as u64) << 32;

/// One CPU's segments.
#[repr(C, align(16))]
pub struct Segments {
    /// The global descriptor table.
    pub gdt: [u64; 7],
    /// The task state segment.
    pub tss: Tss64,
}

impl Segments {
    /// Segments without a task state.
    pub const EMPTY: Self = Self { gdt: [0, KERNEL_CODE, KERNEL_DATA, USER_DATA, USER_CODE, 0, 0], tss: Tss64::EMPTY };

    /// Sets the interrupt stacks, by their tops, and lets the table point at the task state, which stays in place.
    pub fn set_up(&mut self, interrupt_stack_tops: [u64; INTERRUPT_STACKS]) {
        let mut ist = [0; 7];
        ist[..INTERRUPT_STACKS].copy_from_slice(&interrupt_stack_tops);
        self.tss.ist = ist;
        let [low, high] = tss_descriptor(&raw const self.tss as u64, u32::from(TSS_SIZE) - 1);
        self.gdt[5] = low;
        self.gdt[6] = high;
    }
}

/// The interrupt descriptor table, the same for all CPUs.
#[repr(C, align(16))]
pub struct InterruptTable(pub [InterruptGate; 256]);

/// Operand of LGDT and LIDT (SDM 3A, "Pseudo-Descriptor Formats").
#[derive(Debug)]
#[repr(C, packed(2))]
pub struct TablePointer {
    /// Size of the table in bytes, less one.
    pub limit: u16,
    /// Its address.
    pub base: u64,
}

const _: () = assert!(size_of::<TablePointer>() == 10);
