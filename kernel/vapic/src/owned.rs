//! Values that only the owner changes.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A word that only the owner changes and other CPUs may read, a moment late: nothing else hangs on its order.
#[derive(Debug)]
pub(crate) struct Owned32(AtomicU32);

impl Owned32 {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
    }
}

/// As [`Owned32`], of 64 bits.
#[derive(Debug)]
pub(crate) struct Owned64(AtomicU64);

impl Owned64 {
    pub(crate) const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}
