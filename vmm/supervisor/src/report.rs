//! What a fault was, for people.

use core::fmt;

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{FaultKind, Rights};

/// A fault as its message told it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The label; one that is not known is shown as its number.
    pub(crate) label: u32,
    /// The words, as [`dragonfly_abi::FaultKind`]'s module describes them.
    pub(crate) words: [u64; 4],
}

impl Fault {
    pub(crate) fn kind(&self) -> Option<FaultKind> {
        FaultKind::from_raw(self.label)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [subject, instruction, detail, stack] = self.words;
        match self.kind() {
            Some(FaultKind::PageFault) => {
                let access = match Rights::from_bits_truncate(detail as u32) {
                    Rights::WRITE => "writing",
                    Rights::EXECUTE => "executing",
                    _ => "reading",
                };
                write!(formatter, "page fault {access} {subject:#x}")?;
            }
            Some(FaultKind::IllegalInstruction) => {
                write!(formatter, "illegal instruction (exception {subject}, error code {detail:#x})")?;
            }
            Some(FaultKind::Exception) => write!(formatter, "exception {subject} (error code {detail:#x})")?,
            Some(FaultKind::BudgetExhausted) => formatter.write_str("budget exhausted")?,
            None => write!(formatter, "fault {} ({subject:#x}, {detail:#x})", self.label)?,
        }
        write!(formatter, " at {instruction:#x}, stack {stack:#x}")
    }
}

/// The registers of a thread, in lines that fit on a terminal.
pub(crate) struct Registers(pub(crate) ThreadState);

impl fmt::Display for Registers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.0;
        let lines = [
            [("rax", state.rax), ("rbx", state.rbx), ("rcx", state.rcx), ("rdx", state.rdx)],
            [("rsi", state.rsi), ("rdi", state.rdi), ("rbp", state.rbp), ("rsp", state.rsp)],
            [("r8 ", state.r8), ("r9 ", state.r9), ("r10", state.r10), ("r11", state.r11)],
            [("r12", state.r12), ("r13", state.r13), ("r14", state.r14), ("r15", state.r15)],
        ];
        for line in lines {
            for (name, value) in line {
                write!(formatter, "{name} {value:016x}  ")?;
            }
            formatter.write_str("\n")?;
        }
        write!(formatter, "rip {:016x}  rflags {:x}", state.rip, state.rflags)
    }
}

#[cfg(test)]
mod tests {
    use dragonfly_abi::arch::ThreadState;
    use dragonfly_abi::{FaultKind, Rights};

    use super::{Fault, Registers};

    #[test]
    fn a_fault_is_told_with_what_it_was_about() {
        let told = |label, words| Fault { label, words }.to_string();
        let access =
            |rights: Rights| told(FaultKind::PageFault as u32, [0x10, 0x20_0000, rights.bits().into(), 0x11_0000]);
        assert_eq!(access(Rights::WRITE), "page fault writing 0x10 at 0x200000, stack 0x110000");
        assert_eq!(access(Rights::READ), "page fault reading 0x10 at 0x200000, stack 0x110000");
        assert_eq!(access(Rights::EXECUTE), "page fault executing 0x10 at 0x200000, stack 0x110000");
        assert_eq!(
            told(FaultKind::IllegalInstruction as u32, [6, 0x20_0000, 0, 0]),
            "illegal instruction (exception 6, error code 0x0) at 0x200000, stack 0x0"
        );
        assert_eq!(
            told(FaultKind::Exception as u32, [13, 1, 0x10, 0]),
            "exception 13 (error code 0x10) at 0x1, stack 0x0"
        );
        assert_eq!(told(99, [1, 2, 3, 4]), "fault 99 (0x1, 0x3) at 0x2, stack 0x4");
    }

    #[test]
    fn every_register_is_shown() {
        let state = ThreadState { rax: 0xa, r15: u64::MAX, rip: 0x20_0000, rflags: 0x202, ..ThreadState::default() };
        let text = Registers(state).to_string();
        assert_eq!(text.lines().count(), 5);
        for part in ["rax 000000000000000a", "r15 ffffffffffffffff", "rip 0000000000200000  rflags 202"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
