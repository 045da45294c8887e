//! Records in memory that outlives whoever writes them: what the card has been told while it ran, for the card after it.
//!
//! An area has two halves, which are written by turns, so one of them is whole whenever the writer dies. What is read is an
//! allegation: the writer may have died of writing nonsense. So a half counts only if its checksum is right, and what
//! is in its records is for the reader to check as if somebody had just said it.
//!
//! A half: [`MAGIC`] with the version in its last byte, the generation (the higher of two is the later), the length of all
//! records (64 bits each), CRC-32 of all that but the magic (32 bits), and the records, each behind its length (32 bits); all
//! little-endian.

use alloc::vec::Vec;

use dragonfly_virtqueue::GuestSlice;

/// Says what it is, and version 1.
const MAGIC: u64 = u64::from_le_bytes(*b"df-kept\x01");

/// Bytes of a half before its records; each of those takes four more than it has.
pub const HEADER_BYTES: usize = 28;

/// Where the fields of a half are.
const GENERATION: usize = 8;
const LENGTH: usize = 16;
const CHECKSUM: usize = 24;
const RECORDS: usize = HEADER_BYTES;

/// Memory that outlives whoever writes it.
pub trait Area {
    /// Its size in bytes.
    fn size(&self) -> usize;

    /// Copies bytes out of it; false if they are not all in it.
    fn read(&self, offset: usize, into: &mut [u8]) -> bool;

    /// Copies bytes into it; false if they do not all fit.
    fn write(&self, offset: usize, bytes: &[u8]) -> bool;
}

impl Area for GuestSlice<'_> {
    fn size(&self) -> usize {
        self.len()
    }

    fn read(&self, offset: usize, into: &mut [u8]) -> bool {
        Self::read(self, offset, into).is_ok()
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        Self::write(self, offset, bytes).is_ok()
    }
}

/// What was found in an area.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// To be given to [`keep`] when it is written next.
    pub generation: u64,
    /// The records; none in an area that nobody has written yet, or whose halves are both nonsense.
    pub records: Vec<Vec<u8>>,
}

/// Finds what was written last; `None` if there is nothing, or nothing that is whole.
pub fn find(area: &impl Area) -> Option<Kept> {
    let half = area.size() / 2;
    let halves = [0, half].into_iter().filter_map(|at| read_half(area, at, half));
    halves.max_by_key(|kept| kept.generation)
}

/// Writes records, and gives the generation that they have: the one after `generation`. `None` if they do not fit; what was
/// written before is found then.
pub fn keep<'a>(area: &impl Area, generation: u64, records: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
    let half = area.size() / 2;
    let next = generation.checked_add(1)?;
    let mut bytes = [MAGIC, next, 0].map(u64::to_le_bytes).concat();
    bytes.extend([0; 4]);
    for record in records {
        bytes.extend(u32::try_from(record.len()).ok()?.to_le_bytes());
        bytes.extend(record);
    }
    let len = bytes.len().checked_sub(RECORDS)? as u64;
    bytes.get_mut(LENGTH..CHECKSUM)?.copy_from_slice(&len.to_le_bytes());
    let sum = checksum(&bytes)?;
    bytes.get_mut(CHECKSUM..RECORDS)?.copy_from_slice(&sum.to_le_bytes());
    let is_written = bytes.len() <= half && area.write(if next % 2 == 0 { 0 } else { half }, &bytes);
    is_written.then_some(next)
}

