//! Bit tests (SDM 2A, "BT" and the following).

use dragonfly_hw::x86::control::Rflags;
use iced_x86::{OpKind, Register};

use crate::alu::Computed;
use crate::memory::Memory;
use crate::operand::Execution;
use crate::outcome::Stop;
use crate::paging::Access;

/// What becomes of the bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitChange {
    Keep,
    Set,
    Reset,
    Complement,
}

impl<M: Memory> Execution<'_, M> {
    /// Copies a bit to CF and changes it. The other flags, undefined but for ZF, stay.
    pub fn bit_test(&mut self, change: BitChange) -> Result<(), Stop> {
        let access = if change == BitChange::Keep { Access::Read } else { Access::Write };
        let selector = self.operand(1, Access::Read)?;
        let position = self.load(&selector)?;
        let is_far = self.instruction.op0_kind() == OpKind::Memory && self.instruction.op1_kind() == OpKind::Register;
        let target = if is_far {
            // The position is signed and selects any bit of memory, in units of the operand's width.
            let bits = u64::from(selector.width.bits());
            let unit = (selector.width.sign_extend(position) as i64).div_euclid(bits as i64) as u64;
            let distance = unit.wrapping_mul(selector.width.bytes() as u64);
            let offset = self.offset(0)?.wrapping_add(distance) & self.address_mask();
            self.memory_operand(offset, access)?
        } else {
            self.operand(0, access)?
        };
        let value = self.load(&target)?;
        let bit = 1 << (position % u64::from(target.width.bits()));
        let new = match change {
            BitChange::Keep => value,
            BitChange::Set => value | bit,
            BitChange::Reset => value & !bit,
            BitChange::Complement => value ^ bit,
        };
        let flags = if value & bit == 0 { Rflags::empty() } else { Rflags::CF };
        let computed = Computed { value: new, flags, changed: Rflags::CF };
        if change == BitChange::Keep {
            self.cpu.set_flags(computed.changed, computed.flags);
            return Ok(());
        }
        self.finish(&target, value, computed)
    }

    /// The bits that an offset has in the instruction's address size.
    fn address_mask(&self) -> u64 {
        let (base, index) = (self.instruction.memory_base(), self.instruction.memory_index());
        let register = if base == Register::None { index } else { base };
        let bytes = match register {
            Register::None => self.instruction.memory_displ_size() as usize,
            register => register.size(),
        };
        match bytes {
            2 => 0xffff,
            4 => 0xffff_ffff,
            _ => u64::MAX,
        }
    }
}
