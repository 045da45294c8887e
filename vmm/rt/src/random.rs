//! Chance, as the processor has it.

use crate::arch;

/// A number from the processor's own source of entropy; `None` if it has none, or nothing now.
#[must_use]
pub fn hardware_random() -> Option<u64> {
    arch::hardware_random()
}
