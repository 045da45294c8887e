//! String instructions, one iteration at a time (SDM 1, "String Operations"; SDM 2B, "REP").

use dragonfly_hw::x86::control::Rflags;
use iced_x86::{Code, Instruction, OpKind};

use crate::alu::{Binary, binary};
use crate::cpu::{Cpu, RAX, RCX, RDI, RDX, RSI, SegmentName};
use crate::memory::{Memory, Ports};
use crate::operand::{Execution, Operand};
use crate::outcome::Stop;
use crate::paging::Access;
use crate::width::Width;

/// A string instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StringInstruction {
    kind: Kind,
    width: Width,
    /// Width of offsets and of the counter.
    address: Width,
    repeat: Repeat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Movs,
    Cmps,
    Scas,
    Lods,
    Stos,
    Ins,
    Outs,
}

/// The repeat prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repeat {
    Never,
    /// RCX times.
    Count,
    /// RCX times, but only while ZF is this.
    CountWhile {
        zero: bool,
    },
}

impl StringInstruction {
    /// The instruction as a string instruction, if it is one.
    pub fn decode(instruction: &Instruction) -> Option<Self> {
        let (kind, width) = match instruction.code() {
            Code::Movsb_m8_m8 => (Kind::Movs, Width::Byte),
            Code::Movsw_m16_m16 => (Kind::Movs, Width::Word),
            Code::Movsd_m32_m32 => (Kind::Movs, Width::Dword),
            Code::Movsq_m64_m64 => (Kind::Movs, Width::Qword),
            Code::Cmpsb_m8_m8 => (Kind::Cmps, Width::Byte),
            Code::Cmpsw_m16_m16 => (Kind::Cmps, Width::Word),
            Code::Cmpsd_m32_m32 => (Kind::Cmps, Width::Dword),
            Code::Cmpsq_m64_m64 => (Kind::Cmps, Width::Qword),
            Code::Scasb_AL_m8 => (Kind::Scas, Width::Byte),
            Code::Scasw_AX_m16 => (Kind::Scas, Width::Word),
            Code::Scasd_EAX_m32 => (Kind::Scas, Width::Dword),
            Code::Scasq_RAX_m64 => (Kind::Scas, Width::Qword),
            Code::Lodsb_AL_m8 => (Kind::Lods, Width::Byte),
            Code::Lodsw_AX_m16 => (Kind::Lods, Width::Word),
            Code::Lodsd_EAX_m32 => (Kind::Lods, Width::Dword),
            Code::Lodsq_RAX_m64 => (Kind::Lods, Width::Qword),
            Code::Stosb_m8_AL => (Kind::Stos, Width::Byte),
            Code::Stosw_m16_AX => (Kind::Stos, Width::Word),
            Code::Stosd_m32_EAX => (Kind::Stos, Width::Dword),
            Code::Stosq_m64_RAX => (Kind::Stos, Width::Qword),
            Code::Insb_m8_DX => (Kind::Ins, Width::Byte),
            Code::Insw_m16_DX => (Kind::Ins, Width::Word),
            Code::Insd_m32_DX => (Kind::Ins, Width::Dword),
            Code::Outsb_DX_m8 => (Kind::Outs, Width::Byte),
            Code::Outsw_DX_m16 => (Kind::Outs, Width::Word),
            Code::Outsd_DX_m32 => (Kind::Outs, Width::Dword),
            _ => return None,
        };
        let address = [instruction.op0_kind(), instruction.op1_kind()].into_iter().find_map(|kind| match kind {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(Width::Word),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(Width::Dword),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(Width::Qword),
            _ => None,
        })?;
        let compares = matches!(kind, Kind::Cmps | Kind::Scas);
        let repeat = match (instruction.has_repe_prefix(), instruction.has_repne_prefix()) {
            (false, false) => Repeat::Never,
            (is_equal, _) if compares => Repeat::CountWhile { zero: is_equal },
            _ => Repeat::Count,
        };
        Some(Self { kind, width, address, repeat })
    }

    /// The port and the width of the access to it, of INS and OUTS.
    pub fn port(self, cpu: &Cpu) -> Option<(u16, Width)> {
        matches!(self.kind, Kind::Ins | Kind::Outs).then(|| (cpu.general(RDX) as u16, self.width))
    }
}

