//! A piece of memory that somebody else writes at the same time.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::MemoryError;
use super::copy::{copy, load, store, zero};
use super::prefetch::{self, Access};

/// Bytes of shared memory, mapped for `'m`. Every access is checked against its bounds and reads or writes the memory
/// once; integers are little-endian, as virtio's are.
#[derive(Clone, Copy, Debug)]
pub struct GuestSlice<'m> {
    start: NonNull<u8>,
    len: usize,
    mapped: PhantomData<&'m [u8]>,
}

// SAFETY: Other CPUs access this memory in any case: all accesses are made for that (see the module).
unsafe impl Send for GuestSlice<'_> {}
// SAFETY: As above.
unsafe impl Sync for GuestSlice<'_> {}

macro_rules! accessors {
    ($($load:ident, $store:ident: $atomic:ident, $int:ident;)*) => {$(
        #[doc = concat!("The little-endian `", stringify!($int), "` at byte `offset`.\n\n# Errors")]
        /// [`MemoryError::OutOfBounds`] and [`MemoryError::Misaligned`].
        ///
        /// # Panics
        /// If `order` is not one for loads.
        #[inline(always)]
        pub fn $load(&self, offset: usize, order: Ordering) -> Result<$int, MemoryError> {
            let field = self.field(offset, size_of::<$int>())?;
            // SAFETY: `field` is in bounds and aligned; while it is mapped, whoever else accesses it does so from
            // outside of this program or with the same atomic accesses (see the module).
            Ok($int::from_le(unsafe { $atomic::from_ptr(field.cast()) }.load(order)))
        }

        #[doc = concat!("Writes a little-endian `", stringify!($int), "` at byte `offset`.\n\n# Errors")]
        /// [`MemoryError::OutOfBounds`] and [`MemoryError::Misaligned`].
        ///
        /// # Panics
        /// If `order` is not one for stores.
        #[inline(always)]
        pub fn $store(&self, offset: usize, value: $int, order: Ordering) -> Result<(), MemoryError> {
            #[cfg(test)]
            super::death::before_store()?;
            let field = self.field(offset, size_of::<$int>())?;
            // SAFETY: As for loads.
            unsafe { $atomic::from_ptr(field.cast()) }.store(value.to_le(), order);
            Ok(())
        }
    )*};
}

