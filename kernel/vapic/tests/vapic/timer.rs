use dragonfly_abi::arch::guest::TscRatio;
use dragonfly_hw::x86::apic::{self, x2apic_msr};
use dragonfly_vapic::{Clock, Effect, LocalApic, Ratio};
use proptest::prelude::*;

use crate::{at, cases, deliver_all, enabled, read, write};

const VECTOR: u32 = 0xec;
const MASKED: u32 = 1 << 16;

/// An APIC with the timer in `mode`.
fn with_timer(mode: u32) -> LocalApic {
    let apic = enabled(0);
    write(&apic, apic::LVT_TIMER, (mode | VECTOR).into());
    write(&apic, apic::TIMER_DIVIDE, apic::TIMER_DIVIDE_1.into());
    apic
}

fn start(apic: &LocalApic, count: u32, now: Clock) {
    let effect = apic.write_msr(x2apic_msr(apic::TIMER_INITIAL_COUNT), count.into(), now);
    assert_eq!(effect, Ok(Effect::TimerChanged));
}

fn current_count(apic: &LocalApic, now: Clock) -> u64 {
    apic.read_msr(x2apic_msr(apic::TIMER_CURRENT_COUNT), now).expect("the register can be read")
}

#[test]
fn a_one_shot_timer_interrupts_once() {
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    start(&apic, 100, at(1000));
    assert_eq!(apic.timer_deadline(), Some(1100));
    assert!(!apic.timer_expired(at(1099)));
    assert!(apic.timer_expired(at(1100)));
    assert_eq!(deliver_all(&apic), [VECTOR as u8]);
    assert_eq!(apic.timer_deadline(), None);
    assert!(!apic.timer_expired(at(5000)));
}

#[test]
fn a_periodic_timer_keeps_its_pace_and_skips_what_was_missed() {
    let apic = with_timer(apic::TIMER_PERIODIC);
    start(&apic, 100, at(1000));
    assert!(apic.timer_expired(at(1107)));
    assert_eq!(apic.timer_deadline(), Some(1200));
    assert!(apic.timer_expired(at(1999)));
    assert_eq!(apic.timer_deadline(), Some(2000));
    assert_eq!(deliver_all(&apic), [VECTOR as u8]);
    assert!(apic.timer_expired(at(2000)));
    assert_eq!(apic.timer_deadline(), Some(2100));
}

#[test]
fn an_initial_count_of_zero_stops() {
    for mode in [apic::TIMER_ONE_SHOT, apic::TIMER_PERIODIC] {
        let apic = with_timer(mode);
        start(&apic, 100, at(1000));
        start(&apic, 0, at(1010));
        assert_eq!(apic.timer_deadline(), None);
        assert_eq!(current_count(&apic, at(1020)), 0);
    }
}

#[test]
fn the_divide_configuration_slows_the_count() {
    let divisors = [
        (apic::TIMER_DIVIDE_1, 1),
        (apic::TIMER_DIVIDE_2, 2),
        (apic::TIMER_DIVIDE_4, 4),
        (apic::TIMER_DIVIDE_8, 8),
        (apic::TIMER_DIVIDE_16, 16),
        (apic::TIMER_DIVIDE_32, 32),
        (apic::TIMER_DIVIDE_64, 64),
        (apic::TIMER_DIVIDE_128, 128),
    ];
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    for (configuration, divisor) in divisors {
        write(&apic, apic::TIMER_DIVIDE, configuration.into());
        start(&apic, 10, at(1000));
        assert_eq!(apic.timer_deadline(), Some(1000 + 10 * divisor), "divided by {divisor}");
        start(&apic, 0, at(1000));
    }
}

#[test]
fn the_timer_counts_at_its_own_frequency() {
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    let clock = |now| Clock { now, tsc_ratio: TscRatio::ONE, tsc_offset: 0, ticks_per_count: Ratio::new(5, 2) };
    start(&apic, 1000, clock(0));
    assert_eq!(apic.timer_deadline(), Some(2500));
    assert_eq!(current_count(&apic, clock(1250)), 500);
    assert_eq!(current_count(&apic, clock(1251)), 500);
    assert_eq!(current_count(&apic, clock(2499)), 1);
}

#[test]
fn changing_the_divisor_keeps_the_count_that_is_left() {
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    start(&apic, 100, at(1000));
    let divide = x2apic_msr(apic::TIMER_DIVIDE);
    assert_eq!(apic.write_msr(divide, apic::TIMER_DIVIDE_4.into(), at(1060)), Ok(Effect::TimerChanged));
    assert_eq!(current_count(&apic, at(1060)), 40);
    assert_eq!(apic.timer_deadline(), Some(1060 + 160));
}

