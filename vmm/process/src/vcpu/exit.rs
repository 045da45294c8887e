//! Exits, from words to values.

use dragonfly_abi::Status;
use dragonfly_abi::guest::{ExitReason, Instruction, MemoryAccess, PortAccess};
use dragonfly_emulate::EmulateError;
use dragonfly_rt::sys::RawExit;

/// Why a vCPU came back from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Somebody wants the thread.
    Kicked,
    /// An access to an I/O port, with the value of an output that is no string.
    Port(PortAccess, u32),
    /// An access to memory that is not mapped, at this guest-physical address.
    Memory(u64, MemoryAccess),
    /// CPUID of a leaf and sub-leaf that the table does not have.
    Cpuid,
    /// RDMSR.
    MsrRead(u32),
    /// WRMSR.
    MsrWrite(u32, u64),
    /// A hypercall.
    Hypercall,
    /// The end of a level-triggered interrupt with this vector.
    ApicEoi(u8),
    /// INIT.
    Init,
    /// A start-up message with this vector.
    Startup(u8),
    /// INVD.
    Invd,
    /// An instruction that the guest may not execute with these operands.
    Protected,
    /// An instruction that the guest does not have.
    Undefined,
    /// The guest cannot go on.
    Fatal(Fatal),
}

/// Why a guest cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fatal {
    /// A fault while a double fault was delivered.
    #[error("a triple fault")]
    TripleFault,
    /// A task switch.
    #[error("a task switch, which the machine does not have, to selector {selector:#x} ({detail:#x})")]
    TaskSwitch {
        /// Selector of the task.
        selector: u64,
        /// What the hardware says.
        detail: u64,
    },
    /// State that cannot run.
    #[error("state that the processor refuses to run (reason {0:#x})")]
    EntryFailed(u64),
    /// An access to a control register.
    #[error("an access to a control register that the machine does not have ({0:#x})")]
    ControlRegister(u64),
    /// A machine check.
    #[error("a machine check")]
    MachineCheck,
    /// RAM for which the machine has no frame left.
    #[error("no memory left for guest-physical address {0:#x}: give the VMM more by `memory` in bundle.toml")]
    OutOfMemory(u64),
    /// The kernel refuses to run it.
    #[error("the kernel's refusal to run it: {0}")]
    Run(Status),
    /// An instruction that is to be skipped and cannot be read.
    #[error("an instruction whose bytes cannot be read")]
    UnknownLength,
    /// An instruction that only an emulation could execute.
    #[error(transparent)]
    Emulate(#[from] EmulateError),
    /// An exit that the kernel does not know.
    #[error("exit {number:#x} of the processor, which nobody knows ({details:#x?})")]
    UnknownExit {
        /// The hardware's number.
        number: u64,
        /// What it says.
        details: [u64; 2],
    },
    /// An exit that the VMM does not know.
    #[error("exit reason {reason} of the kernel, which the VMM does not know ({details:#x?})")]
    UnknownReason {
        /// The reason.
        reason: u32,
        /// Its details.
        details: [u64; 3],
    },
}

impl From<RawExit> for Exit {
    #[inline]
    fn from(raw: RawExit) -> Self {
        let RawExit { reason, details: [a, b, c], .. } = raw;
        let Some(known) = ExitReason::from_raw(reason) else {
            return Self::Fatal(Fatal::UnknownReason { reason, details: raw.details });
        };
        match known {
            ExitReason::Kicked => Self::Kicked,
            ExitReason::Port => Self::Port(PortAccess(a), b as u32),
            ExitReason::Memory => Self::Memory(a, MemoryAccess(b)),
            ExitReason::Cpuid => Self::Cpuid,
            ExitReason::MsrRead => Self::MsrRead(a as u32),
            ExitReason::MsrWrite => Self::MsrWrite(a as u32, b),
            ExitReason::Hypercall => Self::Hypercall,
            ExitReason::ApicEoi => Self::ApicEoi(a as u8),
            ExitReason::Init => Self::Init,
            ExitReason::Startup => Self::Startup(a as u8),
            ExitReason::Shutdown => Self::Fatal(Fatal::TripleFault),
            ExitReason::TaskSwitch => Self::Fatal(Fatal::TaskSwitch { selector: a, detail: b }),
            ExitReason::EntryFailed => Self::Fatal(Fatal::EntryFailed(a)),
            ExitReason::Instruction => instruction(a, b),
            ExitReason::Unknown => Self::Fatal(Fatal::UnknownExit { number: a, details: [b, c] }),
            ExitReason::MachineCheck => Self::Fatal(Fatal::MachineCheck),
        }
    }
}