fn read_half(area: &impl Area, at: usize, size: usize) -> Option<Kept> {
    let mut header = [0; RECORDS];
    if size < RECORDS || !area.read(at, &mut header) {
        return None;
    }
    let word = |offset: usize| header.get(offset..)?.first_chunk().copied().map(u64::from_le_bytes);
    let len = usize::try_from(word(LENGTH)?).ok().filter(|len| *len <= size - RECORDS)?;
    if word(0)? != MAGIC {
        return None;
    }
    let mut bytes = header.to_vec();
    bytes.resize(RECORDS + len, 0);
    if !area.read(at + RECORDS, bytes.get_mut(RECORDS..)?) {
        return None;
    }
    if bytes.get(CHECKSUM..RECORDS)? != checksum(&bytes)?.to_le_bytes() {
        return None;
    }
    let mut rest = bytes.get(RECORDS..)?;
    let mut records = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk() {
        let (record, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
        records.push(record.to_vec());
        rest = after;
    }
    rest.is_empty().then_some(Kept { generation: word(GENERATION)?, records })
}

/// Of all of a half but the magic and the checksum itself.
fn checksum(half: &[u8]) -> Option<u32> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(half.get(GENERATION..CHECKSUM)?);
    hasher.update(half.get(RECORDS..)?);
    Some(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::vec;

    use super::*;

    struct Bytes(RefCell<Vec<u8>>);

    impl Bytes {
        fn new(size: usize) -> Self {
            Self(RefCell::new(vec![0; size]))
        }
    }

    impl Area for Bytes {
        fn size(&self) -> usize {
            self.0.borrow().len()
        }

        fn read(&self, offset: usize, into: &mut [u8]) -> bool {
            self.0.borrow().get(offset..offset + into.len()).map(|from| into.copy_from_slice(from)).is_some()
        }

        fn write(&self, offset: usize, bytes: &[u8]) -> bool {
            let mut all = self.0.borrow_mut();
            all.get_mut(offset..offset + bytes.len()).map(|to| to.copy_from_slice(bytes)).is_some()
        }
    }

    fn kept(generation: u64, records: &[&[u8]]) -> Kept {
        Kept { generation, records: records.iter().map(|record| record.to_vec()).collect() }
    }

    #[test]
    fn what_was_written_last_is_found() {
        let area = Bytes::new(200);
        assert_eq!(find(&area), None);
        let turns: [&[&[u8]]; 4] = [&[b"one", b""], &[], &[b"three"], &[b"four", b"4"]];
        let mut generation = 0;
        for records in turns {
            generation = keep(&area, generation, records.iter().copied()).unwrap();
            assert_eq!(find(&area), Some(kept(generation, records)));
        }
    }

    #[test]
    fn what_does_not_fit_leaves_what_is_there() {
        let area = Bytes::new(2 * (RECORDS + 4 + 10));
        assert_eq!(keep(&area, 0, [&[7; 10][..]]), Some(1));
        for _ in 0..2 {
            assert_eq!(keep(&area, 1, [&[8; 11][..]]), None);
            assert_eq!(find(&area), Some(kept(1, &[&[7; 10]])));
        }
    }

    #[test]
    fn a_writer_that_dies_at_any_byte_leaves_what_was_before_or_what_it_wrote() {
        for before in [1, 2] {
            let old = Bytes::new(160);
            for generation in 0..before {
                keep(&old, generation, [&b"old"[..]]).unwrap();
            }
            let new = Bytes(old.0.clone());
            keep(&new, before, [&b"newer"[..]]).unwrap();
            let (was, is) = (kept(before, &[b"old"]), kept(before + 1, &[b"newer"]));
            for died_at in 0..160 {
                let mut bytes = new.0.borrow()[..died_at].to_vec();
                bytes.extend(&old.0.borrow()[died_at..]);
                let found = find(&Bytes(RefCell::new(bytes))).unwrap();
                assert!(found == was || found == is, "{died_at}: {found:?}");
            }
        }
    }

    #[test]
    fn nonsense_is_nothing() {
        let area = Bytes::new(160);
        keep(&area, 0, [&b"something"[..], b"more"]).unwrap();
        // The first half is empty, and of the second each bit matters as far as it is written.
        for at in 80..80 + RECORDS + 4 + 9 + 4 + 4 {
            for bit in 0..8 {
                let mut bytes = area.0.borrow().clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(find(&Bytes(RefCell::new(bytes))), None, "{at} {bit}");
            }
        }
        for size in 0..2 * RECORDS {
            assert_eq!(find(&Bytes::new(size)), None);
        }
    }
}
