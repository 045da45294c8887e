//! Devices that die between any two stores of a field, for tests.

use std::cell::Cell;

use super::MemoryError;

thread_local! {
    /// Stores that the device will still make; for ever, if `None`.
    static STORES_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Runs a device that makes as many stores as `left` says and then no more: from there on all of them fail. What is left
/// afterwards is in `left`.
pub(crate) fn run<T>(left: &mut u32, device: impl FnOnce() -> T) -> T {
    STORES_LEFT.set(Some(*left));
    let result = device();
    *left = STORES_LEFT.take().expect("what was set above");
    result
}

/// Called by every store.
pub(super) fn before_store() -> Result<(), MemoryError> {
    match STORES_LEFT.get() {
        None => Ok(()),
        Some(0) => Err(MemoryError::OutOfBounds),
        Some(left) => {
            STORES_LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}
