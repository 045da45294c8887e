use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

proptest! {
    /// The device and the platform check that no ring is started or stopped twice, and no region mapped or unmapped twice.
    #[test]
    fn whatever_a_client_sends_the_device_sees_a_proper_life(
        messages in vec(
            (select(Request::ALL), any::<bool>(), vec(any::<u8>(), 0..64), vec(any::<u32>(), 0..3), 0..4u32),
            0..40,
        )
    ) {
        let mut setup = Setup::negotiated();
        for (request, needs_reply, payload, resources, index) in messages {
            // Half of them are meant well, so that the session gets somewhere.
            let result = if needs_reply {
                setup.send(request, true, &payload, &resources).map(drop)
            } else {
                setup.describe_ring(index).and_then(|()| setup.enable(index, u32::from(payload.len() % 2 == 0)))
            };
            if result.is_err() {
                setup.session.close(&mut setup.device, &mut setup.platform);
                prop_assert!(setup.device.running.is_empty() && setup.platform.regions.is_empty());
                setup = Setup { device: setup.device, platform: setup.platform, ..Setup::default() };
                setup.tell(Request::SetProtocolFeatures, &ProtocolFeatures::all().bits()).unwrap();
                setup.tell(Request::SetFeatures, &ALL_FEATURES).unwrap();
                setup.set_memory(&[RAM], &[1]).unwrap();
            }
        }
    }
}