impl<'m> GuestSlice<'m> {
    /// The `len` bytes at `start`.
    ///
    /// # Safety
    /// The bytes stay mapped, readable and writable for `'m`, and this program touches them only through `GuestSlice`s.
    #[must_use]
    pub const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self { start, len, mapped: PhantomData }
    }

    /// No bytes.
    pub(crate) const fn empty() -> Self {
        Self { start: NonNull::dangling(), len: 0, mapped: PhantomData }
    }

    /// Bytes in this piece.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are mapped: for a system call or a device that copies them itself. Never to be made a reference.
    #[inline]
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// `len` bytes from byte `offset` on.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    #[inline]
    pub fn part(&self, offset: usize, len: usize) -> Result<Self, MemoryError> {
        self.check(offset, len)?;
        // SAFETY: `offset <= self.len`, so this stays in the mapping or at its end.
        Ok(Self { start: unsafe { self.start.add(offset) }, len, mapped: PhantomData })
    }

    /// The first `at` bytes (all, if there are fewer) and the rest.
    #[inline]
    #[must_use]
    pub fn split_at(&self, at: usize) -> (Self, Self) {
        let at = at.min(self.len);
        // SAFETY: `at <= self.len`.
        let rest = unsafe { self.start.add(at) };
        (Self { len: at, ..*self }, Self { start: rest, len: self.len - at, mapped: PhantomData })
    }

    /// Lets the CPU fetch the line in which byte `offset` is, while it does something else: a hint, which may be beyond the end.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize, access: Access) {
        prefetch::prefetch(self.start.as_ptr().wrapping_add(offset), access);
    }

    /// Copies `into.len()` bytes from byte `offset` on.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then nothing is copied.
    #[inline(always)]
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), MemoryError> {
        self.check(offset, into.len())?;
        // SAFETY: The range is in bounds, and `into`, an exclusive reference, cannot be guest memory.
        unsafe { copy(self.start.as_ptr().add(offset), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Copies the two little-endian words from byte `offset` on, at any alignment, into registers: for descriptors, whose
    /// fields are used at once.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`].
    #[inline(always)]
    pub(crate) fn read_pair(&self, offset: usize) -> Result<[u64; 2], MemoryError> {
        self.check(offset, 16)?;
        // SAFETY: The range is in bounds.
        Ok(unsafe {
            let from = self.start.as_ptr().add(offset);
            [u64::from_le(load(from)), u64::from_le(load(from.add(8)))]
        })
    }

    /// Writes two words to the little-endian ones from byte `offset` on, at any alignment: for headers, which go there from
    /// registers.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then nothing is written.
    #[inline(always)]
    pub fn write_pair(&self, offset: usize, [first, second]: [u64; 2]) -> Result<(), MemoryError> {
        self.check(offset, 16)?;
        // SAFETY: The range is in bounds.
        unsafe {
            let to = self.start.as_ptr().add(offset);
            store(to, first.to_le());
            store(to.add(8), second.to_le());
        }
        Ok(())
    }

    /// Copies `from` to byte `offset`.
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`]; then nothing is copied.
    #[inline(always)]
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), MemoryError> {
        self.check(offset, from.len())?;
        // SAFETY: The range is in bounds, and `from`, a reference, cannot be guest memory.
        unsafe { copy(from.as_ptr(), self.start.as_ptr().add(offset), from.len()) };
        Ok(())
    }

    /// Copies all of this to the beginning of `target`, as far as that reaches, and returns how many bytes that were.
    /// Where the two overlap, what is copied is unspecified.
    #[inline]
    pub fn copy_to(&self, target: &GuestSlice<'_>) -> usize {
        let len = self.len.min(target.len);
        // SAFETY: Both are guest memory of at least `len` bytes.
        unsafe { copy(self.start.as_ptr(), target.start.as_ptr(), len) };
        len
    }

    /// Sets all bytes to zero.
    #[inline]
    pub fn zero(&self) {
        // SAFETY: The slice is mapped and writable.
        unsafe { zero(self.start.as_ptr(), self.len) };
    }

    /// Writes the two little-endian words of 32 bits from byte `offset` on, each as [`Self::store_u32`] does with
    /// [`Ordering::Relaxed`].
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`] and [`MemoryError::Misaligned`]; then nothing is written.
    #[inline(always)]
    pub(crate) fn store_u32_pair(&self, offset: usize, [first, second]: [u32; 2]) -> Result<(), MemoryError> {
        #[cfg(test)]
        super::death::before_store()?;
        self.check(offset, 8)?;
        let field = self.field(offset, 4)?.cast::<u32>();
        // SAFETY: As for the other stores; both words are in bounds, and the second is as aligned as the first.
        unsafe {
            AtomicU32::from_ptr(field).store(first.to_le(), Ordering::Relaxed);
            AtomicU32::from_ptr(field.add(1)).store(second.to_le(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Fills `into` with little-endian words from byte `offset` on, each as [`Self::load_u16`] does with [`Ordering::Relaxed`].
    ///
    /// # Errors
    /// [`MemoryError::OutOfBounds`] and [`MemoryError::Misaligned`].
    #[inline(always)]
    pub(crate) fn load_u16s(&self, offset: usize, into: &mut [u16]) -> Result<(), MemoryError> {
        self.check(offset, 2 * into.len())?;
        let first = self.field(offset, 2)?.cast::<u16>();
        for (index, word) in into.iter_mut().enumerate() {
            // SAFETY: As for the other loads; all words are in bounds, and as aligned as the first.
            *word = u16::from_le(unsafe { AtomicU16::from_ptr(first.add(index)) }.load(Ordering::Relaxed));
        }
        Ok(())
    }

    accessors! {
        load_u8, store_u8: AtomicU8, u8;
        load_u16, store_u16: AtomicU16, u16;
        load_u32, store_u32: AtomicU32, u32;
        load_u64, store_u64: AtomicU64, u64;
    }

    #[inline(always)]
    fn check(&self, offset: usize, len: usize) -> Result<(), MemoryError> {
        if offset <= self.len && len <= self.len - offset { Ok(()) } else { Err(MemoryError::OutOfBounds) }
    }

    /// A naturally aligned field of `size` bytes, a power of two.
    #[inline(always)]
    fn field(&self, offset: usize, size: usize) -> Result<*mut u8, MemoryError> {
        self.check(offset, size)?;
        // SAFETY: `offset` is in bounds.
        let field = unsafe { self.start.as_ptr().add(offset) };
        if field.addr() & (size - 1) == 0 { Ok(field) } else { Err(MemoryError::Misaligned) }
    }
}
