//! Guest memory under loom: words that either order others or are ordered by them, as the model says, so that loom reports
//! each access to the latter that nothing orders.

use std::fmt;
use std::ops::Range;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU16, Ordering};

use super::{Access, GuestAddress, GuestMemory, MemoryError};

/// Bytes of memory, from their beginning, that only plain copies and fields behind them may touch.
pub type Plain = Range<usize>;

/// Memory from address 0 on, zero at first.
pub struct LoomMemory(Vec<Word>);

enum Word {
    Atomic(AtomicU16),
    Plain(UnsafeCell<u16>),
}

// SAFETY: Loom checks every access to a cell.
unsafe impl Sync for LoomMemory {}
// SAFETY: The memory owns its cells.
unsafe impl Send for LoomMemory {}

impl LoomMemory {
    /// `len` bytes, of which those in `plain` are accessed by no two threads at once.
    #[must_use]
    pub fn new(len: usize, plain: &[Plain]) -> Self {
        let word = |at: usize| {
            let is_plain = plain.iter().any(|range| range.contains(&at));
            if is_plain { Word::Plain(UnsafeCell::new(0)) } else { Word::Atomic(AtomicU16::new(0)) }
        };
        Self((0..len).step_by(2).map(word).collect())
    }
}

impl GuestMemory for LoomMemory {
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        let start = address.0 as usize;
        let left = (2 * self.0.len()).checked_sub(start).filter(|left| *left > 0 || limit == 0);
        let len = left.ok_or(MemoryError::Unmapped(address))?.min(limit);
        Ok(GuestSlice { memory: Some(self), start, len })
    }
}

impl fmt::Debug for LoomMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoomMemory")
    }
}

/// Bytes of that memory. Only words are accessed as atomics; longer integers are copied as buffers are.
#[derive(Clone, Copy, Debug)]
pub struct GuestSlice<'m> {
    memory: Option<&'m LoomMemory>,
    start: usize,
    len: usize,
}

macro_rules! accessors {
    ($($load:ident, $store:ident: $int:ident;)*) => {$(
        pub(crate) fn $load(&self, offset: usize, _: Ordering) -> Result<$int, MemoryError> {
            let mut bytes = [0; size_of::<$int>()];
            self.read(offset, &mut bytes)?;
            Ok($int::from_le_bytes(bytes))
        }

        pub(crate) fn $store(&self, offset: usize, value: $int, _: Ordering) -> Result<(), MemoryError> {
            self.write(offset, &value.to_le_bytes())
        }
    )*};
}

impl GuestSlice<'_> {
    pub(crate) const fn empty() -> Self {
        Self { memory: None, start: 0, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn part(&self, offset: usize, len: usize) -> Result<Self, MemoryError> {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len);
        fits.then_some(Self { start: self.start + offset, len, ..*self }).ok_or(MemoryError::OutOfBounds)
    }

    pub(crate) fn split_at(&self, at: usize) -> (Self, Self) {
        let at = at.min(self.len);
        (Self { len: at, ..*self }, Self { start: self.start + at, len: self.len - at, ..*self })
    }

    pub(crate) const fn prefetch(&self, _: usize, _: Access) {}

    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), MemoryError> {
        for (at, bytes) in into.chunks_exact_mut(2).enumerate() {
            let value = match self.word(offset + 2 * at)? {
                Word::Atomic(word) => word.load(Ordering::Relaxed),
                // SAFETY: Loom checks that nobody writes meanwhile.
                Word::Plain(word) => word.with(|word| unsafe { *word }),
            };
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    pub(crate) fn read_pair(&self, offset: usize) -> Result<[u64; 2], MemoryError> {
        let mut bytes = [0; 16];
        self.read(offset, &mut bytes)?;
        let [low, high] = bytes.as_chunks().0 else { return Err(MemoryError::OutOfBounds) };
        Ok([u64::from_le_bytes(*low), u64::from_le_bytes(*high)])
    }

    pub(crate) fn write(&self, offset: usize, from: &[u8]) -> Result<(), MemoryError> {
        for (at, bytes) in from.chunks_exact(2).enumerate() {
            let value = u16::from_le_bytes([bytes[0], bytes[1]]);
            match self.word(offset + 2 * at)? {
                Word::Atomic(word) => word.store(value, Ordering::Relaxed),
                // SAFETY: Loom checks that nobody reads or writes meanwhile.
                Word::Plain(word) => word.with_mut(|word| unsafe { *word = value }),
            }
        }
        Ok(())
    }

    pub(crate) fn copy_to(&self, target: &GuestSlice<'_>) -> usize {
        let mut bytes = vec![0; self.len.min(target.len)];
        self.read(0, &mut bytes).and_then(|()| target.write(0, &bytes)).map_or(0, |()| bytes.len())
    }

    pub(crate) fn zero(&self) {
        self.write(0, &vec![0; self.len]).expect("a slice in bounds");
    }

    pub(crate) fn load_u16(&self, offset: usize, order: Ordering) -> Result<u16, MemoryError> {
        match self.word(offset)? {
            Word::Atomic(word) => Ok(word.load(order)),
            // SAFETY: As in `read`.
            Word::Plain(word) => Ok(word.with(|word| unsafe { *word })),
        }
    }

    pub(crate) fn load_u16s(&self, offset: usize, into: &mut [u16]) -> Result<(), MemoryError> {
        for (index, word) in into.iter_mut().enumerate() {
            *word = self.load_u16(offset + 2 * index, Ordering::Relaxed)?;
        }
        Ok(())
    }

    pub(crate) fn store_u32_pair(&self, offset: usize, [first, second]: [u32; 2]) -> Result<(), MemoryError> {
        self.store_u32(offset, first, Ordering::Relaxed)?;
        self.store_u32(offset + 4, second, Ordering::Relaxed)
    }

    pub(crate) fn store_u16(&self, offset: usize, value: u16, order: Ordering) -> Result<(), MemoryError> {
        match self.word(offset)? {
            Word::Atomic(word) => word.store(value, order),
            // SAFETY: As in `write`.
            Word::Plain(word) => word.with_mut(|word| unsafe { *word = value }),
        }
        Ok(())
    }

    accessors! {
        load_u8, store_u8: u8;
        load_u32, store_u32: u32;
        load_u64, store_u64: u64;
    }

    fn word(&self, offset: usize) -> Result<&Word, MemoryError> {
        let word = (offset < self.len).then(|| self.memory?.0.get((self.start + offset) / 2)).flatten();
        word.ok_or(MemoryError::OutOfBounds)
    }
}
