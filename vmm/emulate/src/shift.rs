//! Shifts and rotations (SDM 2B, "SAL/SAR/SHL/SHR", "RCL/RCR/ROL/ROR", "SHLD", "SHRD").
//!
//! OF is defined for counts of 1 only, AF never, CF not for counts beyond the width; here they get what the formula for a
//! count of 1 gives, AF nothing, and CF the last bit that would be shifted out.

use dragonfly_hw::x86::control::Rflags;

use crate::alu::{Computed, STATUS, of_result};
use crate::width::Width;

/// Instructions that shift one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shift {
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    Rcl,
    Rcr,
}

/// Instructions that shift one operand and fill it from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoubleShift {
    Left,
    Right,
}

/// Flags that shifts change; AF stays.
const BY_SHIFT: Rflags = STATUS.difference(Rflags::AF);
/// Flags that rotations change.
const BY_ROTATION: Rflags = Rflags::CF.union(Rflags::OF);

pub fn shift(operation: Shift, width: Width, value: u64, count: u64, carry: bool) -> Computed {
    let value = value & width.mask();
    let count = masked(width, count);
    if count == 0 {
        return unchanged(value);
    }
    match operation {
        Shift::Shl => {
            let wide = u128::from(value) << count;
            let result = wide as u64 & width.mask();
            let carry = wide >> width.bits() & 1 != 0;
            shifted(width, result, carry, width.is_negative(result) != carry)
        }
        Shift::Shr => {
            let carry = value >> (count - 1) & 1 != 0;
            shifted(width, value.checked_shr(count).unwrap_or(0), carry, width.is_negative(value))
        }
        Shift::Sar => {
            let signed = width.sign_extend(value) as i64;
            let carry = signed >> (count - 1) & 1 != 0;
            shifted(width, (signed >> count) as u64 & width.mask(), carry, false)
        }
        Shift::Rol => {
            let result = rotate_left(width.bits(), value.into(), count) as u64;
            let carry = result & 1 != 0;
            rotated(result, carry, width.is_negative(result) != carry)
        }
        Shift::Ror => {
            let bits = width.bits();
            let result = rotate_left(bits, value.into(), bits - count % bits) as u64;
            rotated(result, width.is_negative(result), has_two_unlike_top_bits(width, result))
        }
        Shift::Rcl | Shift::Rcr => through_carry(operation, width, value, count, carry),
    }
}

/// Rotates `width + 1` bits, of which the highest is the carry.
fn through_carry(operation: Shift, width: Width, value: u64, count: u32, carry: bool) -> Computed {
    let bits = width.bits() + 1;
    let count = count % bits;
    if count == 0 {
        return unchanged(value);
    }
    let whole = u128::from(value) | u128::from(carry) << width.bits();
    let left = if operation == Shift::Rcl { count } else { bits - count };
    let whole = rotate_left(bits, whole, left);
    let result = whole as u64 & width.mask();
    let carry = whole >> width.bits() & 1 != 0;
    let overflow = match operation {
        Shift::Rcl => width.is_negative(result) != carry,
        _ => has_two_unlike_top_bits(width, result),
    };
    rotated(result, carry, overflow)
}

pub fn double_shift(operation: DoubleShift, width: Width, value: u64, fill: u64, count: u64) -> Computed {
    let (value, fill) = (value & width.mask(), fill & width.mask());
    let count = masked(width, count);
    if count == 0 {
        return unchanged(value);
    }
    let bits = width.bits();
    let (result, carry) = match operation {
        DoubleShift::Left => {
            let whole = u128::from(value) << bits | u128::from(fill);
            ((whole << count >> bits) as u64 & width.mask(), whole >> (2 * bits - count) & 1 != 0)
        }
        DoubleShift::Right => {
            let whole = u128::from(fill) << bits | u128::from(value);
            ((whole >> count) as u64 & width.mask(), whole >> (count - 1) & 1 != 0)
        }
    };
    shifted(width, result, carry, width.is_negative(result ^ value))
}

/// Counts are taken modulo 64 or 32, whatever the width.
fn masked(width: Width, count: u64) -> u32 {
    (count & if width == Width::Qword { 0x3f } else { 0x1f }) as u32
}

/// Rotates the lowest so many bits, at most 65.
fn rotate_left(bits: u32, value: u128, count: u32) -> u128 {
    let count = count % bits;
    ((value << count) | (value >> (bits - count))) & ((1 << bits) - 1)
}

fn has_two_unlike_top_bits(width: Width, value: u64) -> bool {
    width.is_negative(value ^ value << 1)
}

fn unchanged(value: u64) -> Computed {
    Computed { value, flags: Rflags::empty(), changed: Rflags::empty() }
}

fn shifted(width: Width, value: u64, carry: bool, overflow: bool) -> Computed {
    Computed { value, flags: of_result(width, value) | carry_and_overflow(carry, overflow), changed: BY_SHIFT }
}

fn rotated(value: u64, carry: bool, overflow: bool) -> Computed {
    Computed { value, flags: carry_and_overflow(carry, overflow), changed: BY_ROTATION }
}

fn carry_and_overflow(carry: bool, overflow: bool) -> Rflags {
    let mut flags = Rflags::empty();
    flags.set(Rflags::CF, carry);
    flags.set(Rflags::OF, overflow);
    flags
}
