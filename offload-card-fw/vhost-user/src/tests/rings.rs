use super::*;
use crate::MessageError;

#[test]
fn a_ring_runs_when_all_of_it_is_known_and_it_is_enabled() {
    let mut setup = Setup::negotiated();
    setup.describe_ring(1).unwrap();
    assert!(setup.device.running.is_empty());
    setup.enable(1, 1).unwrap();
    let expected = RingConfig { size: 256, base: 7, descriptor: 0x1_0000, available: 0x1_2000, used: 0x1_3000 };
    assert_eq!(setup.device.running, BTreeMap::from([(1, expected)]));
    assert_eq!(setup.platform.kicks[&1], Some(11));
}

#[test]
fn a_ring_may_be_enabled_before_it_is_described() {
    let mut setup = Setup::negotiated();
    setup.enable(2, 1).unwrap();
    setup.describe_ring(2).unwrap();
    assert!(setup.device.running.contains_key(&2));
}

#[test]
fn without_the_extension_rings_are_enabled_from_the_start() {
    let mut setup = Setup::default();
    setup.tell(Request::SetFeatures, &FEATURES).unwrap();
    setup.set_memory(&[RAM], &[1]).unwrap();
    setup.describe_ring(0).unwrap();
    assert!(setup.device.running.contains_key(&0));
}

#[test]
fn a_ring_stops_when_its_base_is_asked_for_and_goes_on_there() {
    let mut setup = Setup::running();
    let state = VringState { index: 1, num: 0 };
    let answer = setup.ask(Request::GetVringBase, state.as_bytes()).unwrap();
    assert_eq!(answer, VringState { index: 1, num: 12 }.as_bytes());
    assert!(setup.device.running.is_empty());
    assert_eq!(setup.platform.kicks[&1], None);
    setup.tell_with(Request::SetVringKick, &1u64, &[20]).unwrap();
    assert_eq!(setup.device.running[&1].base, 12);
}

#[test]
fn a_ring_that_is_disabled_stops_and_goes_on_when_it_is_enabled() {
    let mut setup = Setup::running();
    setup.enable(1, 0).unwrap();
    assert!(setup.device.running.is_empty());
    setup.enable(1, 1).unwrap();
    assert_eq!(setup.device.running[&1].base, 12);
}

#[test]
fn kick_call_and_err_can_be_left_out_and_changed_while_the_ring_runs() {
    let mut setup = Setup::running();
    setup.tell(Request::SetVringKick, &0x101u64).unwrap();
    setup.tell_with(Request::SetVringCall, &1u64, &[30]).unwrap();
    setup.tell_with(Request::SetVringErr, &1u64, &[31]).unwrap();
    assert_eq!(setup.platform.kicks[&1], None);
    assert_eq!((setup.platform.calls[&1], setup.platform.errs[&1]), (Some(30), Some(31)));
    setup.tell(Request::SetVringCall, &0x101u64).unwrap();
    assert_eq!(setup.platform.calls[&1], None);
    assert!(setup.device.running.contains_key(&1));
}

#[test]
fn what_a_running_ring_is_made_of_cannot_be_changed() {
    let state = VringState { index: 1, num: 8 };
    let runs = |request| Err(SessionError::RingRuns { request, index: 1 });
    for request in [Request::SetVringNum, Request::SetVringBase] {
        assert_eq!(Setup::running().tell(request, &state), runs(request));
    }
    assert_eq!(Setup::running().tell(Request::SetVringAddr, &addresses(1)), runs(Request::SetVringAddr));
    assert_eq!(Setup::running().tell(Request::SetFeatures, &0u64), runs(Request::SetFeatures));
    // The same ones again are no change.
    assert_eq!(Setup::running().tell(Request::SetFeatures, &ALL_FEATURES), Ok(()));
}