fn instruction(instruction: u64, detail: u64) -> Exit {
    const CONTROL_REGISTER: u64 = Instruction::ControlRegister as u64;
    const XSETBV: u64 = Instruction::Xsetbv as u64;
    const INVD: u64 = Instruction::Invd as u64;
    match instruction {
        CONTROL_REGISTER => Exit::Fatal(Fatal::ControlRegister(detail)),
        XSETBV => Exit::Protected,
        INVD => Exit::Invd,
        // MONITOR, MWAIT and RDPMC too: the CPUID table does not have them.
        _ => Exit::Undefined,
    }
}

#[cfg(test)]
mod tests {
    use dragonfly_abi::Rights;
    use dragonfly_abi::guest::{ExitReason, Instruction, MemoryAccess, PortAccess};
    use dragonfly_rt::sys::RawExit;

    use super::{Exit, Fatal};

    fn exit(reason: ExitReason, details: [u64; 3]) -> Exit {
        RawExit { reason: reason as u32, length: 0, details }.into()
    }

    #[test]
    fn each_exit_is_told_with_what_it_is_about() {
        let access = PortAccess::new(0x3f8, 1, false);
        let write = MemoryAccess::new(Rights::WRITE, 3, true, true);
        let cases = [
            (exit(ExitReason::Port, [access.0, 0x41, 0]), Exit::Port(access, 0x41)),
            (exit(ExitReason::Memory, [0xfec0_0000, write.0, 0]), Exit::Memory(0xfec0_0000, write)),
            (exit(ExitReason::MsrRead, [0x1a0, 0, 0]), Exit::MsrRead(0x1a0)),
            (exit(ExitReason::MsrWrite, [0x4b56_4d01, 7, 0]), Exit::MsrWrite(0x4b56_4d01, 7)),
            (exit(ExitReason::ApicEoi, [0x31, 0, 0]), Exit::ApicEoi(0x31)),
            (exit(ExitReason::Startup, [0x9a, 0, 0]), Exit::Startup(0x9a)),
            (exit(ExitReason::Shutdown, [0; 3]), Exit::Fatal(Fatal::TripleFault)),
            (exit(ExitReason::EntryFailed, [33, 0, 0]), Exit::Fatal(Fatal::EntryFailed(33))),
            (exit(ExitReason::Unknown, [1, 2, 3]), Exit::Fatal(Fatal::UnknownExit { number: 1, details: [2, 3] })),
        ];
        for (told, wanted) in cases {
            assert_eq!(told, wanted);
        }
    }

    #[test]
    fn an_unknown_reason_is_a_value_too() {
        let raw = RawExit { reason: 99, length: 0, details: [1, 2, 3] };
        assert_eq!(Exit::from(raw), Exit::Fatal(Fatal::UnknownReason { reason: 99, details: [1, 2, 3] }));
    }

    #[test]
    fn instructions_are_answered_as_the_guest_expects() {
        let cases = [
            (Instruction::ControlRegister, Exit::Fatal(Fatal::ControlRegister(5))),
            (Instruction::Xsetbv, Exit::Protected),
            (Instruction::Invd, Exit::Invd),
            (Instruction::Undefined, Exit::Undefined),
            (Instruction::Other, Exit::Undefined),
        ];
        for (instruction, wanted) in cases {
            assert_eq!(exit(ExitReason::Instruction, [instruction as u64, 5, 0]), wanted);
        }
    }
}
