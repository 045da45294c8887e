//! Accesses of any place and size to what consists of double words.

/// Reads bytes, the first at `offset`; each double word that they touch is read once, by its aligned offset.
pub(crate) fn read_words(offset: u64, data: &mut [u8], mut read: impl FnMut(u64) -> u32) {
    let (head, rest) = data.split_at_mut(head_length(offset, data.len()));
    let first = core::iter::once((offset, head));
    for (offset, bytes) in first.chain(following(offset).zip(rest.chunks_mut(4))) {
        if bytes.is_empty() {
            continue;
        }
        let value = read(offset & !3).to_le_bytes();
        for (byte, value) in bytes.iter_mut().zip(value.iter().skip((offset & 3) as usize)) {
            *byte = *value;
        }
    }
}

/// Writes bytes, the first at `offset`: each double word that they touch once, with its aligned offset, its value and a mask
/// of the bits that are written.
pub(crate) fn write_words(offset: u64, data: &[u8], mut write: impl FnMut(u64, u32, u32)) {
    let (head, rest) = data.split_at(head_length(offset, data.len()));
    let first = core::iter::once((offset, head));
    for (offset, bytes) in first.chain(following(offset).zip(rest.chunks(4))) {
        if bytes.is_empty() {
            continue;
        }
        let (mut value, mut mask) = ([0; 4], [0; 4]);
        for ((value, mask), byte) in value.iter_mut().zip(&mut mask).skip((offset & 3) as usize).zip(bytes) {
            *value = *byte;
            *mask = u8::MAX;
        }
        write(offset & !3, u32::from_le_bytes(value), u32::from_le_bytes(mask));
    }
}

/// Bytes in the first double word.
fn head_length(offset: u64, length: usize) -> usize {
    length.min(4 - (offset & 3) as usize)
}

/// The double words after that of `offset`.
fn following(offset: u64) -> impl Iterator<Item = u64> {
    (1u64..).map(move |index| (offset & !3).wrapping_add(4 * index))
}
