//! The time stamp counter: how fast it counts, decided from sources of which none is trusted alone, and the arithmetic
//! between its ticks and nanoseconds. Pure: reading the sources is the architecture's affair.

mod frequency;
mod scale;

pub use frequency::{Sample, Source, TscError, TscFrequency, decide, hz_from_interval};
pub use scale::TickScale;

/// A frequency outside this range is not believed. Emulators count one tick an instruction, so they go down to
/// millions.
const PLAUSIBLE_HZ: core::ops::RangeInclusive<u64> = 1_000_000..=100_000_000_000;

#[inline]
fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
