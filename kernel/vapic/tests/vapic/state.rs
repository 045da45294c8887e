use dragonfly_abi::arch::guest::TscRatio;
use dragonfly_hw::x86::apic::{self, x2apic_msr};
use dragonfly_hw::x86::msr::ApicBase;
use dragonfly_vapic::{ApicState, Clock, LocalApic, Ratio, StateError, Trigger};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use crate::{at, cases, deliver, enabled, write};

/// What a guest and its devices do.
#[derive(Clone, Copy, Debug)]
enum Step {
    WriteMsr(u32, u64),
    WritePage(u32, u32),
    ReadPage(u32),
    SetBase(u64),
    SetDeadline(u64),
    Post(u8, bool),
    Deliver,
    Expire(u32),
}

fn step() -> impl Strategy<Value = Step> {
    // Words that are mostly free of reserved bits, so that they do something.
    let value =
        prop_oneof![any::<u32>(), 0u32..0x200, (0u32..0x20, any::<u8>()).prop_map(|(h, l)| h << 14 | u32::from(l))];
    let mode = prop::sample::select(vec![0, ApicBase::EN.bits(), (ApicBase::EN | ApicBase::EXTD).bits()]);
    prop_oneof![
        6 => (0x800u32..0x840, value.clone()).prop_map(|(register, value)| Step::WriteMsr(register, value.into())),
        6 => (0u32..0x40, value).prop_map(|(register, value)| Step::WritePage(register << 4, value)),
        1 => (0u32..0x1000).prop_map(Step::ReadPage),
        2 => mode.prop_map(|mode| Step::SetBase(0xfee0_0000 | mode)),
        1 => any::<u64>().prop_map(Step::SetDeadline),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(vector, is_level)| Step::Post(vector, is_level)),
        4 => Just(Step::Deliver),
        2 => any::<u32>().prop_map(Step::Expire),
    ]
}

/// Takes the steps; gives the time after them.
fn run(apic: &LocalApic, steps: &[Step]) -> Clock {
    let mut clock =
        Clock { now: 1 << 40, tsc_ratio: TscRatio::ONE, tsc_offset: 12345, ticks_per_count: Ratio::new(5, 2) };
    for &step in steps {
        match step {
            Step::WriteMsr(register, value) => drop(apic.write_msr(register, value, clock)),
            Step::WritePage(offset, value) => drop(apic.write_page(offset, value, clock)),
            Step::ReadPage(offset) => drop(apic.read_page(offset, clock)),
            Step::SetBase(base) => drop(apic.set_apic_base(base)),
            Step::SetDeadline(deadline) => apic.set_tsc_deadline(deadline, clock),
            Step::Post(vector, is_level) => {
                apic.post(vector, if is_level { Trigger::Level } else { Trigger::Edge });
            }
            Step::Deliver => {
                if let Some(vector) = apic.pending() {
                    deliver(apic, vector);
                }
            }
            Step::Expire(ticks) => {
                clock.now += u64::from(ticks);
                apic.timer_expired(clock);
            }
        }
    }
    clock
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn every_state_that_a_guest_reaches_can_be_restored(
        steps in prop::collection::vec(step(), 0..60), before in prop::collection::vec(step(), 0..20),
    ) {
        let apic = enabled(3);
        let clock = run(&apic, &steps);
        let state = apic.save(clock);
        let other = LocalApic::new(3);
        run(&other, &before);
        // On another machine, at another time: the guest's TSC is the same.
        let elsewhere = Clock { now: 77, tsc_offset: clock.guest_tsc().wrapping_sub(77), ..clock };
        prop_assert_eq!(other.restore(&state, elsewhere), Ok(()));
        prop_assert_eq!(other.save(elsewhere), state);
        prop_assert_eq!(other.pending(), apic.pending());
        prop_assert_eq!(other.priority_threshold(), apic.priority_threshold());
        prop_assert_eq!(other.end_of_interrupt(), apic.end_of_interrupt());
        prop_assert_eq!(other.post(0x50, Trigger::Edge), apic.post(0x50, Trigger::Edge));
    }

    #[test]
    fn a_state_from_anywhere_is_refused_or_kept_exactly(
        steps in prop::collection::vec(step(), 0..60), byte in 0..size_of::<ApicState>(), value: u8,
    ) {
        let apic = enabled(3);
        let clock = run(&apic, &steps);
        let mut state = apic.save(clock);
        state.as_mut_bytes()[byte] = value;
        let other = LocalApic::new(3);
        let fresh = other.save(clock);
        match other.restore(&state, clock) {
            // A deadline may have passed meanwhile: then it is due.
            Ok(()) if other.timer_deadline() == Some(clock.now) => {}
            Ok(()) => prop_assert_eq!(other.save(clock), state),
            Err(_) => prop_assert_eq!(other.save(clock), fresh),
        }
    }
}

