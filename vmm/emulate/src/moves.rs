//! The instructions that drivers reach devices by, in a form that needs no more looking at: moves between a general
//! register or an immediate and memory, in 64-bit mode.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::width::Width;

/// A move in 64-bit mode, whose memory operand is in a segment without base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// Bytes of the instruction.
    pub length: u8,
    /// Width of the memory operand.
    pub width: Width,
    pub address: Address,
    pub kind: Kind,
}

/// An effective address: the sum of all, modulo 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Number of a general register.
    base: Option<u8>,
    /// Number of another one, and what it is shifted left by.
    index: Option<(u8, u8)>,
    displacement: u64,
}

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The general register with this number to memory.
    Store(u8),
    /// A value to memory.
    StoreImmediate(u64),
    /// Memory to a general register of this width.
    Load { register: u8, width: Width, is_signed: bool },
}

impl Move {
    /// The instruction in this form, if it has one.
    pub fn of(instruction: &Instruction) -> Option<Self> {
        let is_signed = match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movnti => false,
            Mnemonic::Movsx | Mnemonic::Movsxd => true,
            _ => return None,
        };
        // The others have bases.
        if !matches!(instruction.memory_segment(), Register::CS | Register::DS | Register::ES | Register::SS) {
            return None;
        }
        let width = Width::from_bytes(instruction.memory_size().size())?;
        let kind = match (instruction.op0_kind(), instruction.op1_kind()) {
            (OpKind::Memory, OpKind::Register) => Kind::Store(whole(instruction.op1_register())?.0),
            (OpKind::Memory, _) => Kind::StoreImmediate(instruction.try_immediate(1).ok()?),
            (OpKind::Register, OpKind::Memory) => {
                let (register, width) = whole(instruction.op0_register())?;
                Kind::Load { register, width, is_signed }
            }
            _ => return None,
        };
        let length = u8::try_from(instruction.len()).ok()?;
        Some(Self { length, width, address: Address::of(instruction)?, kind })
    }
}

impl Address {
    fn of(instruction: &Instruction) -> Option<Self> {
        let register = |register| match register {
            Register::None => Some(None),
            register => Some(Some(whole(register).filter(|(_, width)| *width == Width::Qword)?.0)),
        };
        let base = match instruction.memory_base() {
            // The displacement is the whole address.
            Register::RIP => None,
            other => register(other)?,
        };
        let index = register(instruction.memory_index())?;
        let has_address_size = base.is_some() || index.is_some() || instruction.memory_base() == Register::RIP;
        // Without registers only the displacement tells a 32-bit address size.
        if !has_address_size && instruction.memory_displ_size() != 8 {
            return None;
        }
        let shift = instruction.memory_index_scale().checked_ilog2()? as u8;
        let displacement = instruction.memory_displacement64();
        Some(Self { base, index: index.map(|number| (number, shift)), displacement })
    }

    /// The address, with the values of general registers by their numbers.
    #[inline]
    pub fn with(self, general: impl Fn(u8) -> u64) -> u64 {
        let base = self.base.map_or(0, &general);
        let index = self.index.map_or(0, |(number, shift)| general(number) << (shift & 3));
        base.wrapping_add(index).wrapping_add(self.displacement)
    }
}

/// Number and width of a general register that begins at bit 0: any but AH, CH, DH and BH.
fn whole(register: Register) -> Option<(u8, Width)> {
    let is_high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    if !register.is_gpr() || is_high {
        return None;
    }
    Some((u8::try_from(register.full_register().number()).ok()?, Width::from_bytes(register.size())?))
}
