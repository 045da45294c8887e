//! Exceptions as values.

use core::arch::{asm, global_asm};
use core::sync::atomic::Ordering::Relaxed;

use super::block::{CODE_64, DATA, pseudo_descriptor, this};
use super::{cpu, finish, interrupts, playground, put_serial_in_order};
use crate::print;

global_asm!(include_str!("trap.s"), trap = sym trap);

unsafe extern "C" {
    static trap_entries: u8;
    static guarded_end: u8;
    fn guarded_call(function: extern "C" fn(usize), argument: usize, slot: *mut u64) -> u64;
    #[link_name = "enter_user"]
    fn enter(rip: u64, rsp: u64, rflags: u64, cs: u64, ss: u64) -> !;
}

/// What the entry code and the CPU have pushed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "the registers have their own names")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// An exception.
#[derive(Clone, Copy, Debug)]
pub struct Trap {
    /// What the handler was entered with.
    pub frame: Frame,
    /// CR2 then.
    pub cr2: u64,
    /// DR6 then.
    pub dr6: u64,
}

impl Trap {
    // SAFETY: numbers may be zero.
    pub(super) const NONE: Self = unsafe { core::mem::zeroed() };
}

#[repr(C, align(16))]
struct Idt([u64; 512]);

static mut TABLE: Idt = Idt([0; 512]);

/// Fills the table that all CPUs share.
pub(super) fn build() {
    let entries = (&raw const trap_entries).addr() as u64;
    for vector in 0..256 {
        let entry = entries + 16 * vector;
        // Stacks of their own for NMIs and double faults; programs may use vectors 3, 4 and from 0x80 on.
        let stack = match vector {
            2 => 1,
            8 => 2,
            _ => 0,
        };
        let privilege = if vector == 3 || vector == 4 || vector >= 0x80 { 3 } else { 0 };
        set_gate(vector as u8, entry, stack, 0x8e | privilege << 5);
    }
}

/// Sets the gate of a vector: type and presence as in its byte 5.
fn set_gate(vector: u8, entry: u64, stack: u64, kind: u64) {
    let low = entry & 0xffff | u64::from(CODE_64) << 16 | stack << 32 | kind << 40 | (entry >> 16 & 0xffff) << 48;
    let table = (&raw mut TABLE).cast::<u64>();
    // SAFETY: the table has two words for each of 256 vectors.
    unsafe {
        table.add(usize::from(vector) * 2).write_volatile(low);
        table.add(usize::from(vector) * 2 + 1).write_volatile(entry >> 32);
    }
}

/// Makes the gate of a vector present or not, for all CPUs.
pub fn set_gate_present(vector: u8, is_present: bool) {
    let word = (&raw mut TABLE).cast::<u64>();
    // SAFETY: as above.
    unsafe {
        let word = word.add(usize::from(vector) * 2);
        let others = word.read_volatile() & !(1 << 47);
        word.write_volatile(others | u64::from(is_present) << 47);
    }
}

/// Makes the gate of a vector use a stack of the task state, or none if 0, for all CPUs.
pub fn set_gate_stack(vector: u8, stack: u64) {
    let word = (&raw mut TABLE).cast::<u64>();
    // SAFETY: as above.
    unsafe {
        let word = word.add(usize::from(vector) * 2);
        let others = word.read_volatile() & !(7 << 32);
        word.write_volatile(others | stack << 32);
    }
}

/// Gives this CPU the table.
pub(super) fn load() {
    let table = pseudo_descriptor((&raw const TABLE).addr() as u64, 0xfff, [0; 5]);
    // SAFETY: the table is complete.
    unsafe { asm!("lidt [{}]", in(reg) &raw const table) };
}

/// Loads an IDTR of this base and limit; `None`: the usual one.
pub fn set_idt(table: Option<(u64, u16)>) {
    match table {
        Some((base, limit)) => {
            let table = pseudo_descriptor(base, limit, [0; 5]);
            // SAFETY: the caller knows what comes of it.
            unsafe { asm!("lidt [{}]", in(reg) &raw const table) };
        }
        None => load(),
    }
}