#[test]
fn the_first_version_has_its_size_and_order() {
    assert_eq!(size_of::<ApicState>(), 192);
    let apic = enabled(3);
    write(&apic, apic::TIMER_INITIAL_COUNT, 0x1234_5678);
    apic.post(0x45, Trigger::Level);
    let state = apic.save(at(0));
    let bytes = state.as_bytes();
    assert_eq!(bytes[..8], [1, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(u64::read_from_bytes(&bytes[40..48]), Ok(1 << 5));
    assert_eq!(bytes[132..136], 0x1ffu32.to_le_bytes());
    assert_eq!(bytes[176..180], 0x1234_5678u32.to_le_bytes());
}

#[test]
fn another_version_is_refused() {
    let apic = enabled(3);
    let state = ApicState { version: ApicState::VERSION + 1, ..apic.save(at(0)) };
    assert_eq!(apic.restore(&state, at(0)), Err(StateError::Version));
}

#[test]
fn values_that_no_guest_can_reach_are_refused() {
    let apic = enabled(3);
    let good = apic.save(at(0));
    assert_eq!(apic.restore(&good, at(0)), Ok(()));
    let with_timer = |entry| {
        let mut lvt = good.lvt;
        lvt[0] = entry;
        ApicState { lvt, ..good }
    };
    let bad = [
        ("address beyond 52 bits", ApicState { base: good.base | 1 << 60, ..good }),
        ("no such mode", ApicState { base: 0xfee0_0400, ..good }),
        ("ID beyond xAPIC mode", ApicState { xapic_id: 0x100, ..good }),
        ("logical ID beyond xAPIC mode", ApicState { logical_id: 0x100, ..good }),
        ("destination format", ApicState { format: 0xf000_0000, ..good }),
        ("TPR", ApicState { task_priority: 0x100, ..good }),
        ("SVR", ApicState { spurious: 0x1000, ..good }),
        ("ESR", ApicState { error_status: 0x100, ..good }),
        ("errors", ApicState { errors: 0x100, ..good }),
        ("timer mode", with_timer(0x7_00ec)),
        ("unmasked while off", ApicState { spurious: 0xff, ..with_timer(0xec) }),
        ("exception requested", ApicState { requested: [1 << 15, 0, 0, 0], ..good }),
        ("exception in service", ApicState { in_service: [1, 0, 0, 0], ..good }),
        ("divide configuration", ApicState { divide: 4, ..good }),
        ("more left than there was", ApicState { current_count: 1, ..good }),
        ("a count in deadline mode", ApicState { initial_count: 1, current_count: 1, ..with_timer(0x4_00ec) }),
        ("deadline in another mode", ApicState { tsc_deadline: 1, ..good }),
        ("reserved", ApicState { reserved: 1, ..good }),
    ];
    for (what, state) in bad {
        assert_eq!(apic.restore(&state, at(0)), Err(StateError::Value), "{what}");
    }
}

#[test]
fn what_was_armed_before_is_not_armed_after() {
    let apic = enabled(3);
    let state = apic.save(at(0));
    write(&apic, apic::LVT_TIMER, (apic::TIMER_TSC_DEADLINE | 0xec).into());
    apic.set_tsc_deadline(1000, at(0));
    assert_eq!(apic.restore(&state, at(0)), Ok(()));
    assert_eq!((apic.tsc_deadline(), apic.timer_deadline()), (0, None));
}

#[test]
fn the_timer_goes_on_where_it_was() {
    let apic = enabled(3);
    write(&apic, apic::LVT_TIMER, (apic::TIMER_PERIODIC | 0xec).into());
    write(&apic, apic::TIMER_DIVIDE, apic::TIMER_DIVIDE_1.into());
    write(&apic, apic::TIMER_INITIAL_COUNT, 100);
    let state = apic.save(at(130));
    let other = LocalApic::new(3);
    assert_eq!(other.restore(&state, at(9000)), Ok(()));
    assert_eq!(other.pending(), Some(0xec), "what was due at the time of saving");
    assert_eq!(other.timer_deadline(), Some(9070));
    assert!(other.timer_expired(at(9070)));
    assert_eq!(other.timer_deadline(), Some(9170));
    assert_eq!(other.read_msr(x2apic_msr(apic::TIMER_CURRENT_COUNT), at(9170)), Ok(100));
}
