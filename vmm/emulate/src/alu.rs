//! Integer arithmetic and logic with the flags that it leaves (SDM 1, "Status Flags"; APM 3, each instruction).

use dragonfly_hw::x86::control::Rflags;

use crate::width::Width;

/// The six flags that say something of a result.
pub const STATUS: Rflags =
    Rflags::CF.union(Rflags::PF).union(Rflags::AF).union(Rflags::ZF).union(Rflags::SF).union(Rflags::OF);

/// What an instruction computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Computed {
    /// The result, within its width.
    pub value: u64,
    /// Values of the flags.
    pub flags: Rflags,
    /// The flags that change; others keep their values.
    pub changed: Rflags,
}

/// Instructions with two operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binary {
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
}

/// Instructions with one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unary {
    Inc,
    Dec,
    Neg,
    Not,
}

pub fn binary(operation: Binary, width: Width, a: u64, b: u64, carry: bool) -> Computed {
    match operation {
        Binary::Add => add(width, a, b, false),
        Binary::Adc => add(width, a, b, carry),
        Binary::Sub => subtract(width, a, b, false),
        Binary::Sbb => subtract(width, a, b, carry),
        Binary::And => logic(width, a & b),
        Binary::Or => logic(width, a | b),
        Binary::Xor => logic(width, a ^ b),
    }
}

pub fn unary(operation: Unary, width: Width, value: u64) -> Computed {
    let but_carry = STATUS.difference(Rflags::CF);
    match operation {
        Unary::Inc => Computed { changed: but_carry, ..add(width, value, 1, false) },
        Unary::Dec => Computed { changed: but_carry, ..subtract(width, value, 1, false) },
        Unary::Neg => subtract(width, 0, value, false),
        Unary::Not => Computed { value: !value & width.mask(), flags: Rflags::empty(), changed: Rflags::empty() },
    }
}

/// The signed product's lower half. CF and OF say that it is not all of the product; the others are undefined, and
/// processors set some by the result.
pub fn multiply(width: Width, a: u64, b: u64) -> Computed {
    let (a, b) = (width.sign_extend(a) as i64, width.sign_extend(b) as i64);
    let product = i128::from(a) * i128::from(b);
    let value = product as u64 & width.mask();
    let mut flags = of_result(width, value);
    flags.set(Rflags::CF | Rflags::OF, i128::from(width.sign_extend(value) as i64) != product);
    Computed { value, flags, changed: STATUS }
}

fn add(width: Width, a: u64, b: u64, carry: bool) -> Computed {
    let (a, b) = (a & width.mask(), b & width.mask());
    let sum = u128::from(a) + u128::from(b) + u128::from(carry);
    let value = sum as u64 & width.mask();
    let mut flags = of_result(width, value);
    flags.set(Rflags::CF, sum >> width.bits() != 0);
    flags.set(Rflags::AF, (a ^ b ^ value) & 0x10 != 0);
    flags.set(Rflags::OF, width.is_negative((a ^ value) & (b ^ value)));
    Computed { value, flags, changed: STATUS }
}

fn subtract(width: Width, a: u64, b: u64, borrow: bool) -> Computed {
    let (a, b) = (a & width.mask(), b & width.mask());
    let value = a.wrapping_sub(b).wrapping_sub(u64::from(borrow)) & width.mask();
    let mut flags = of_result(width, value);
    flags.set(Rflags::CF, u128::from(a) < u128::from(b) + u128::from(borrow));
    flags.set(Rflags::AF, (a ^ b ^ value) & 0x10 != 0);
    flags.set(Rflags::OF, width.is_negative((a ^ b) & (a ^ value)));
    Computed { value, flags, changed: STATUS }
}

/// CF and OF are cleared; AF is undefined, and processors clear it.
fn logic(width: Width, value: u64) -> Computed {
    let value = value & width.mask();
    Computed { value, flags: of_result(width, value), changed: STATUS }
}

/// ZF, SF and PF, which depend on the result only; PF on its lowest byte.
pub fn of_result(width: Width, value: u64) -> Rflags {
    let mut flags = Rflags::empty();
    flags.set(Rflags::ZF, value & width.mask() == 0);
    flags.set(Rflags::SF, width.is_negative(value));
    flags.set(Rflags::PF, (value & 0xff).count_ones().is_multiple_of(2));
    flags
}
