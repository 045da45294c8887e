//! A front end that talks to a session: what one says the other understands.

use super::*;
use crate::{FrontEnd, FrontEndError, MAX_MESSAGE, MessageError, Transport, wire::MAX_CONFIG};

impl Transport for Setup {
    type Resource = u32;
    type Error = Error;

    fn exchange(&mut self, message: &[u8], resources: &[u32], answer: &mut [u8; MAX_MESSAGE]) -> Result<usize, Error> {
        let (header, payload) = message.split_first_chunk().expect("a header");
        let header = Header::parse(*header)?;
        assert_eq!(header.payload_len, payload.len());
        let received = Received { header, payload, resources: resources.iter().copied().collect() };
        let reply = self.session.handle(received, &mut self.device, &mut self.platform)?;
        let bytes = reply.as_ref().map_or(&[][..], |reply| reply.bytes());
        answer[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

/// A front end that has agreed on everything and shared its memory.
fn negotiated() -> FrontEnd<Setup> {
    let mut front_end = FrontEnd::new(Setup::default());
    front_end.set_owner().unwrap();
    assert_eq!(front_end.features(), Ok(ALL_FEATURES));
    front_end.set_features(ALL_FEATURES).unwrap();
    assert_eq!(front_end.protocol_features(), Ok(ProtocolFeatures::all()));
    front_end.set_protocol_features(ProtocolFeatures::all()).unwrap();
    front_end.set_memory(&[(RAM, 1)]).unwrap();
    front_end
}

#[test]
fn a_session_serves_a_ring_that_a_front_end_describes_and_says_where_it_was() {
    let mut front_end = negotiated();
    assert_eq!(front_end.queues(), Ok(QUEUES.into()));
    front_end.set_ring_size(1, 256).unwrap();
    front_end.set_ring_base(1, 7).unwrap();
    front_end.set_ring_addresses(&addresses(1)).unwrap();
    front_end.set_call(1, Some(20)).unwrap();
    front_end.set_err(1, None).unwrap();
    front_end.set_kick(1, Some(10)).unwrap();
    front_end.enable_ring(1, true).unwrap();
    let setup = front_end.transport();
    assert_eq!(setup.device.running[&1].size, 256);
    assert_eq!(setup.platform.kicks[&1], Some(10));
    assert_eq!((setup.platform.calls[&1], setup.platform.errs[&1]), (Some(20), None));
    assert_eq!(front_end.stop_ring(1), Ok(12));
    assert!(front_end.transport().device.running.is_empty());
}

#[test]
fn the_configuration_space_is_read_and_written_in_parts() {
    let mut front_end = negotiated();
    front_end.transport().device.config = *b"12345678";
    let mut bytes = [0; 3];
    front_end.read_config(2, &mut bytes).unwrap();
    assert_eq!(&bytes, b"345");
    front_end.write_config(7, b"x").unwrap();
    assert_eq!(&front_end.transport().device.config, b"1234567x");
    let mut whole = [0; MAX_CONFIG];
    front_end.read_config(0, &mut whole).unwrap();
    assert_eq!(&whole[..9], b"1234567x\0");
}

#[test]
fn the_channel_for_changes_to_the_configuration_space_comes_alone() {
    let mut front_end = negotiated();
    front_end.set_back_end_channel(30).unwrap();
    let setup = front_end.transport();
    assert_eq!(setup.platform.channel, Some(30));
    let request = Request::SetBackendReqFd;
    for (found, resources) in [(0, &[][..]), (2, &[1, 2])] {
        let wrong = MessageError::WrongResources { request, found, wanted: 1 };
        assert_eq!(setup.send(request, false, &[], resources), Err(wrong.into()));
    }
    assert!(setup.send(request, false, &[0; 8], &[1]).is_err());
}

#[test]
fn memory_for_requests_under_way_outlives_a_reset() {
    let mut front_end = negotiated();
    let area = InflightArea { mmap_size: 0x4000, mmap_offset: 0, queues: 2, queue_size: 256, padding: 0 };
    front_end.set_inflight(&area, 30).unwrap();
    front_end.reset_device().unwrap();
    assert_eq!(front_end.transport().platform.inflight, Some((0x2000, 30)));
    assert_eq!(front_end.transport().device.resets, 1);
}

#[test]
fn what_does_not_fit_into_a_message_is_not_sent() {
    let mut front_end = negotiated();
    let too_much = |request| Err(FrontEndError::TooMuch { request });
    assert_eq!(front_end.set_memory(&[(RAM, 1); 9]), too_much(Request::SetMemTable));
    assert_eq!(front_end.read_config(1, &mut [0; MAX_CONFIG]), too_much(Request::GetConfig));
    assert_eq!(front_end.write_config(u32::MAX, &[0]), too_much(Request::SetConfig));
}

#[test]
fn a_card_that_ends_the_session_says_why() {
    let mut front_end = negotiated();
    let error = SessionError::Features { extra: 1 << 50 };
    let request = Request::SetFeatures;
    assert_eq!(front_end.set_features(1 << 50), Err(FrontEndError::Transport { request, error }));
}

/// A card that gives this answer to everything.
struct Fixed(Vec<u8>);

impl Transport for Fixed {
    type Resource = ();
    type Error = ();

    fn exchange(&mut self, _: &[u8], _: &[()], answer: &mut [u8; MAX_MESSAGE]) -> Result<usize, ()> {
        let size = self.0.len().min(answer.len());
        answer[..size].copy_from_slice(&self.0[..size]);
        // A careless transport may say more than there is room for.
        Ok(self.0.len())
    }
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    let good = [1_u32, 5, 8, 0xa, 0xb];
    let features = |words: &[u32]| FrontEnd::new(Fixed(words.as_bytes().to_vec())).features();
    assert_eq!(features(&good), Ok(0xb_0000_000a));
    let none = Err(FrontEndError::Answer { request: Request::GetFeatures });
    for words in [&[][..], &good[..2], &good[..4], &[15, 5, 8, 1, 2], &[1, 1, 8, 1, 2], &[1, 5, 9, 1, 2], &[0; 80]] {
        assert_eq!(features(words), none, "{words:?}");
    }
    let told = FrontEnd::new(Fixed(good.as_bytes().to_vec())).set_owner();
    assert_eq!(told, Err(FrontEndError::Answer { request: Request::SetOwner }));
}
