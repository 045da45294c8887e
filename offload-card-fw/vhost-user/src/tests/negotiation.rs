use super::*;
use crate::MessageError;

#[test]
fn the_devices_features_are_offered_with_the_protocols_own() {
    assert_eq!(Setup::default().ask_number(Request::GetFeatures), Ok(FEATURES | F_PROTOCOL_FEATURES));
}

#[test]
fn the_device_hears_of_its_features_only() {
    let mut setup = Setup::default();
    setup.tell(Request::SetFeatures, &(1u64 << 32 | F_PROTOCOL_FEATURES)).unwrap();
    assert_eq!(setup.device.features, 1 << 32);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut setup = Setup::default();
    assert_eq!(setup.tell(Request::SetFeatures, &(1u64 << 33)), Err(SessionError::Features { extra: 1 << 33 }));
    assert_eq!(setup.tell(Request::SetProtocolFeatures, &(1u64 << 1)), Err(SessionError::Features { extra: 2 }));
}

#[test]
fn the_number_of_queues_and_regions_can_be_asked_for() {
    let mut setup = Setup::negotiated();
    assert_eq!(setup.ask_number(Request::GetQueueNum), Ok(3));
    assert_eq!(setup.ask_number(Request::GetMaxMemSlots), Ok(32));
}

#[test]
fn a_request_of_an_extension_that_was_not_negotiated_is_refused() {
    for request in [
        Request::SetBackendReqFd,
        Request::GetConfig,
        Request::SetConfig,
        Request::GetInflightFd,
        Request::SetInflightFd,
        Request::ResetDevice,
        Request::GetMaxMemSlots,
        Request::AddMemReg,
        Request::RemMemReg,
        Request::SetStatus,
        Request::GetStatus,
    ] {
        assert_eq!(
            Setup::default().send(request, false, &[], &[]),
            Err(SessionError::NotNegotiated { request }),
            "{request:?}"
        );
    }
}

#[test]
fn a_request_is_acknowledged_when_that_is_negotiated_and_asked_for() {
    let features = FEATURES.to_ne_bytes();
    let mut setup = Setup::default();
    assert_eq!(setup.send(Request::SetFeatures, true, &features, &[]), Ok(None));
    setup.tell(Request::SetProtocolFeatures, &ProtocolFeatures::REPLY_ACK.bits()).unwrap();
    assert_eq!(setup.send(Request::SetFeatures, true, &features, &[]), Ok(Some(vec![0; 8])));
    assert_eq!(setup.send(Request::SetFeatures, false, &features, &[]), Ok(None));
    // One with an answer of its own gets no other.
    assert_eq!(setup.send(Request::GetQueueNum, true, &[], &[]), Ok(Some(3u64.to_ne_bytes().to_vec())));
}

/// Offset, size and flags, and bytes.
fn access(words: [u32; 3], bytes: &[u8]) -> Vec<u8> {
    [words.as_bytes(), bytes].concat()
}

#[test]
fn the_configuration_space_is_read_and_zero_behind_its_end() {
    let mut setup = Setup::negotiated();
    setup.device.config = [1, 2, 3, 4, 5, 6, 7, 8];
    let answer = setup.ask(Request::GetConfig, &access([6, 4, 0], &[0xff; 4]));
    assert_eq!(answer, Ok(access([6, 4, 0], &[7, 8, 0, 0])));
    let whole = setup.ask(Request::GetConfig, &access([0, 256, 0], &[0; 256])).unwrap();
    assert_eq!(whole.len(), 268);
}

#[test]
fn what_the_guest_may_not_write_is_refused_and_the_session_goes_on() {
    let mut setup = Setup::negotiated();
    for (words, bytes, answer) in [([7, 1, 0], &[9][..], 0u64), ([6, 1, 0], &[9], 1), ([7, 1, 1], &[8], 1)] {
        let reply = setup.send(Request::SetConfig, true, &access(words, bytes), &[]);
        assert_eq!(reply, Ok(Some(answer.to_ne_bytes().to_vec())), "{words:?}");
    }
    assert_eq!(setup.device.config, [0, 0, 0, 0, 0, 0, 0, 9]);
}

#[test]
fn accesses_to_the_configuration_space_that_contradict_themselves_are_refused() {
    let request = Request::GetConfig;
    for (payload, error) in [
        (access([0, 5, 0], &[0; 4]), MessageError::WrongLength { request, size: 16 }),
        (access([0, 4, 0], &[0; 5]), MessageError::WrongLength { request, size: 17 }),
        (vec![0; 11], MessageError::WrongLength { request, size: 11 }),
        (access([253, 4, 0], &[0; 4]), MessageError::WrongValue { request, field: "end", value: 257 }),
        (
            access([u32::MAX, u32::MAX, 0], &[]),
            MessageError::WrongValue { request, field: "end", value: 0x1_ffff_fffe },
        ),
    ] {
        assert_eq!(Setup::negotiated().ask(request, &payload), Err(error.into()), "{payload:?}");
    }
}

#[test]
fn the_status_is_kept_and_zero_resets_the_device() {
    let mut setup = Setup::running();
    setup.tell(Request::SetStatus, &7u64).unwrap();
    assert_eq!((setup.ask_number(Request::GetStatus), setup.device.resets), (Ok(7), 0));
    setup.tell(Request::SetStatus, &0u64).unwrap();
    assert_eq!((setup.device.resets, setup.device.features), (1, 0));
    assert!(setup.device.running.is_empty());
    let error = MessageError::WrongValue { request: Request::SetStatus, field: "status", value: 256 };
    assert_eq!(setup.tell(Request::SetStatus, &256u64), Err(error.into()));
}

#[test]
fn a_reset_stops_rings_and_disables_them() {
    let mut setup = Setup::running();
    setup.tell(Request::ResetDevice, &()).unwrap();
    assert_eq!(setup.device.resets, 1);
    setup.tell(Request::SetFeatures, &ALL_FEATURES).unwrap();
    setup.describe_ring(1).unwrap();
    assert!(setup.device.running.is_empty(), "not enabled again");
}
