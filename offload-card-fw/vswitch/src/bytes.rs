//! Checked reads and writes of big-endian fields in frames.

/// The `N` bytes at `offset`, if they are all there.
#[inline]
pub fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<&[u8; N]> {
    bytes.get(offset..)?.first_chunk()
}

/// The byte at `offset`.
#[inline]
pub fn get_u8(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// The big-endian number at `offset`.
#[inline]
pub fn get_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(|bytes| u16::from_be_bytes(*bytes))
}

/// The big-endian number at `offset`.
#[inline]
pub fn get_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    array(bytes, offset).map(|bytes| u32::from_be_bytes(*bytes))
}

/// Writes `value` at `offset`; says whether there was room.
#[must_use]
pub fn put(bytes: &mut [u8], offset: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(offset..)?.get_mut(..value.len())?.copy_from_slice(value);
    Some(())
}

/// Adds the big-endian number at `offset` to `addend` in place, wrapping.
#[must_use]
pub fn add_u16(bytes: &mut [u8], offset: usize, addend: u16) -> Option<()> {
    let value = get_u16(bytes, offset)?.wrapping_add(addend);
    put(bytes, offset, &value.to_be_bytes())
}
