//! Instructions that exchange a register with memory.

use dragonfly_hw::x86::control::Rflags;
use iced_x86::Code;

use crate::alu::{Binary, binary};
use crate::cpu::{RAX, RBX, RCX, RDX, SegmentName};
use crate::memory::Memory;
use crate::operand::Execution;
use crate::outcome::{Fault, Stop};
use crate::paging::Access;
use crate::width::Width;

impl<M: Memory> Execution<'_, M> {
    /// XCHG.
    pub fn exchange(&mut self) -> Result<(), Stop> {
        let (a, b) = (self.operand(0, Access::Write)?, self.operand(1, Access::Write)?);
        let (old_a, old_b) = (self.load(&a)?, self.load(&b)?);
        self.update(&a, old_a, old_b)?;
        self.update(&b, old_b, old_a)
    }

    /// XADD.
    pub fn exchange_and_add(&mut self) -> Result<(), Stop> {
        let (target, source) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let (old, addend) = (self.load(&target)?, self.load(&source)?);
        // The register first: if both are the same one, the sum is what stays.
        self.store(&source, old)?;
        self.finish(&target, old, binary(Binary::Add, target.width, old, addend, false))
    }

    /// CMPXCHG. Memory is written even if the comparison fails, with what it held.
    pub fn compare_exchange(&mut self) -> Result<(), Stop> {
        let (target, source) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let (old, new) = (self.load(&target)?, self.load(&source)?);
        let expected = self.cpu.general(RAX) & target.width.mask();
        let comparison = binary(Binary::Sub, target.width, expected, old, false);
        if expected == old {
            self.update(&target, old, new)?;
        } else {
            self.update(&target, old, old)?;
            self.cpu.set_general(RAX, target.width, old);
        }
        self.cpu.set_flags(comparison.changed, comparison.flags);
        Ok(())
    }

    /// CMPXCHG8B and CMPXCHG16B: RDX:RAX with memory, which gets RCX:RBX. Only ZF changes.
    pub fn compare_exchange_pair(&mut self) -> Result<(), Stop> {
        let half = if self.instruction.code() == Code::Cmpxchg16b_m128 { Width::Qword } else { Width::Dword };
        let segment = SegmentName::from_register(self.instruction.memory_segment()).ok_or(Stop::Unsupported)?;
        let offset = self.offset(0)?;
        let span = self.span(segment, offset, 2 * half.bytes(), Access::Write)?;
        if half == Width::Qword && !span.is_aligned_to(2 * half.bytes() as u64) {
            return Err(Fault::GENERAL_PROTECTION.into());
        }
        let current = span.read(self.memory)?;
        let old = u128::from_le_bytes(current);
        let pair = |low: usize, high: usize| {
            let part = |number| u128::from(self.cpu.general(number) & half.mask());
            part(low) | part(high) << half.bits()
        };
        let (expected, replacement) = (pair(RAX, RDX), pair(RBX, RCX));
        let is_equal = expected == old;
        let new = if is_equal { replacement } else { old }.to_le_bytes();
        if self.is_locked() {
            span.exchange(self.memory, &current, &new)?;
        } else {
            span.write(self.memory, &new)?;
        }
        if !is_equal {
            self.cpu.set_general(RAX, half, old as u64);
            self.cpu.set_general(RDX, half, (old >> half.bits()) as u64);
        }
        self.cpu.set_flags(Rflags::ZF, if is_equal { Rflags::ZF } else { Rflags::empty() });
        Ok(())
    }
}
