//! Atomics and cells: the processor's, or loom's model of them under `--cfg loom`.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering, fence},
};

/// `core`'s cell with loom's interface, which sees where each access begins and ends.
#[cfg(not(loom))]
#[repr(transparent)]
pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    /// A cell around `value`.
    #[inline]
    pub const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Calls `access` with a pointer for reading.
    #[inline]
    pub fn with<U>(&self, access: impl FnOnce(*const T) -> U) -> U {
        access(self.0.get())
    }

    /// Calls `access` with a pointer for writing.
    #[inline]
    pub fn with_mut<U>(&self, access: impl FnOnce(*mut T) -> U) -> U {
        access(self.0.get())
    }

    /// The value, taken out of the cell.
    #[inline]
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

/// Defines a constructor that is `const`, except under loom, whose objects are made at run time.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* $visibility:vis fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$meta])*
        $visibility const fn $($rest)*

        #[cfg(loom)]
        $(#[$meta])*
        $visibility fn $($rest)*
    };
}
pub(crate) use const_unless_loom;