#[test]
fn a_masked_timer_counts_and_does_not_interrupt() {
    let apic = with_timer(apic::TIMER_ONE_SHOT | MASKED);
    start(&apic, 100, at(1000));
    assert_eq!(current_count(&apic, at(1030)), 70);
    assert!(!apic.timer_expired(at(1100)));
    assert_eq!(apic.timer_deadline(), None);
    assert_eq!(apic.pending(), None);
}

#[test]
fn a_timer_with_an_exceptions_vector_is_an_error() {
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    write(&apic, apic::LVT_TIMER, 3);
    start(&apic, 100, at(0));
    assert!(!apic.timer_expired(at(100)));
    write(&apic, apic::ESR, 0);
    assert_eq!(read(&apic, apic::ESR), 0x40);
}

#[test]
fn a_tsc_deadline_is_in_the_guests_time() {
    let apic = with_timer(apic::TIMER_TSC_DEADLINE);
    let clock = |now| Clock {
        now,
        tsc_ratio: TscRatio::ONE,
        tsc_offset: 0u64.wrapping_sub(1_000_000),
        ticks_per_count: Ratio::ONE,
    };
    apic.set_tsc_deadline(5000, clock(1_000_100));
    assert_eq!(apic.tsc_deadline(), 5000);
    assert_eq!(apic.timer_deadline(), Some(1_005_000));
    assert!(!apic.timer_expired(clock(1_004_999)));
    assert!(apic.timer_expired(clock(1_005_000)));
    assert_eq!((apic.tsc_deadline(), apic.timer_deadline()), (0, None));
    assert_eq!(deliver_all(&apic), [VECTOR as u8]);
}

#[test]
fn a_tsc_deadline_that_has_passed_expires_at_once() {
    let apic = with_timer(apic::TIMER_TSC_DEADLINE);
    apic.set_tsc_deadline(5, at(1000));
    assert_eq!(apic.timer_deadline(), Some(1000));
    assert!(apic.timer_expired(at(1000)));
}

#[test]
fn a_tsc_deadline_of_zero_disarms() {
    let apic = with_timer(apic::TIMER_TSC_DEADLINE);
    apic.set_tsc_deadline(5000, at(1000));
    apic.set_tsc_deadline(0, at(1000));
    assert_eq!((apic.tsc_deadline(), apic.timer_deadline()), (0, None));
}

#[test]
fn the_last_tsc_deadline_is_armed_and_never_comes() {
    let apic = with_timer(apic::TIMER_TSC_DEADLINE);
    apic.set_tsc_deadline(u64::MAX, at(1000));
    assert_eq!(apic.tsc_deadline(), u64::MAX);
    assert!(apic.timer_deadline().is_some_and(|deadline| deadline >= u64::MAX - 1));
}

#[test]
fn each_kind_of_timer_ignores_the_registers_of_the_other() {
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    apic.set_tsc_deadline(5000, at(0));
    assert_eq!((apic.tsc_deadline(), apic.timer_deadline()), (0, None));
    let apic = with_timer(apic::TIMER_TSC_DEADLINE);
    assert_eq!(write(&apic, apic::TIMER_INITIAL_COUNT, 100), Effect::None);
    assert_eq!((read(&apic, apic::TIMER_INITIAL_COUNT), apic.timer_deadline()), (0, None));
    apic.set_tsc_deadline(5000, at(0));
    assert_eq!(current_count(&apic, at(0)), 0);
}

#[test]
fn going_to_or_from_tsc_deadline_mode_disarms() {
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    start(&apic, 100, at(0));
    assert_eq!(write(&apic, apic::LVT_TIMER, (apic::TIMER_TSC_DEADLINE | VECTOR).into()), Effect::TimerChanged);
    assert_eq!(apic.timer_deadline(), None);
    apic.set_tsc_deadline(5000, at(0));
    assert_eq!(write(&apic, apic::LVT_TIMER, VECTOR.into()), Effect::TimerChanged);
    assert_eq!((apic.tsc_deadline(), apic.timer_deadline()), (0, None));
}

