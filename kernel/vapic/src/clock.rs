//! What the timer counts.

use dragonfly_abi::arch::guest::TscRatio;

/// A ratio of two frequencies: a fixed-point number with 32 bits after the point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ratio(u64);

impl Ratio {
    /// One to one.
    pub const ONE: Self = Self(1 << 32);

    /// Of a value × 2^32; 0 is taken as the smallest ratio there is.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(if bits == 0 { 1 } else { bits })
    }

    /// `dividend` / `divisor`, rounded down, within what a ratio can be.
    #[must_use]
    pub const fn new(dividend: u64, divisor: u64) -> Self {
        let divisor = if divisor == 0 { 1 } else { divisor };
        Self::from_bits(saturated(((dividend as u128) << 32) / divisor as u128))
    }

    /// The value × 2^32.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// `value` × ratio, rounded down, at most `u64::MAX`.
    #[must_use]
    pub const fn times(self, value: u64) -> u64 {
        saturated((value as u128 * self.0 as u128) >> 32)
    }

    /// `value` / ratio, rounded up, at most `u64::MAX`.
    #[must_use]
    pub const fn divide(self, value: u64) -> u64 {
        saturated(((value as u128) << 32).div_ceil(self.0 as u128))
    }
}

const fn saturated(value: u128) -> u64 {
    if value > u64::MAX as u128 { u64::MAX } else { value as u64 }
}

/// The time, and how the guest sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// The host's time stamp counter.
    pub now: u64,
    /// Ticks of the guest's time stamp counter for each of the host's.
    pub tsc_ratio: TscRatio,
    /// Added to the host's time stamp counter times the ratio, modulo 2^64, gives the guest's.
    pub tsc_offset: u64,
    /// Host ticks per count of the timer at divide 1, so per nanosecond: the timer's clock is 1 GHz.
    pub ticks_per_count: Ratio,
}

impl Clock {
    /// The guest's time stamp counter.
    #[inline]
    #[must_use]
    pub const fn guest_tsc(&self) -> u64 {
        self.tsc_ratio.times(self.now).wrapping_add(self.tsc_offset)
    }

    /// Host ticks until the guest's time stamp counter reaches a value, 0 if it has.
    #[inline]
    #[must_use]
    pub const fn ticks_until(&self, guest_tsc: u64) -> u64 {
        self.tsc_ratio.host_ticks(self.now, guest_tsc.saturating_sub(self.guest_tsc()))
    }
}