impl<M: Memory + Ports> Execution<'_, M> {
    /// Whether there is nothing to do at all, as the counter is 0.
    pub fn is_string_over(&self, string: StringInstruction) -> bool {
        string.repeat != Repeat::Never && self.cpu.general(RCX) & string.address.mask() == 0
    }

    /// Executes one iteration, and says whether it was the last.
    pub fn string_iteration(&mut self, string: StringInstruction) -> Result<bool, Stop> {
        match string.kind {
            Kind::Movs => {
                let (source, target) = (self.source(string)?, self.target(string, Access::Write)?);
                let value = self.load(&source)?;
                self.store(&target, value)?;
                self.advance(string, RSI);
                self.advance(string, RDI);
            }
            Kind::Cmps => {
                let (source, target) = (self.source(string)?, self.target(string, Access::Read)?);
                let (a, b) = (self.load(&source)?, self.load(&target)?);
                self.compare_elements(string, a, b);
                self.advance(string, RSI);
                self.advance(string, RDI);
            }
            Kind::Scas => {
                let target = self.target(string, Access::Read)?;
                let value = self.load(&target)?;
                self.compare_elements(string, self.cpu.general(RAX), value);
                self.advance(string, RDI);
            }
            Kind::Lods => {
                let source = self.source(string)?;
                let value = self.load(&source)?;
                self.cpu.set_general(RAX, string.width, value);
                self.advance(string, RSI);
            }
            Kind::Stos => {
                let target = self.target(string, Access::Write)?;
                self.store(&target, self.cpu.general(RAX))?;
                self.advance(string, RDI);
            }
            Kind::Ins => {
                let target = self.target(string, Access::Write)?;
                let value = self.input(self.cpu.general(RDX) as u16, string.width);
                self.store(&target, value)?;
                self.advance(string, RDI);
            }
            Kind::Outs => {
                let source = self.source(string)?;
                let value = self.load(&source)?;
                self.output(self.cpu.general(RDX) as u16, string.width, value);
                self.advance(string, RSI);
            }
        }
        Ok(self.count(string))
    }

    /// Reads a port.
    pub fn input(&mut self, port: u16, width: Width) -> u64 {
        let mut bytes = [0; 8];
        self.memory.input(port, bytes.get_mut(..width.bytes()).unwrap_or_default());
        u64::from_le_bytes(bytes)
    }

    /// Writes a port.
    pub fn output(&mut self, port: u16, width: Width, value: u64) {
        self.memory.output(port, value.to_le_bytes().get(..width.bytes()).unwrap_or_default());
    }
}

impl<M: Memory> Execution<'_, M> {
    /// Memory at RSI, in DS or the segment that a prefix names.
    fn source(&mut self, string: StringInstruction) -> Result<Operand, Stop> {
        let segment = SegmentName::from_register(self.instruction.memory_segment()).ok_or(Stop::Unsupported)?;
        let offset = self.cpu.general(RSI) & string.address.mask();
        self.operand_at(segment, offset, string.width, Access::Read)
    }

    /// Memory at RDI, always in ES.
    fn target(&mut self, string: StringInstruction, access: Access) -> Result<Operand, Stop> {
        let offset = self.cpu.general(RDI) & string.address.mask();
        self.operand_at(SegmentName::Es, offset, string.width, access)
    }

    /// Moves an index register to the next element.
    fn advance(&mut self, string: StringInstruction, register: usize) {
        let size = string.width.bytes() as u64;
        let step = if self.cpu.flags().contains(Rflags::DF) { size.wrapping_neg() } else { size };
        self.cpu.set_general(register, string.address, self.cpu.general(register).wrapping_add(step));
    }

    fn compare_elements(&mut self, string: StringInstruction, a: u64, b: u64) {
        let computed = binary(Binary::Sub, string.width, a, b, false);
        self.cpu.set_flags(computed.changed, computed.flags);
    }

    /// Counts an iteration, and says whether it was the last.
    fn count(&mut self, string: StringInstruction) -> bool {
        if string.repeat == Repeat::Never {
            return true;
        }
        let left = self.cpu.general(RCX).wrapping_sub(1);
        self.cpu.set_general(RCX, string.address, left);
        let is_zero = self.cpu.flags().contains(Rflags::ZF);
        let goes_on = !matches!(string.repeat, Repeat::CountWhile { zero } if zero != is_zero);
        !goes_on || left & string.address.mask() == 0
    }
}
