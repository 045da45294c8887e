//! Time-stamp counters that run at another rate than the host's.

use dragonfly_abi::arch::guest::TscRatio;
use dragonfly_hw::x86::apic;
use dragonfly_vapic::{Clock, Ratio};
use proptest::prelude::*;

use crate::{cases, enabled, write};

/// Frequencies that processors have, and many more.
const FREQUENCIES: std::ops::Range<u64> = 100_000_000..20_000_000_000;

#[test]
fn the_hosts_own_rate_changes_nothing() {
    assert_eq!(TscRatio::new(2_400_000_000, 2_400_000_000), Some(TscRatio::ONE));
    for value in [0, 1, 1 << 47, u64::MAX] {
        assert_eq!((TscRatio::ONE.times(value), TscRatio::ONE.host_ticks(77, value)), (value, value));
    }
}

#[test]
fn what_is_no_ratio_is_refused() {
    for (guest, host) in [(0, 1), (1, 0), (0, 0), (1, u64::MAX), (1 << 16, 1), (u64::MAX, 1)] {
        assert_eq!(TscRatio::new(guest, host), None, "{guest} / {host}");
    }
    assert_eq!(TscRatio::from_bits(0), None);
    assert_eq!(TscRatio::new((1 << 16) - 1, 1).map(TscRatio::to_bits), Some(0xffff << 48));
}

#[test]
fn the_counter_wraps_as_the_processors_does() {
    let ratio = TscRatio::new(3, 2).unwrap();
    assert_eq!(ratio.times(u64::MAX), (u128::from(u64::MAX) * 3 / 2) as u64);
    assert_eq!(ratio.host_ticks(0, u64::MAX), (u128::from(u64::MAX) * 2).div_ceil(3) as u64);
    assert_eq!(TscRatio::new(1, 1000).unwrap().host_ticks(0, u64::MAX), u64::MAX, "more than there are");
}

#[test]
fn a_deadline_of_the_guest_comes_at_the_hosts_time_for_it() {
    let apic = enabled(0);
    write(&apic, apic::LVT_TIMER, u64::from(apic::TIMER_TSC_DEADLINE | 0xec));
    for (guest_hz, deadline, host) in
        [(2_000_000_000, 3_000, 1_500), (500_000_000, 3_000, 6_000), (1_000_000_000, 3_000, 3_000)]
    {
        let tsc_ratio = TscRatio::new(guest_hz, 1_000_000_000).unwrap();
        let now = 1 << 40;
        let clock =
            Clock { now, tsc_ratio, tsc_offset: tsc_ratio.times(now).wrapping_neg(), ticks_per_count: Ratio::ONE };
        assert_eq!(clock.guest_tsc(), 0);
        apic.set_tsc_deadline(deadline, clock);
        assert_eq!((apic.timer_deadline(), apic.tsc_deadline()), (Some(now + host), deadline));
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn an_hour_has_as_many_ticks_as_the_frequency_says(guest_hz in FREQUENCIES, host_hz in FREQUENCIES) {
        let ratio = TscRatio::new(guest_hz, host_hz).unwrap();
        let (found, exact) = (ratio.times(3600 * host_hz), 3600 * guest_hz);
        // The ratio is rounded down by less than 2^-48, and so is the product.
        prop_assert!(found <= exact && exact - found <= 2 + ((3600 * host_hz) >> 48), "{} for {}", found, exact);
    }

    #[test]
    fn a_deadline_is_never_early_nor_a_tick_too_late(
        guest_hz in FREQUENCIES,
        host_hz in FREQUENCIES,
        now in 0..1_u64 << 63,
        ticks in 0..1_u64 << 55,
    ) {
        let ratio = TscRatio::new(guest_hz, host_hz).unwrap();
        let host = ratio.host_ticks(now, ticks);
        let gone = |host: u64| {
            let product = |at: u128| (at * u128::from(ratio.to_bits())) >> 48;
            product(u128::from(now) + u128::from(host)) - product(now.into())
        };
        prop_assert!(gone(host) >= ticks.into());
        prop_assert!(host == 0 || gone(host - 1) < ticks.into());
    }
}
