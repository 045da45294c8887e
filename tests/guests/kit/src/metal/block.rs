//! What each CPU has: stacks, segments, and a place for what happens to it.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};

use super::smp::MAX_CPUS;
use super::trap::Trap;

/// Selectors. The user's are in the order that SYSRET wants (SDM 2B, SYSRET).
pub const CODE_64: u16 = 8;
/// Data for privilege level 0.
pub const DATA: u16 = 16;
/// 32-bit code for privilege level 0.
pub const CODE_32: u16 = 24;
/// 32-bit code for privilege level 3.
pub const USER_CODE_32: u16 = 32 | 3;
/// Data for privilege level 3.
pub const USER_DATA: u16 = 40 | 3;
/// 64-bit code for privilege level 3.
pub const USER_CODE: u16 = 48 | 3;
/// Task state.
pub const TSS: u16 = 56;
/// 16-bit code for privilege level 0.
pub const CODE_16: u16 = 72;
/// Data with a limit of 64 KiB.
pub const DATA_16: u16 = 80;
/// Descriptors for tests to set, up to the table's end.
pub const SPARE: u16 = 88;

const DESCRIPTORS: usize = 16;

/// Stack of NMIs, of double faults, and of exceptions of programs, each by its end in the block.
const NMI_STACK: u64 = 0x4000;
const DOUBLE_FAULT_STACK: u64 = 0x6000;
const STACK_FROM_USER: u64 = 0x8000;

/// Limit of the task state without a permission map for ports.
const TSS_LIMIT: u64 = 103;

/// 64 KiB, of which the last half is the stack.
#[repr(C, align(0x1_0000))]
pub(super) struct Block {
    pub(super) gdt: UnsafeCell<[u64; DESCRIPTORS]>,
    pub(super) tss: UnsafeCell<[u32; 26]>,
    /// Where the stack was when a guarded call began, 0 outside.
    pub(super) slot: AtomicU64,
    /// What ended it.
    pub(super) trap: UnsafeCell<Trap>,
    /// Function that is shown exceptions and NMIs first.
    pub(super) hook: AtomicUsize,
    /// Interrupts that came, in their order, and how many.
    pub(super) log: [AtomicU8; 256],
    pub(super) logged: AtomicUsize,
    pub(super) counts: [AtomicU32; 256],
    /// Whether interrupts end without being told to.
    pub(super) ends_itself: AtomicBool,
    /// In which interrupts are ended, where the hypervisor sets bit 0 for that.
    pub(super) end_word: AtomicU32,
    /// Work for this CPU.
    pub(super) work: AtomicUsize,
    pub(super) argument: AtomicU64,
    pub(super) is_up: AtomicBool,
}

// SAFETY: the cells are changed by the CPU that the block belongs to only.
unsafe impl Sync for Block {}

impl Block {
    const fn new() -> Self {
        Self {
            gdt: UnsafeCell::new([0; DESCRIPTORS]),
            tss: UnsafeCell::new([0; 26]),
            slot: AtomicU64::new(0),
            trap: UnsafeCell::new(Trap::NONE),
            hook: AtomicUsize::new(0),
            log: [const { AtomicU8::new(0) }; 256],
            logged: AtomicUsize::new(0),
            counts: [const { AtomicU32::new(0) }; 256],
            ends_itself: AtomicBool::new(true),
            end_word: AtomicU32::new(0),
            work: AtomicUsize::new(0),
            argument: AtomicU64::new(0),
            is_up: AtomicBool::new(false),
        }
    }
}

pub(super) static BLOCKS: [Block; MAX_CPUS] = [const { Block::new() }; MAX_CPUS];

/// The number of the CPU that runs this: by its stack.
pub fn this_cpu() -> usize {
    let stack: usize;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) stack, options(nomem, nostack, preserves_flags)) };
    stack.wrapping_sub((&raw const BLOCKS).addr()) >> 16
}

/// This CPU's block.
pub(super) fn this() -> &'static Block {
    &BLOCKS[this_cpu() % MAX_CPUS]
}

/// A descriptor of this CPU's table.
pub fn descriptor(selector: u16) -> u64 {
    // SAFETY: only this CPU changes it, and not now.
    let table = unsafe { &*this().gdt.get() };
    table[usize::from(selector / 8) % DESCRIPTORS]
}

/// Sets a descriptor of this CPU's table.
pub fn set_descriptor(selector: u16, value: u64) {
    // SAFETY: only this CPU changes it, and no reference to it is kept.
    let table = unsafe { &mut *this().gdt.get() };
    // SAFETY: as above; volatile, as the CPU reads the table unseen by the compiler.
    unsafe { (&raw mut table[usize::from(selector / 8) % DESCRIPTORS]).write_volatile(value) };
}

/// Makes the task state end early, or gives it back its length.
pub fn set_tss_limit(limit: Option<u64>) {
    let address = this().tss.get().addr() as u64;
    let limit = limit.unwrap_or(TSS_LIMIT);
    let low = limit | (address & 0xff_ffff) << 16 | 0x89 << 40 | (address >> 24 & 0xff) << 56;
    set_descriptor(TSS, low);
    set_descriptor(TSS + 8, address >> 32);
    // SAFETY: the descriptor is that of this CPU's task state.
    unsafe { asm!("ltr {0:x}", in(reg) TSS) };
}

/// Gives this CPU its segments.
pub(super) fn load() {
    let block = this();
    for (selector, value) in [
        (CODE_64, 0x00af_9b00_0000_ffff),
        (DATA, 0x00cf_9300_0000_ffff),
        (CODE_32, 0x00cf_9b00_0000_ffff),
        (USER_CODE_32, 0x00cf_fb00_0000_ffff),
        (USER_DATA, 0x00cf_f300_0000_ffff),
        (USER_CODE, 0x00af_fb00_0000_ffff),
        (CODE_16, 0x0000_9b00_0000_ffff),
        (DATA_16, 0x0000_9300_0000_ffff),
    ] {
        set_descriptor(selector, value);
    }
    // SAFETY: only this CPU changes it, and no reference to it is kept.
    let tss = unsafe { &mut *block.tss.get() };
    let start = core::ptr::from_ref(block).addr() as u64;
    // RSP0, IST1, IST2 (SDM 3A, "64-Bit TSS Format"); no permission map.
    for (word, value) in [(1, STACK_FROM_USER), (9, NMI_STACK), (11, DOUBLE_FAULT_STACK)] {
        tss[word] = (start + value) as u32;
    }
    tss[25] = 104 << 16;
    let pointer = [0xffff_u16, 0, 0, 0, 0];
    let table = pseudo_descriptor(block.gdt.get().addr() as u64, (DESCRIPTORS * 8 - 1) as u16, pointer);
    // SAFETY: the table has what the segment registers hold.
    unsafe { asm!("lgdt [{}]", "lldt {:x}", in(reg) &raw const table, in(reg) 0) };
    set_tss_limit(None);
}

/// What LGDT and LIDT take.
pub(super) fn pseudo_descriptor(base: u64, limit: u16, mut words: [u16; 5]) -> [u16; 5] {
    words[0] = limit;
    for (index, word) in words[1..].iter_mut().enumerate() {
        *word = (base >> (16 * index)) as u16;
    }
    words
}
