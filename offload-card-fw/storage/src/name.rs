//! Names as metadata keeps them: UTF-8, padded with zeros.

use arrayvec::ArrayString;

/// Most bytes of a name.
pub const MAX_NAME_BYTES: usize = 32;

/// What somebody called a volume or snapshot: 1 to [`MAX_NAME_BYTES`] bytes, none of them zero.
pub type Name = ArrayString<MAX_NAME_BYTES>;

/// A name that can be kept.
pub(crate) fn checked_name(name: &str) -> Option<Name> {
    let is_valid = !name.is_empty() && !name.contains('\0');
    Name::from(name).ok().filter(|_| is_valid)
}

pub(crate) fn encode_name(name: &Name) -> [u8; MAX_NAME_BYTES] {
    let mut bytes = [0; MAX_NAME_BYTES];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

pub(crate) fn decode_name(bytes: &[u8; MAX_NAME_BYTES]) -> Option<Name> {
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (name, padding) = bytes.split_at(length);
    let is_padded = padding.iter().all(|byte| *byte == 0);
    checked_name(core::str::from_utf8(name).ok()?).filter(|_| is_padded)
}
