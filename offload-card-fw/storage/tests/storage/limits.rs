//! Limits against a model, and in the long run.

use core::num::NonZeroU64;

use dragonfly_storage::{Limiter, Limits, Rate, TokenBucket, WaitUntil};
use proptest::prelude::*;

use crate::cases;

const SECOND: u64 = 1_000_000_000;

fn rate(per_second: u64, burst: u64) -> Rate {
    let positive = |value| NonZeroU64::new(value).expect("positive");
    Rate { per_second: positive(per_second), burst: positive(burst) }
}

/// The bucket as a schoolbook would write it: tokens as fractions of `SECOND`, in steps of a nanosecond's worth.
struct Model {
    rate: Rate,
    level: i128,
    now_ns: u64,
}

impl Model {
    fn level_at(&self, now_ns: u64) -> i128 {
        let gained = i128::from(now_ns - self.now_ns) * i128::from(self.rate.per_second.get());
        (self.level + gained).min(i128::from(self.rate.burst.get()) * i128::from(SECOND))
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_bucket_lets_pass_what_the_model_lets_pass(
        per_second in 1..5_000_000_000u64,
        burst in 1..10_000_000u64,
        steps in proptest::collection::vec((0..2 * SECOND, 1..1_000_000u64), 1..60),
    ) {
        let rate = rate(per_second, burst);
        let mut bucket = TokenBucket::new(rate, 0);
        let mut model = Model { rate, level: i128::from(burst) * i128::from(SECOND), now_ns: 0 };
        let mut now_ns = 0;
        for (pause_ns, cost) in steps {
            now_ns += pause_ns;
            let ready_at_ns = bucket.ready_at_ns(now_ns);
            prop_assert_eq!(ready_at_ns <= now_ns, model.level_at(now_ns) >= i128::from(SECOND));
            if ready_at_ns > now_ns {
                // It is ready when it says, and not a nanosecond before.
                prop_assert!(model.level_at(ready_at_ns) >= i128::from(SECOND));
                prop_assert!(model.level_at(ready_at_ns - 1) < i128::from(SECOND));
                now_ns = ready_at_ns;
                prop_assert_eq!(bucket.ready_at_ns(now_ns), now_ns);
            }
            bucket.take(cost);
            model.level = model.level_at(now_ns) - i128::from(cost) * i128::from(SECOND);
            model.now_ns = now_ns;
        }
    }

    #[test]
    fn in_the_long_run_the_rate_is_held_to_a_thousandth(
        per_second in 1000..4_000_000_000u64,
        burst_divisor in 1..1000u64,
        cost_divisor in 2..5000u64,
        wakeup_delay_ns in 0..1000u64,
    ) {
        // A millisecond's worth at least: more than what comes while somebody wakes up.
        let burst = (per_second / burst_divisor).max(1);
        let mut bucket = TokenBucket::new(rate(per_second, burst), 5);
        let cost = (per_second / cost_divisor).max(1);
        // What was saved up is spent first; then it is measured for as long as a thousand requests and a second take.
        bucket.take(burst);
        let (mut now_ns, mut spent, mut rounds) = (5, 0u64, 0);
        while rounds < 2000 || now_ns < SECOND {
            let ready_at_ns = bucket.ready_at_ns(now_ns);
            if ready_at_ns > now_ns {
                // Whoever waits wakes up a little late.
                now_ns = ready_at_ns + wakeup_delay_ns;
            } else {
                bucket.take(cost);
                spent += cost;
                rounds += 1;
            }
        }
        let ideal = u128::from(now_ns - 5) * u128::from(per_second) / u128::from(SECOND);
        // The last request may have gone into debt; that is not the rate's.
        let difference = u128::from(spent).abs_diff(ideal).saturating_sub(u128::from(cost));
        prop_assert!(difference * 1000 <= ideal, "{spent} of {ideal}");
    }

    #[test]
    fn no_time_and_no_rate_overflows(
        per_second in prop_oneof![1..=u64::MAX, Just(1), Just(u64::MAX)],
        burst in prop_oneof![1..=u64::MAX, Just(1), Just(u64::MAX)],
        steps in proptest::collection::vec((any::<u64>(), any::<u64>()), 1..40),
    ) {
        let mut bucket = TokenBucket::new(rate(per_second, burst), 0);
        for (now_ns, cost) in steps {
            let ready_at_ns = bucket.ready_at_ns(now_ns);
            bucket.take(cost);
            prop_assert!(ready_at_ns >= now_ns);
        }
    }
}

#[test]
fn a_burst_passes_at_once_and_then_the_rate_holds() {
    let mut limiter = Limiter::new(Limits { operations: Some(rate(1000, 10)), bytes: None }, 0);
    for _ in 0..10 {
        assert_eq!(limiter.admit(4096, 0), Ok(()));
    }
    assert_eq!(limiter.admit(4096, 0), Err(WaitUntil { ns: 1_000_000 }));
    assert_eq!(limiter.admit(4096, 999_999), Err(WaitUntil { ns: 1_000_000 }));
    assert_eq!(limiter.admit(4096, 1_000_000), Ok(()));
}

#[test]
fn a_request_larger_than_the_burst_passes_and_those_after_it_pay() {
    let mut limiter = Limiter::new(Limits { operations: None, bytes: Some(rate(1_000_000, 1000)) }, 0);
    assert_eq!(limiter.admit(101_000, 0), Ok(()));
    // A hundred thousand bytes of debt and one byte to spend.
    assert_eq!(limiter.admit(1, 0), Err(WaitUntil { ns: 100_001_000 }));
    assert_eq!(limiter.admit(1, 100_001_000), Ok(()));
}

#[test]
fn what_moves_no_bytes_does_not_wait_for_bytes() {
    let limits = Limits { operations: Some(rate(10, 10)), bytes: Some(rate(10, 10)) };
    let mut limiter = Limiter::new(limits, 0);
    assert_eq!(limiter.admit(1000, 0), Ok(()));
    assert_eq!(limiter.admit(0, 0), Ok(()));
}

#[test]
fn what_waits_for_one_limit_spends_nothing_of_the_other() {
    let limits = Limits { operations: Some(rate(1, 2)), bytes: Some(rate(1000, 1000)) };
    let mut limiter = Limiter::new(limits, 0);
    assert_eq!(limiter.admit(1000, 0), Ok(()));
    for _ in 0..100 {
        assert_eq!(limiter.admit(1000, 0), Err(WaitUntil { ns: 1_000_000 }));
    }
    assert_eq!(limiter.admit(1000, 1_000_000), Ok(()));
}

#[test]
fn a_volume_without_limits_never_waits() {
    let mut limiter = Limiter::new(Limits::default(), 0);
    assert!((0..1000).all(|_| limiter.admit(u64::MAX, 0).is_ok()));
}

#[test]
fn new_limits_hold_at_once_and_forgive_no_debt() {
    let mut limiter = Limiter::new(Limits { operations: None, bytes: Some(rate(100, 100)) }, 0);
    assert_eq!(limiter.admit(1100, 0), Ok(()));
    limiter.set_limits(Limits { operations: None, bytes: Some(rate(1000, 100)) }, 0);
    assert_eq!(limiter.admit(1, 0), Err(WaitUntil { ns: 1_001_000_000 }));
    limiter.set_limits(Limits::default(), 0);
    assert_eq!(limiter.admit(1, 0), Ok(()));
}

#[test]
fn time_that_runs_backwards_stands_still() {
    let mut limiter = Limiter::new(Limits { operations: Some(rate(1, 1)), bytes: None }, 10 * SECOND);
    assert_eq!(limiter.admit(0, 9 * SECOND), Ok(()));
    assert_eq!(limiter.admit(0, SECOND), Err(WaitUntil { ns: 11 * SECOND }));
}
