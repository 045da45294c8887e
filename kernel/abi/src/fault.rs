//! Faults of a thread, delivered as messages to its fault gate.
//!
//! The label is a [`FaultKind`]; `w0` the address that was accessed (page fault) or the architecture's exception
//! number (others), `w1` the instruction pointer, `w2` the kind of access as in [`Rights`](crate::Rights) READ, WRITE
//! and EXECUTE (page fault) or the architecture's error code, `w3` the stack pointer. The data is the thread's
//! [`ThreadState`](crate::arch::ThreadState). The badge is the one given with the fault gate.

/// Why a thread stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FaultKind {
    /// An access to an address where nothing is mapped, or not with that right.
    PageFault = 1,
    /// An instruction that the CPU refuses: undefined, privileged, or floating point in a domain without it.
    IllegalInstruction = 2,
    /// A division by zero, a breakpoint or another exception of the architecture.
    Exception = 3,
    /// The budget of the period is used up (only threads that asked for it).
    BudgetExhausted = 4,
}

impl FaultKind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::PageFault,
            2 => Self::IllegalInstruction,
            3 => Self::Exception,
            4 => Self::BudgetExhausted,
            _ => return None,
        })
    }
}

/// What is to become of a faulted thread: the label of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FaultReply {
    /// Goes on where it stopped: the instruction runs again.
    Resume = 0,
    /// Goes on with the [`ThreadState`](crate::arch::ThreadState) in the reply's data.
    ResumeWith = 1,
    /// Ends. Any other label does the same.
    End = 2,
}
