//! Ticks to nanoseconds and back.

use super::{PLAUSIBLE_HZ, saturated};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Converts between ticks and nanoseconds without division.
///
/// Both directions are monotonic and saturate at `u64::MAX`, which nanoseconds reach after 584 years. The error is
/// below one part in 2^62 and never makes a deadline early: `ns_from_ticks(ticks_from_ns(ns)) >= ns`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TickScale {
    ns_per_tick: Ratio,
    ticks_per_ns: Ratio,
}

impl TickScale {
    /// The scale of a counter of `hz`. `None` if that is not between 1 MHz and 100 GHz.
    #[must_use]
    pub fn new(hz: u64) -> Option<Self> {
        if !PLAUSIBLE_HZ.contains(&hz) {
            return None;
        }
        Some(Self { ns_per_tick: Ratio::new(NS_PER_SECOND, hz)?, ticks_per_ns: Ratio::new(hz, NS_PER_SECOND)? })
    }

    /// Nanoseconds that `ticks` take, rounded down.
    #[inline]
    #[must_use]
    pub fn ns_from_ticks(&self, ticks: u64) -> u64 {
        saturated(self.ns_per_tick.product(ticks) >> self.ns_per_tick.shift)
    }

    /// Ticks until `ns` nanoseconds have passed, rounded up.
    #[inline]
    #[must_use]
    pub fn ticks_from_ns(&self, ns: u64) -> u64 {
        let product = self.ticks_per_ns.product(ns);
        let whole = product >> self.ticks_per_ns.shift;
        let is_exact = whole << self.ticks_per_ns.shift == product;
        saturated(whole + u128::from(!is_exact))
    }
}

/// `multiplier / 2^shift`, with as many bits as fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ratio {
    multiplier: u64,
    shift: u32,
}

impl Ratio {
    /// Highest shift that is tried: the plausible frequencies need 73, and their 37 bits shifted so far fit.
    const MAX_SHIFT: u32 = 80;

    /// Not below `numerator / denominator`, and above it by less than one part in 2^62.
    fn new(numerator: u64, denominator: u64) -> Option<Self> {
        (0..=Self::MAX_SHIFT).rev().find_map(|shift| {
            let shifted = u128::from(numerator).checked_mul(1 << shift)?;
            let multiplier = u64::try_from(shifted.div_ceil(u128::from(denominator))).ok()?;
            Some(Self { multiplier, shift })
        })
    }

    #[inline]
    fn product(self, value: u64) -> u128 {
        u128::from(value) * u128::from(self.multiplier)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_scale_exists_for_plausible_frequencies_only() {
        assert_eq!(TickScale::new(999_999), None);
        assert_eq!(TickScale::new(100_000_000_001), None);
        assert!(TickScale::new(1_000_000).is_some() && TickScale::new(100_000_000_000).is_some());
    }

    #[test]
    fn one_tick_a_nanosecond_is_exact_and_the_ends_saturate() {
        let scale = TickScale::new(1_000_000_000).unwrap();
        for value in [0, 1, 12_345, u64::MAX] {
            assert_eq!((scale.ns_from_ticks(value), scale.ticks_from_ns(value)), (value, value));
        }
        assert_eq!(TickScale::new(1_000_000).unwrap().ns_from_ticks(u64::MAX), u64::MAX);
        assert_eq!(TickScale::new(100_000_000_000).unwrap().ticks_from_ns(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn conversions_are_within_three_units_of_the_exact_value(hz in PLAUSIBLE_HZ, value: u64) {
            let scale = TickScale::new(hz).unwrap();
            let exact_ns = u128::from(value) * u128::from(NS_PER_SECOND) / u128::from(hz);
            let ns = u128::from(scale.ns_from_ticks(value));
            prop_assert!((exact_ns.min(u64::MAX.into())..=exact_ns + 3).contains(&ns), "{} for {}", ns, exact_ns);
            let exact_ticks = (u128::from(value) * u128::from(hz)).div_ceil(u128::from(NS_PER_SECOND));
            let ticks = u128::from(scale.ticks_from_ns(value));
            let least = exact_ticks.min(u64::MAX.into());
            prop_assert!((least..=exact_ticks + 3).contains(&ticks), "{} for {}", ticks, exact_ticks);
        }

        #[test]
        fn conversions_are_monotonic(hz in PLAUSIBLE_HZ, value in 0..u64::MAX, step in 1..1_000_000u64) {
            let scale = TickScale::new(hz).unwrap();
            let later = value.saturating_add(step);
            prop_assert!(scale.ns_from_ticks(value) <= scale.ns_from_ticks(later));
            prop_assert!(scale.ticks_from_ns(value) <= scale.ticks_from_ns(later));
        }

        #[test]
        fn a_deadline_in_ticks_is_never_early(hz in PLAUSIBLE_HZ, ns: u64) {
            let scale = TickScale::new(hz).unwrap();
            let ticks = scale.ticks_from_ns(ns);
            prop_assert!(ticks == u64::MAX || scale.ns_from_ticks(ticks) >= ns);
        }
    }
}
