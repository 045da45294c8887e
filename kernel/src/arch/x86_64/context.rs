//! A thread's registers, in the form in which the entry code saves and restores them.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{Status, USER_END};
use dragonfly_hw::x86::control::Rflags;

use super::descriptors::{USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use crate::arch;

/// Value of [`Context::entry`] for a thread that entered the kernel by SYSCALL; else it is the vector.
pub const ENTRY_SYSCALL: u64 = 0x100;

/// Value of [`Context::entry`] for a thread that goes on in the guest that it runs.
pub const ENTRY_GUEST: u64 = 0x101;

/// RFLAGS bits that a domain may choose: the arithmetic flags, direction, trap, alignment check and ID.
const USER_RFLAGS: u64 = Rflags::CF.bits()
    | Rflags::PF.bits()
    | Rflags::AF.bits()
    | Rflags::ZF.bits()
    | Rflags::SF.bits()
    | Rflags::TF.bits()
    | Rflags::DF.bits()
    | Rflags::OF.bits()
    | Rflags::RF.bits()
    | Rflags::AC.bits()
    | Rflags::ID.bits();
/// RFLAGS bits that are set whenever a domain runs.
const RUNNING_RFLAGS: u64 = Rflags::FIXED.bits() | Rflags::IF.bits();

/// Registers of a thread.
///
/// The CPU pushes the last five words itself on an interrupt from a domain: TSS.RSP0 points at the end of the current
/// thread's context. After SYSCALL only the registers that a call keeps are valid; a result fills in the others.
#[repr(C, align(16))]
pub struct Context {
    r15: AtomicU64,
    r14: AtomicU64,
    r13: AtomicU64,
    r12: AtomicU64,
    rbp: AtomicU64,
    rbx: AtomicU64,
    r11: AtomicU64,
    r10: AtomicU64,
    r9: AtomicU64,
    r8: AtomicU64,
    rdi: AtomicU64,
    rsi: AtomicU64,
    rdx: AtomicU64,
    rcx: AtomicU64,
    rax: AtomicU64,
    entry: AtomicU64,
    error_code: AtomicU64,
    rip: AtomicU64,
    cs: AtomicU64,
    rflags: AtomicU64,
    rsp: AtomicU64,
    ss: AtomicU64,
}

/// Offsets of a context's fields, for the entry code.
pub mod offset {
    use super::{Context, offset_of};

    macro_rules! offsets {
        ($($name:ident $field:ident)*) => { $(
            #[doc = concat!("Offset of `", stringify!($field), "`.")]
            pub const $name: usize = offset_of!(Context, $field);
        )* };
    }

    offsets! {
        R15 r15  R14 r14  R13 r13  R12 r12  RBP rbp  RBX rbx  R11 r11  R10 r10  R9 r9  R8 r8  RDI rdi  RSI rsi  RDX rdx
        RCX rcx  RAX rax  ENTRY entry  RIP rip  RFLAGS rflags  RSP rsp
    }
    /// Size of a context.
    pub const SIZE: usize = size_of::<Context>();
}

// The interrupt entry pushes from the end down, and the CPU aligns the stack to 16 bytes before it pushes.
const _: () = {
    assert!(offset::SIZE == 176 && align_of::<Context>() == 16);
    assert!(offset::ENTRY == 120 && offset::RIP == 136);
};

impl Context {
    /// Vector of the interrupt or exception that brought the thread into the kernel, or [`ENTRY_SYSCALL`].
    pub fn entry(&self) -> u64 {
        self.entry.load(Relaxed)
    }

    /// Error code of the exception.
    pub fn error_code(&self) -> u64 {
        self.error_code.load(Relaxed)
    }

    /// Whether the registers are a domain's.
    pub fn is_from_domain(&self) -> bool {
        self.cs.load(Relaxed) & 3 != 0
    }

    /// Lets the code that was interrupted go on without single steps.
    pub fn end_single_step(&self) {
        self.rflags.store(self.rflags.load(Relaxed) & !Rflags::TF.bits(), Relaxed);
    }

    /// Takes over all registers of another context.
    pub fn copy_from(&self, from: &Self) {
        for (to, from) in self.words().into_iter().zip(from.words()) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    fn words(&self) -> [&AtomicU64; 22] {
        [
            &self.r15,
            &self.r14,
            &self.r13,
            &self.r12,
            &self.rbp,
            &self.rbx,
            &self.r11,
            &self.r10,
            &self.r9,
            &self.r8,
            &self.rdi,
            &self.rsi,
            &self.rdx,
            &self.rcx,
            &self.rax,
            &self.entry,
            &self.error_code,
            &self.rip,
            &self.cs,
            &self.rflags,
            &self.rsp,
            &self.ss,
        ]
    }

    /// Instruction pointer.
    pub fn rip(&self) -> u64 {
        self.rip.load(Relaxed)
    }
}

impl arch::Context for Context {
    fn new(entry: u64, stack: u64, argument: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            r15: zero(),
            r14: zero(),
            r13: zero(),
            r12: zero(),
            rbp: zero(),
            rbx: zero(),
            r11: zero(),
            r10: zero(),
            r9: zero(),
            r8: zero(),
            rdi: AtomicU64::new(argument),
            rsi: zero(),
            rdx: zero(),
            rcx: zero(),
            rax: zero(),
            entry: zero(),
            error_code: zero(),
            rip: AtomicU64::new(entry),
            cs: AtomicU64::new(u64::from(USER_CODE_SELECTOR)),
            rflags: AtomicU64::new(RUNNING_RFLAGS),
            rsp: AtomicU64::new(stack),
            ss: AtomicU64::new(u64::from(USER_DATA_SELECTOR)),
        }
    }

    #[inline]
    fn set_results(&self, status: Status, words: [u64; 6]) {
        let [w0, w1, w2, w3, w4, w5] = words;
        self.rax.store(status as u64, Relaxed);
        self.rdi.store(w0, Relaxed);
        self.rsi.store(w1, Relaxed);
        self.rdx.store(w2, Relaxed);
        self.r10.store(w3, Relaxed);
        self.r8.store(w4, Relaxed);
        self.r9.store(w5, Relaxed);
    }

    fn enter_guest(&self) {
        self.entry.store(ENTRY_GUEST, Relaxed);
    }

    fn leave_guest(&self) {
        self.entry.store(ENTRY_SYSCALL, Relaxed);
    }

    fn is_in_guest(&self) -> bool {
        self.entry() == ENTRY_GUEST
    }

    fn state(&self) -> ThreadState {
        ThreadState {
            rax: self.rax.load(Relaxed),
            rbx: self.rbx.load(Relaxed),
            rcx: self.rcx.load(Relaxed),
            rdx: self.rdx.load(Relaxed),
            rsi: self.rsi.load(Relaxed),
            rdi: self.rdi.load(Relaxed),
            rbp: self.rbp.load(Relaxed),
            rsp: self.rsp.load(Relaxed),
            r8: self.r8.load(Relaxed),
            r9: self.r9.load(Relaxed),
            r10: self.r10.load(Relaxed),
            r11: self.r11.load(Relaxed),
            r12: self.r12.load(Relaxed),
            r13: self.r13.load(Relaxed),
            r14: self.r14.load(Relaxed),
            r15: self.r15.load(Relaxed),
            rip: self.rip.load(Relaxed),
            rflags: self.rflags.load(Relaxed),
        }
    }

    fn set_state(&self, state: &ThreadState) {
        self.rax.store(state.rax, Relaxed);
        self.rbx.store(state.rbx, Relaxed);
        self.rcx.store(state.rcx, Relaxed);
        self.rdx.store(state.rdx, Relaxed);
        self.rsi.store(state.rsi, Relaxed);
        self.rdi.store(state.rdi, Relaxed);
        self.rbp.store(state.rbp, Relaxed);
        self.rsp.store(state.rsp, Relaxed);
        self.r8.store(state.r8, Relaxed);
        self.r9.store(state.r9, Relaxed);
        self.r10.store(state.r10, Relaxed);
        self.r11.store(state.r11, Relaxed);
        self.r12.store(state.r12, Relaxed);
        self.r13.store(state.r13, Relaxed);
        self.r14.store(state.r14, Relaxed);
        self.r15.store(state.r15, Relaxed);
        // IRET to an address that is not canonical would fault in the kernel; address 0 faults in the domain.
        self.rip.store(if state.rip < USER_END { state.rip } else { 0 }, Relaxed);
        self.rflags.store(state.rflags & USER_RFLAGS | RUNNING_RFLAGS, Relaxed);
    }
}