#[test]
fn wrong_numbers_are_refused_by_name() {
    use Request::{GetVringBase, SetVringAddr, SetVringBase, SetVringEnable, SetVringKick, SetVringNum};
    let no_queue = |index| SessionError::NoSuchQueue { index, queues: 3 };
    let wrong = |request, field, value| MessageError::WrongValue { request, field, value }.into();
    let state = |index, num| VringState { index, num }.as_bytes().to_vec();
    let logged = VringAddress { flags: 1, ..addresses(0) };
    for (request, payload, error) in [
        (SetVringNum, state(3, 8), no_queue(3)),
        (SetVringBase, state(u32::MAX, 8), no_queue(u32::MAX)),
        (GetVringBase, state(0x1_0000, 8), no_queue(0x1_0000)),
        (SetVringNum, state(0, 0), wrong(SetVringNum, "size", 0)),
        (SetVringNum, state(0, 0x8001), wrong(SetVringNum, "size", 0x8001)),
        (SetVringNum, state(0, 0x1_0001), wrong(SetVringNum, "size", 0x1_0001)),
        (SetVringEnable, state(0, 2), wrong(SetVringEnable, "state", 2)),
        (SetVringAddr, logged.as_bytes().to_vec(), wrong(SetVringAddr, "flags", 1)),
        (SetVringKick, 0x203u64.to_ne_bytes().to_vec(), wrong(SetVringKick, "index", 0x203)),
        (SetVringKick, 0x103u64.to_ne_bytes().to_vec(), no_queue(3)),
        (SetVringNum, vec![0; 7], MessageError::WrongLength { request: SetVringNum, size: 7 }.into()),
        (
            SetVringKick,
            0u64.to_ne_bytes().to_vec(),
            MessageError::WrongResources { request: SetVringKick, found: 0, wanted: 1 }.into(),
        ),
    ] {
        assert_eq!(Setup::negotiated().send(request, false, &payload, &[]), Err(error), "{request:?} {payload:?}");
    }
}

#[test]
fn resources_that_nothing_asked_for_are_refused() {
    for (request, payload) in [(Request::SetVringKick, 0x100u64), (Request::SetFeatures, FEATURES)] {
        let error = MessageError::WrongResources { request, found: 1, wanted: 0 };
        assert_eq!(Setup::negotiated().tell_with(request, &payload, &[5]), Err(error.into()));
    }
}

#[test]
fn a_ring_outside_the_guests_memory_is_refused() {
    let (inside, outside) = (RAM.user_address, RAM.user_address + RAM.size);
    for (part, descriptor, available, used) in [
        ("descriptor table", outside, inside, inside),
        ("available ring", inside, outside, inside),
        ("used ring", inside, inside, outside),
    ] {
        let mut setup = Setup::negotiated();
        let addresses = VringAddress { descriptor, available, used, ..addresses(0) };
        setup.tell(Request::SetVringNum, &VringState { index: 0, num: 8 }).unwrap();
        setup.tell(Request::SetVringAddr, &addresses).unwrap();
        setup.enable(0, 1).unwrap();
        let error = SessionError::RingOutside { index: 0, part, address: outside };
        assert_eq!(setup.tell_with(Request::SetVringKick, &0u64, &[5]), Err(error));
    }
}

#[test]
fn a_ring_that_the_device_refuses_ends_the_session() {
    let mut setup = Setup::negotiated();
    setup.device.refuses = true;
    setup.describe_ring(0).unwrap();
    assert_eq!(setup.enable(0, 1), Err(SessionError::Ring { index: 0, reason: "not this one" }));
}

#[test]
fn a_closed_session_has_stopped_its_rings_and_given_memory_back() {
    let mut setup = Setup::running();
    setup.session.close(&mut setup.device, &mut setup.platform);
    assert!(setup.device.running.is_empty() && setup.platform.regions.is_empty());
    assert!(setup.platform.kicks.values().all(Option::is_none));
    // Nothing of it is left for the next.
    assert_eq!(setup.ask_number(Request::GetStatus), Err(SessionError::NotNegotiated { request: Request::GetStatus }));
}
