//! PUSH and POP, whose operand or whose stack is device memory.

use crate::cpu::{CodeSize, RSP, SegmentName};
use crate::memory::Memory;
use crate::operand::Execution;
use crate::outcome::Stop;
use crate::paging::Access;
use crate::width::Width;

impl<M: Memory> Execution<'_, M> {
    pub fn push(&mut self) -> Result<(), Stop> {
        let size = self.stack_operand_width()?;
        let source = self.operand(0, Access::Read)?;
        let top = self.moved_stack_pointer(-(size.bytes() as i64));
        let target = self.operand_at(SegmentName::Ss, top, size, Access::Write)?;
        let value = self.load(&source)?;
        self.store(&target, value)?;
        self.cpu.set_general(RSP, self.stack_width(), top);
        Ok(())
    }

    pub fn pop(&mut self) -> Result<(), Stop> {
        let size = self.stack_operand_width()?;
        let old_top = self.cpu.general(RSP) & self.stack_width().mask();
        let source = self.operand_at(SegmentName::Ss, old_top, size, Access::Read)?;
        // A target that RSP addresses is addressed by the new one (SDM 2B, "POP").
        let top = self.moved_stack_pointer(size.bytes() as i64);
        self.cpu.set_general(RSP, self.stack_width(), top);
        let target = self.operand(0, Access::Write)?;
        let value = self.load(&source)?;
        self.store(&target, value)
    }

    fn stack_operand_width(&self) -> Result<Width, Stop> {
        let bytes = self.instruction.stack_pointer_increment().unsigned_abs();
        usize::try_from(bytes).ok().and_then(Width::from_bytes).ok_or(Stop::Unsupported)
    }

    fn moved_stack_pointer(&self, by: i64) -> u64 {
        self.cpu.general(RSP).wrapping_add_signed(by) & self.stack_width().mask()
    }

    /// Part of RSP that is the stack pointer.
    fn stack_width(&self) -> Width {
        match self.cpu.code_size() {
            CodeSize::Bits64 => Width::Qword,
            _ if self.cpu.segment(SegmentName::Ss).is_big() => Width::Dword,
            _ => Width::Word,
        }
    }
}