/// Shows exceptions and NMIs of this CPU to `hook` first. If it gives true, the program goes on by the frame.
pub fn set_hook(hook: Option<fn(&mut Frame) -> bool>) {
    this().hook.store(hook.map_or(0, |hook| hook as usize), Relaxed);
}

extern "C" fn trap(frame: &mut Frame) {
    let block = this();
    if frame.vector >= 32 {
        return interrupts::arrived(block, frame.vector as u8);
    }
    let hook = block.hook.load(Relaxed);
    if hook != 0 {
        // SAFETY: `set_hook` has stored it.
        let hook = unsafe { core::mem::transmute::<usize, fn(&mut Frame) -> bool>(hook) };
        if hook(frame) {
            return;
        }
    }
    let slot = block.slot.load(Relaxed);
    if frame.vector == 2 {
        return interrupts::arrived_unmaskable(block);
    }
    let seen = Trap { frame: *frame, cr2: cpu::cr2(), dr6: cpu::dr6() };
    if slot == 0 {
        put_serial_in_order();
        let Frame { vector, error, rip, cs, rsp, .. } = *frame;
        print!("[check] fail exception: vector {vector}, error {error:#x}, at {cs:#x}:{rip:#x}, stack {rsp:#x}, ");
        print!("cr2 {:#x}\n", seen.cr2);
        finish();
    }
    // SAFETY: this CPU's own, and nothing refers to it now.
    unsafe { block.trap.get().write_volatile(seen) };
    frame.rip = (&raw const guarded_end).addr() as u64;
    frame.rsp = slot;
    (frame.cs, frame.ss) = (CODE_64.into(), DATA.into());
    frame.rflags = 2;
}

/// Calls `function`; gives the exception that ended it, if one did. What it has written by then may or may not be seen.
pub fn catch<T, F: FnMut() -> T>(mut function: F) -> Option<Trap> {
    extern "C" fn call<T, F: FnMut() -> T>(function: usize) {
        // SAFETY: the address of the function below, which lives until the call is over.
        let _ = unsafe { (*core::ptr::with_exposed_provenance_mut::<F>(function))() };
    }
    let block = this();
    let flags = cpu::flags();
    let argument = (&raw mut function).expose_provenance();
    // SAFETY: the slot is this CPU's, and guarded calls are not nested. An exception leaves the function where it is: it
    // owns nothing that would have to be dropped.
    let has_ended_early = unsafe { guarded_call(call::<T, F>, argument, block.slot.as_ptr()) } != 0;
    cpu::set_flags(flags);
    // SAFETY: the handler has written it.
    has_ended_early.then(|| unsafe { block.trap.get().read_volatile() })
}

/// Whether `function` ends by the exception `vector` with this error code.
///
/// # Errors
/// It does not, or by another.
pub fn faults<T, F: FnMut() -> T>(what: &'static str, vector: u64, error: u64, function: F) -> super::Check {
    match catch(function) {
        // All ones: no exception.
        None => super::equal(what, u64::MAX, vector),
        Some(trap) => {
            super::equal(what, trap.frame.vector, vector)?;
            super::equal(what, trap.frame.error, error)
        }
    }
}

/// Goes to another privilege level or mode, at the address and with the stack and segments given.
pub fn enter_user(rip: u64, rsp: u64, rflags: u64, cs: u16, ss: u16) -> ! {
    // SAFETY: what runs there comes back by an exception.
    unsafe { enter(rip, rsp, rflags, cs.into(), ss.into()) }
}

/// Runs code as a program until it causes an exception; gives that. `data` is at [`playground::USER_DATA`].
pub fn run_user(code: &[u8], cs: u16, flags: u64) -> Option<Trap> {
    playground::prepare_user(code);
    catch(|| enter_user(playground::USER_CODE, playground::USER_STACK, flags | 2, cs, super::USER_DATA))
}
