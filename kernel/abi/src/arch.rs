//! How calls, thread state and guest state look on an architecture.

pub mod guest;

/// x86-64.
///
/// A call is `SYSCALL` with the number in RAX and the words in RDI, RSI, RDX, R10, R8, R9. It gives back the status in
/// RAX and six words in the same registers. RCX and R11 are clobbered (SDM 2B, SYSCALL); RBX, RBP, RSP and R12 to R15
/// are kept. A thread starts with its argument in RDI and every other register but RIP, RSP and RFLAGS zero.
pub mod x86_64 {
    use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

    /// The general registers of a thread.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
    #[repr(C)]
    #[expect(missing_docs, reason = "the registers have their own names")]
    pub struct ThreadState {
        pub rax: u64,
        pub rbx: u64,
        pub rcx: u64,
        pub rdx: u64,
        pub rsi: u64,
        pub rdi: u64,
        pub rbp: u64,
        pub rsp: u64,
        pub r8: u64,
        pub r9: u64,
        pub r10: u64,
        pub r11: u64,
        pub r12: u64,
        pub r13: u64,
        pub r14: u64,
        pub r15: u64,
        pub rip: u64,
        pub rflags: u64,
    }

    /// Size of [`ThreadState`] in a message's data.
    pub const THREAD_STATE_SIZE: usize = size_of::<ThreadState>();

    const _: () = assert!(THREAD_STATE_SIZE == 144);
}

pub use x86_64::{THREAD_STATE_SIZE, ThreadState};