#[test]
fn a_one_shot_that_becomes_periodic_goes_on_counting() {
    let apic = with_timer(apic::TIMER_ONE_SHOT);
    start(&apic, 100, at(0));
    assert_eq!(write(&apic, apic::LVT_TIMER, (apic::TIMER_PERIODIC | VECTOR).into()), Effect::None);
    assert_eq!(apic.timer_deadline(), Some(100));
    assert!(apic.timer_expired(at(100)));
    assert_eq!(apic.timer_deadline(), Some(200));
}

#[test]
fn a_period_shorter_than_a_tick_is_a_tick() {
    let apic = with_timer(apic::TIMER_PERIODIC);
    let clock = |now| Clock { now, tsc_ratio: TscRatio::ONE, tsc_offset: 0, ticks_per_count: Ratio::new(1, 1000) };
    start(&apic, 1, clock(0));
    assert_eq!(apic.timer_deadline(), Some(1));
    assert!(apic.timer_expired(clock(10)));
    assert_eq!(apic.timer_deadline(), Some(11));
}

#[test]
fn an_init_disarms() {
    let apic = with_timer(apic::TIMER_PERIODIC);
    start(&apic, 100, at(0));
    apic.reset();
    assert_eq!(apic.timer_deadline(), None);
}

/// A timer that counts tick by tick.
struct Counter {
    is_periodic: bool,
    divisor: u32,
    initial: u32,
    count: u32,
    into_count: u32,
}

impl Counter {
    /// One tick later; true if it expires.
    fn tick(&mut self) -> bool {
        if self.count == 0 {
            return false;
        }
        self.into_count += 1;
        if self.into_count < self.divisor {
            return false;
        }
        self.into_count = 0;
        self.count -= 1;
        let is_expired = self.count == 0;
        if is_expired && self.is_periodic {
            self.count = self.initial;
        }
        is_expired
    }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn the_timer_counts_as_a_counter_does(
        is_periodic: bool,
        exponent in 0u32..8,
        steps in prop::collection::vec((0u32..400, prop::option::of(0u32..40)), 1..40),
    ) {
        let apic = with_timer(if is_periodic { apic::TIMER_PERIODIC } else { apic::TIMER_ONE_SHOT });
        let number = exponent.wrapping_sub(1) & 7;
        write(&apic, apic::TIMER_DIVIDE, (number & 3 | (number & 4) << 1).into());
        let mut counter = Counter { is_periodic, divisor: 1 << exponent, initial: 0, count: 0, into_count: 0 };
        let mut now = 1_000_000;
        for (ticks, restart) in steps {
            if let Some(count) = restart {
                start(&apic, count, at(now));
                counter = Counter { initial: count, count, into_count: 0, ..counter };
            }
            let expired = (0..ticks).filter(|_| counter.tick()).count();
            now += u64::from(ticks);
            // Reading does not depend on whether the expiry was seen to.
            prop_assert_eq!(current_count(&apic, at(now)), u64::from(counter.count));
            prop_assert_eq!(apic.timer_expired(at(now)), expired > 0);
            prop_assert_eq!(current_count(&apic, at(now)), u64::from(counter.count));
            prop_assert!(apic.timer_deadline().is_none_or(|deadline| deadline > now));
        }
    }

    #[test]
    fn no_time_ratio_or_count_goes_wrong(
        now: u64, later: u64, tsc_offset: u64, wide: u64, shift in 0u32..64, count: u32, divide in 0u32..16, deadline: u64, is_periodic: bool,
    ) {
        let clock = |now| Clock { now, tsc_ratio: TscRatio::ONE, tsc_offset, ticks_per_count: Ratio::from_bits(wide >> shift) };
        for mode in [if is_periodic { apic::TIMER_PERIODIC } else { apic::TIMER_ONE_SHOT }, apic::TIMER_TSC_DEADLINE] {
            let apic = with_timer(mode);
            write(&apic, apic::TIMER_DIVIDE, (divide & 0b1011).into());
            apic.write_msr(x2apic_msr(apic::TIMER_INITIAL_COUNT), count.into(), clock(now)).expect("any count will do");
            apic.set_tsc_deadline(deadline, clock(now));
            prop_assert!(current_count(&apic, clock(now)) <= count.into());
            apic.timer_expired(clock(later));
            prop_assert!(current_count(&apic, clock(later)) <= count.into());
        }
    }

    #[test]
    fn a_ratio_times_a_value_divided_by_it_is_the_value(bits in 1u64 << 32.., value in 0u64..1 << 32) {
        let ratio = Ratio::from_bits(bits);
        let product = ratio.times(value);
        prop_assume!(product < u64::MAX);
        prop_assert_eq!(ratio.divide(product), value);
    }
}
