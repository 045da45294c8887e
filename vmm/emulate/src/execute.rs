//! Which instruction does what.

use dragonfly_hw::x86::control::Rflags;
use iced_x86::{ConditionCode, Mnemonic, OpKind};

use crate::alu::{Binary, Unary, binary, multiply, unary};
use crate::bits::BitChange;
use crate::cpu::{RAX, RDX};
use crate::memory::{Memory, Ports};
use crate::operand::Execution;
use crate::outcome::Stop;
use crate::paging::Access;
use crate::shift::{DoubleShift, Shift, double_shift, shift};
use crate::width::Width;

impl<M: Memory + Ports> Execution<'_, M> {
    /// Executes any instruction but a string instruction.
    pub fn execute(&mut self) -> Result<(), Stop> {
        match self.instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movnti => self.convert(|_, value| value),
            Mnemonic::Movsx | Mnemonic::Movsxd => self.convert(|width, value| width.sign_extend(value)),
            Mnemonic::Movbe => self.convert(|width, value| value.swap_bytes() >> (64 - width.bits())),
            Mnemonic::Xchg => self.exchange(),
            Mnemonic::Xadd => self.exchange_and_add(),
            Mnemonic::Cmpxchg => self.compare_exchange(),
            Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b => self.compare_exchange_pair(),
            Mnemonic::Push => self.push(),
            Mnemonic::Pop => self.pop(),

            Mnemonic::Add => self.binary(Binary::Add),
            Mnemonic::Adc => self.binary(Binary::Adc),
            Mnemonic::Sub => self.binary(Binary::Sub),
            Mnemonic::Sbb => self.binary(Binary::Sbb),
            Mnemonic::And => self.binary(Binary::And),
            Mnemonic::Or => self.binary(Binary::Or),
            Mnemonic::Xor => self.binary(Binary::Xor),
            Mnemonic::Cmp => self.compare(Binary::Sub),
            Mnemonic::Test => self.compare(Binary::And),
            Mnemonic::Inc => self.unary(Unary::Inc),
            Mnemonic::Dec => self.unary(Unary::Dec),
            Mnemonic::Neg => self.unary(Unary::Neg),
            Mnemonic::Not => self.unary(Unary::Not),

            Mnemonic::Imul => self.multiply(),

            Mnemonic::Shl | Mnemonic::Sal => self.shift(Shift::Shl),
            Mnemonic::Shr => self.shift(Shift::Shr),
            Mnemonic::Sar => self.shift(Shift::Sar),
            Mnemonic::Rol => self.shift(Shift::Rol),
            Mnemonic::Ror => self.shift(Shift::Ror),
            Mnemonic::Rcl => self.shift(Shift::Rcl),
            Mnemonic::Rcr => self.shift(Shift::Rcr),
            Mnemonic::Shld => self.double_shift(DoubleShift::Left),
            Mnemonic::Shrd => self.double_shift(DoubleShift::Right),

            Mnemonic::Bt => self.bit_test(BitChange::Keep),
            Mnemonic::Bts => self.bit_test(BitChange::Set),
            Mnemonic::Btr => self.bit_test(BitChange::Reset),
            Mnemonic::Btc => self.bit_test(BitChange::Complement),

            Mnemonic::In => self.port_input(),
            Mnemonic::Out => self.port_output(),
            Mnemonic::Seta
            | Mnemonic::Setae
            | Mnemonic::Setb
            | Mnemonic::Setbe
            | Mnemonic::Sete
            | Mnemonic::Setg
            | Mnemonic::Setge
            | Mnemonic::Setl
            | Mnemonic::Setle
            | Mnemonic::Setne
            | Mnemonic::Setno
            | Mnemonic::Setnp
            | Mnemonic::Setns
            | Mnemonic::Seto
            | Mnemonic::Setp
            | Mnemonic::Sets => self.set_if(),
            Mnemonic::Cmova
            | Mnemonic::Cmovae
            | Mnemonic::Cmovb
            | Mnemonic::Cmovbe
            | Mnemonic::Cmove
            | Mnemonic::Cmovg
            | Mnemonic::Cmovge
            | Mnemonic::Cmovl
            | Mnemonic::Cmovle
            | Mnemonic::Cmovne
            | Mnemonic::Cmovno
            | Mnemonic::Cmovnp
            | Mnemonic::Cmovns
            | Mnemonic::Cmovo
            | Mnemonic::Cmovp
            | Mnemonic::Cmovs => self.move_if(),
            _ => Err(Stop::Unsupported),
        }
    }

    /// The port and the width of the access to it, of IN and OUT.
    pub fn port(&self) -> Option<(u16, Width)> {
        let (port, accumulator) = match self.instruction.mnemonic() {
            Mnemonic::In => (1, 0),
            Mnemonic::Out => (0, 1),
            _ => return None,
        };
        let width = Width::from_bytes(self.instruction.op_register(accumulator).size())?;
        let port = match self.instruction.op_kind(port) {
            OpKind::Register => self.cpu.general(RDX) as u16,
            _ => self.instruction.immediate8().into(),
        };
        Some((port, width))
    }

    /// A move that converts the value of the source, which has this width.
    fn convert(&mut self, convert: impl FnOnce(Width, u64) -> u64) -> Result<(), Stop> {
        let (target, source) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let value = self.load(&source)?;
        self.store(&target, convert(source.width, value))
    }

    fn binary(&mut self, operation: Binary) -> Result<(), Stop> {
        let (target, source) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let (a, b) = (self.load(&target)?, self.load(&source)?);
        let carry = self.cpu.flags().contains(Rflags::CF);
        self.finish(&target, a, binary(operation, target.width, a, b, carry))
    }

    /// As [`Self::binary`], but only the flags are kept.
    fn compare(&mut self, operation: Binary) -> Result<(), Stop> {
        let (first, second) = (self.operand(0, Access::Read)?, self.operand(1, Access::Read)?);
        let (a, b) = (self.load(&first)?, self.load(&second)?);
        let computed = binary(operation, first.width, a, b, false);
        self.cpu.set_flags(computed.changed, computed.flags);
        Ok(())
    }

    fn unary(&mut self, operation: Unary) -> Result<(), Stop> {
        let target = self.operand(0, Access::Write)?;
        let value = self.load(&target)?;
        self.finish(&target, value, unary(operation, target.width, value))
    }

    /// IMUL with a register for the result, which is a factor, too, unless there are two others.
    fn multiply(&mut self) -> Result<(), Stop> {
        let factors = match self.instruction.op_count() {
            2 => [0, 1],
            3 => [1, 2],
            _ => return Err(Stop::Unsupported),
        };
        let target = self.operand(0, Access::Write)?;
        let [a, b] = [self.operand(factors[0], Access::Read)?, self.operand(factors[1], Access::Read)?];
        let (a, b) = (self.load(&a)?, self.load(&b)?);
        self.finish(&target, a, multiply(target.width, a, b))
    }

    fn shift(&mut self, operation: Shift) -> Result<(), Stop> {
        let (target, count) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let (value, count) = (self.load(&target)?, self.load(&count)?);
        let carry = self.cpu.flags().contains(Rflags::CF);
        self.finish(&target, value, shift(operation, target.width, value, count, carry))
    }

    fn double_shift(&mut self, operation: DoubleShift) -> Result<(), Stop> {
        let (target, fill) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let count = self.operand(2, Access::Read)?;
        let (value, fill, count) = (self.load(&target)?, self.load(&fill)?, self.load(&count)?);
        self.finish(&target, value, double_shift(operation, target.width, value, fill, count))
    }

    /// SETcc.
    fn set_if(&mut self) -> Result<(), Stop> {
        let holds = self.condition().ok_or(Stop::Unsupported)?;
        let target = self.operand(0, Access::Write)?;
        self.store(&target, holds.into())
    }

    /// CMOVcc. The source is read whether or not it is kept, and a 32-bit target loses its upper half either way.
    fn move_if(&mut self) -> Result<(), Stop> {
        let holds = self.condition().ok_or(Stop::Unsupported)?;
        let (target, source) = (self.operand(0, Access::Write)?, self.operand(1, Access::Read)?);
        let (old, new) = (self.load(&target)?, self.load(&source)?);
        self.store(&target, if holds { new } else { old })
    }

    /// Whether the instruction's condition holds; `None` if it has none.
    fn condition(&self) -> Option<bool> {
        let flag = |flag| self.cpu.flags().contains(flag);
        let less = flag(Rflags::SF) != flag(Rflags::OF);
        Some(match self.instruction.condition_code() {
            ConditionCode::None => return None,
            ConditionCode::o => flag(Rflags::OF),
            ConditionCode::no => !flag(Rflags::OF),
            ConditionCode::b => flag(Rflags::CF),
            ConditionCode::ae => !flag(Rflags::CF),
            ConditionCode::e => flag(Rflags::ZF),
            ConditionCode::ne => !flag(Rflags::ZF),
            ConditionCode::be => flag(Rflags::CF) || flag(Rflags::ZF),
            ConditionCode::a => !flag(Rflags::CF) && !flag(Rflags::ZF),
            ConditionCode::s => flag(Rflags::SF),
            ConditionCode::ns => !flag(Rflags::SF),
            ConditionCode::p => flag(Rflags::PF),
            ConditionCode::np => !flag(Rflags::PF),
            ConditionCode::l => less,
            ConditionCode::ge => !less,
            ConditionCode::le => less || flag(Rflags::ZF),
            ConditionCode::g => !less && !flag(Rflags::ZF),
        })
    }

    fn port_input(&mut self) -> Result<(), Stop> {
        let (port, width) = self.port().ok_or(Stop::Unsupported)?;
        let value = self.input(port, width);
        self.cpu.set_general(RAX, width, value);
        Ok(())
    }

    fn port_output(&mut self) -> Result<(), Stop> {
        let (port, width) = self.port().ok_or(Stop::Unsupported)?;
        self.output(port, width, self.cpu.general(RAX));
        Ok(())
    }
}
