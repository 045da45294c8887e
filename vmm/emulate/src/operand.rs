//! The instruction under execution: its operands, resolved to registers and memory.

use dragonfly_hw::x86::control::{Cr0, Rflags};
use iced_x86::{Instruction, OpKind, Register};

use crate::alu::Computed;
use crate::cpu::{Cpu, SegmentName};
use crate::linear::{MAX_BYTES, Span};
use crate::memory::Memory;
use crate::outcome::{Fault, Stop};
use crate::paging::Access;
use crate::segmentation::linear_address;
use crate::width::Width;

/// An instruction, and the registers as it leaves them if it succeeds.
pub struct Execution<'e, M> {
    pub cpu: Cpu,
    pub memory: &'e mut M,
    pub instruction: &'e Instruction,
}

/// An operand whose faults have all been taken.
#[derive(Clone, Debug)]
pub struct Operand {
    pub width: Width,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Register(Register),
    Memory(Span),
    /// Sign-extended as the instruction wants it.
    Immediate(u64),
}

impl<M: Memory> Execution<'_, M> {
    /// Resolves an operand; memory may then be accessed in that way.
    pub fn operand(&mut self, index: u32, access: Access) -> Result<Operand, Stop> {
        match self.instruction.op_kind(index) {
            OpKind::Register => {
                let register = self.instruction.op_register(index);
                let is_supported = register.is_gpr() || (register.is_segment_register() && access == Access::Read);
                if !is_supported {
                    return Err(Stop::Unsupported);
                }
                let width = Width::from_bytes(register.size()).ok_or(Stop::Unsupported)?;
                Ok(Operand { width, place: Place::Register(register) })
            }
            OpKind::Memory => {
                let offset = self.offset(index)?;
                self.memory_operand(offset, access)
            }
            _ => {
                let value = self.instruction.try_immediate(index).map_err(|_| Stop::Unsupported)?;
                Ok(Operand { width: Width::Qword, place: Place::Immediate(value) })
            }
        }
    }

    /// The instruction's memory operand, at this offset of its segment.
    pub fn memory_operand(&mut self, offset: u64, access: Access) -> Result<Operand, Stop> {
        let width = Width::from_bytes(self.instruction.memory_size().size()).ok_or(Stop::Unsupported)?;
        let segment = SegmentName::from_register(self.instruction.memory_segment()).ok_or(Stop::Unsupported)?;
        let span = self.span(segment, offset, width.bytes(), access)?;
        Ok(Operand { width, place: Place::Memory(span) })
    }

    /// An operand on the stack or of a string instruction.
    pub fn operand_at(
        &mut self,
        segment: SegmentName,
        offset: u64,
        width: Width,
        access: Access,
    ) -> Result<Operand, Stop> {
        let span = self.span(segment, offset, width.bytes(), access)?;
        Ok(Operand { width, place: Place::Memory(span) })
    }

    /// Memory that may be accessed in that way.
    pub fn span(&mut self, segment: SegmentName, offset: u64, size: usize, access: Access) -> Result<Span, Stop> {
        let linear = linear_address(&self.cpu, segment, offset, size as u64, access)?;
        let span = Span::new(&self.cpu, self.memory, linear, size, access)?;
        let checks_alignment =
            self.cpu.cpl == 3 && self.cpu.cr0().contains(Cr0::AM) && self.cpu.flags().contains(Rflags::AC);
        if checks_alignment && !linear.is_multiple_of(size as u64) {
            return Err(Fault::ALIGNMENT.into());
        }
        Ok(span)
    }

    /// The offset of a memory operand in its segment.
    pub fn offset(&self, index: u32) -> Result<u64, Stop> {
        let value =
            |register: Register| if register.is_segment_register() { Some(0) } else { self.cpu.register(register) };
        let offset = self.instruction.virtual_address(index, 0, |register, _, _| value(register));
        offset.ok_or(Stop::Unsupported)
    }

    /// The operand's value, within its width.
    pub fn load(&mut self, operand: &Operand) -> Result<u64, Stop> {
        Ok(match &operand.place {
            Place::Register(register) => match SegmentName::from_register(*register) {
                Some(segment) => self.cpu.segment(segment).selector.into(),
                None => self.cpu.register(*register).ok_or(Stop::Unsupported)?,
            },
            Place::Memory(span) => {
                let [a, b, c, d, e, f, g, h, ..] = span.read(self.memory)?;
                u64::from_le_bytes([a, b, c, d, e, f, g, h])
            }
            Place::Immediate(value) => *value,
        })
    }

    /// Writes the operand.
    pub fn store(&mut self, operand: &Operand, value: u64) -> Result<(), Stop> {
        match &operand.place {
            Place::Register(register) => self.cpu.set_register(*register, value).ok_or(Stop::Unsupported),
            Place::Memory(span) => span.write(self.memory, &in_memory(value)),
            Place::Immediate(_) => Err(Stop::Unsupported),
        }
    }

    /// Writes the operand, which was loaded as `current`, in one step with that if the instruction is locked.
    pub fn update(&mut self, operand: &Operand, current: u64, new: u64) -> Result<(), Stop> {
        match &operand.place {
            Place::Memory(span) if self.is_locked() => span.exchange(self.memory, &in_memory(current), &in_memory(new)),
            _ => self.store(operand, new),
        }
    }

    /// Updates the operand and the flags with what was computed.
    pub fn finish(&mut self, operand: &Operand, current: u64, computed: Computed) -> Result<(), Stop> {
        self.update(operand, current, computed.value)?;
        self.cpu.set_flags(computed.changed, computed.flags);
        Ok(())
    }

    /// Whether reading and writing memory is one step: with LOCK, and always in XCHG (SDM 3A, "Bus Locking").
    pub fn is_locked(&self) -> bool {
        self.instruction.has_lock_prefix() || self.instruction.mnemonic() == iced_x86::Mnemonic::Xchg
    }
}

/// A value as it lies in memory, of which the width's bytes are written.
fn in_memory(value: u64) -> [u8; MAX_BYTES] {
    u128::from(value).to_le_bytes()
}
