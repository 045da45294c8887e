//! A thread's registers, in the form in which the entry code saves and restores them.

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

/// Registers of a thread: words in the order of [`place`].
///
/// The CPU pushes the last five words itself on an interrupt from a domain: TSS.RSP0 points at the end of the current
/// thread's context. After SYSCALL only the registers that a call keeps are valid; a result fills in the others.
#[repr(C, align(16))]
pub struct Context([AtomicU64; 22]);

macro_rules! places {
    ($($name:ident $place:literal)*) => {
        /// Which word of a context is which register.
        mod place {
            $(pub const $name: usize = $place;)*
        }

        /// Offsets of a context's words, for the entry code.
        pub mod offset {
            $(
                #[doc = concat!("Offset of `", stringify!($name), "`.")]
                pub const $name: usize = $place * 8;
            )*
        }
    };
}

places! {
    R15 0  R14 1  R13 2  R12 3  RBP 4  RBX 5  R11 6  R10 7  R9 8  R8 9  RDI 10  RSI 11  RDX 12  RCX 13  RAX 14  ENTRY 15
    ERROR_CODE 16  RIP 17  CS 18  RFLAGS 19  RSP 20  SS 21
}

// The interrupt entry pushes from the end down, and the CPU aligns the stack to 16 bytes before it pushes.
const _: () = assert!(size_of::<Context>() == 176 && align_of::<Context>() == 16);

impl Context {
    #[inline]
    fn get(&self, place: usize) -> u64 {
        self.0[place].load(Relaxed)
    }

    #[inline]
    fn set(&self, place: usize, value: u64) {
        self.0[place].store(value, Relaxed);
    }

    /// Vector of the interrupt or exception that brought the thread into the kernel, or [`ENTRY_SYSCALL`].
    pub fn entry(&self) -> u64 {
        self.get(place::ENTRY)
    }

    /// Error code of the exception.
    pub fn error_code(&self) -> u64 {
        self.get(place::ERROR_CODE)
    }

    /// Whether the registers are a domain's.
    pub fn is_from_domain(&self) -> bool {
        self.get(place::CS) & 3 != 0
    }

    /// Lets the code that was interrupted go on without single steps.
    pub fn end_single_step(&self) {
        self.set(place::RFLAGS, self.get(place::RFLAGS) & !Rflags::TF.bits());
    }

    /// Takes over all registers of another context.
    pub fn copy_from(&self, from: &Self) {
        for (to, from) in self.0.iter().zip(&from.0) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    /// Instruction pointer.
    pub fn rip(&self) -> u64 {
        self.get(place::RIP)
    }
}

impl arch::Context for Context {
    fn new(entry: u64, stack: u64, argument: u64) -> Self {
        let context = Self([const { AtomicU64::new(0) }; 22]);
        context.set(place::RDI, argument);
        context.set(place::RIP, entry);
        context.set(place::CS, u64::from(USER_CODE_SELECTOR));
        context.set(place::RFLAGS, RUNNING_RFLAGS);
        context.set(place::RSP, stack);
        context.set(place::SS, u64::from(USER_DATA_SELECTOR));
        context
    }

    #[inline]
    fn set_results(&self, status: Status, words: [u64; 6]) {
        let [w0, w1, w2, w3, w4, w5] = words;
        self.set(place::RAX, status as u64);
        self.set(place::RDI, w0);
        self.set(place::RSI, w1);
        self.set(place::RDX, w2);
        self.set(place::R10, w3);
        self.set(place::R8, w4);
        self.set(place::R9, w5);
    }

    fn enter_guest(&self) {
        self.set(place::ENTRY, ENTRY_GUEST);
    }

    fn leave_guest(&self) {
        self.set(place::ENTRY, ENTRY_SYSCALL);
    }

    fn is_in_guest(&self) -> bool {
        self.entry() == ENTRY_GUEST
    }

    fn state(&self) -> ThreadState {
        ThreadState {
            rax: self.get(place::RAX),
            rbx: self.get(place::RBX),
            rcx: self.get(place::RCX),
            rdx: self.get(place::RDX),
            rsi: self.get(place::RSI),
            rdi: self.get(place::RDI),
            rbp: self.get(place::RBP),
            rsp: self.get(place::RSP),
            r8: self.get(place::R8),
            r9: self.get(place::R9),
            r10: self.get(place::R10),
            r11: self.get(place::R11),
            r12: self.get(place::R12),
            r13: self.get(place::R13),
            r14: self.get(place::R14),
            r15: self.get(place::R15),
            rip: self.get(place::RIP),
            rflags: self.get(place::RFLAGS),
        }
    }

    fn set_state(&self, state: &ThreadState) {
        self.set(place::RAX, state.rax);
        self.set(place::RBX, state.rbx);
        self.set(place::RCX, state.rcx);
        self.set(place::RDX, state.rdx);
        self.set(place::RSI, state.rsi);
        self.set(place::RDI, state.rdi);
        self.set(place::RBP, state.rbp);
        self.set(place::RSP, state.rsp);
        self.set(place::R8, state.r8);
        self.set(place::R9, state.r9);
        self.set(place::R10, state.r10);
        self.set(place::R11, state.r11);
        self.set(place::R12, state.r12);
        self.set(place::R13, state.r13);
        self.set(place::R14, state.r14);
        self.set(place::R15, state.r15);
        // IRET to an address that is not canonical would fault in the kernel; address 0 faults in the domain.
        self.set(place::RIP, if state.rip < USER_END { state.rip } else { 0 });
        self.set(place::RFLAGS, state.rflags & USER_RFLAGS | RUNNING_RFLAGS);
    }
}
