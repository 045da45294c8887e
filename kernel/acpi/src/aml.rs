//! The one value that powering off needs from AML, found without an AML interpreter.

use crate::fields::Fields;

/// Values that `\_S5` gives for `SLP_TYPa` and `SLP_TYPb` (ACPI 6.5, 7.4.2 and 16.1.6): each 0 to 7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepType {
    /// For the PM1a control register, and for the sleep control register of hardware-reduced platforms.
    pub a: u8,
    /// For the PM1b control register.
    pub b: u8,
}

const S5_NAME: [u8; 4] = *b"_S5_";

// AML encoding (ACPI 6.5, 20.2.2 to 20.2.5).
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const NAME_OP: u8 = 0x08;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;
const QWORD_PREFIX: u8 = 0x0e;
const PACKAGE_OP: u8 = 0x12;
const ROOT_CHAR: u8 = b'\\';

/// `SLP_TYP` is a field of three bits (4.8.3.2.1).
const MAX_SLEEP_TYPE: u64 = 7;

/// The sleep type of state S5, soft off, in the bytes of a DSDT.
///
/// The usual heuristic: the first place that reads as `Name (_S5_, Package () {a, b, …})` with two constant integers
/// in range. `None` if there is none, or where firmware computes the package; power-off is then not available.
#[must_use]
pub fn sleep_type_s5(dsdt: &[u8]) -> Option<SleepType> {
    dsdt.windows(S5_NAME.len()).enumerate().filter(|(_, window)| *window == S5_NAME).find_map(|(position, _)| {
        let before = dsdt.get(..position)?;
        let named = matches!(before, [.., NAME_OP] | [.., NAME_OP, ROOT_CHAR]);
        let after = dsdt.get(position.checked_add(S5_NAME.len())?..)?;
        if named { package(after) } else { None }
    })
}

/// The first two elements of the package that starts `bytes`.
fn package(bytes: &[u8]) -> Option<SleepType> {
    let (&PACKAGE_OP, body) = bytes.split_first()? else { return None };
    let content = package_content(body)?;
    let (element_count, elements) = content.split_first()?;
    if *element_count < 2 {
        return None;
    }
    let (a, elements) = sleep_type(elements)?;
    let (b, _) = sleep_type(elements)?;
    Some(SleepType { a, b })
}

/// What PkgLength spans, without itself (20.2.4): its top two bits say how many bytes follow the first.
fn package_content(bytes: &[u8]) -> Option<&[u8]> {
    let lead = *bytes.first()?;
    let more = usize::from(lead >> 6);
    let length = if more == 0 {
        usize::from(lead & 0x3f)
    } else {
        let low = usize::from(lead & 0x0f);
        bytes.get(1..=more)?.iter().rev().fold(0usize, |high, byte| high << 8 | usize::from(*byte)) << 4 | low
    };
    bytes.get(more + 1..length)
}

/// A constant integer (20.2.3) and what follows it.
fn sleep_type(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (prefix, rest) = bytes.split_first()?;
    let fields = Fields(rest);
    let (value, size) = match *prefix {
        ZERO_OP => (0, 0),
        ONE_OP => (1, 0),
        BYTE_PREFIX => (u64::from(fields.u8(0)?), 1),
        WORD_PREFIX => (u64::from(fields.u16(0)?), 2),
        DWORD_PREFIX => (u64::from(fields.u32(0)?), 4),
        QWORD_PREFIX => (fields.u64(0)?, 8),
        _ => return None,
    };
    if value > MAX_SLEEP_TYPE {
        return None;
    }
    Some((u8::try_from(value).ok()?, rest.get(size..)?))
}
