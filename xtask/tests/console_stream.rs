//! The serial line of the guests' consoles: what one end says, the other understands.

use dragonfly_console::{
    protocol::EndStatus,
    stream::{self, Input},
};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use xtask::guest::stream::{Decoder, Encoder, GuestEnd, MAX_GUESTS, Output};

fn parts() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    // The byte that starts a control is the one that matters.
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&[0x10, b'x', b'r', b'A'][..])];
    prop::collection::vec((0..MAX_GUESTS, prop::collection::vec(byte, 1..20)), 0..10)
}

/// The bytes, each with its console.
fn flat(parts: &[(usize, Vec<u8>)]) -> Vec<(usize, u8)> {
    parts.iter().flat_map(|(guest, bytes)| bytes.iter().map(|byte| (*guest, *byte))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_guests_print_arrives(parts in parts()) {
        let mut encoder = stream::Encoder::default();
        let line: Vec<u8> =
            flat(&parts).into_iter().flat_map(|(guest, byte)| encoder.byte(guest as u8, byte)).collect();
        let mut arrived = Vec::new();
        for output in Decoder::default().push(&line) {
            if let Output::Bytes { guest, bytes } = output {
                arrived.extend(bytes.into_iter().map(|byte| (guest, byte)));
            }
        }
        prop_assert_eq!(arrived, flat(&parts));
    }

    #[test]
    fn what_the_user_types_arrives(parts in parts()) {
        let mut encoder = Encoder::default();
        let line: Vec<u8> = parts.iter().flat_map(|(guest, bytes)| encoder.bytes(*guest, bytes)).collect();
        let mut decoder = stream::Decoder::default();
        let arrived: Vec<_> = line.into_iter().filter_map(|byte| decoder.byte(byte)).collect();
        let typed = flat(&parts).into_iter().map(|(guest, byte)| Input::Byte { console: guest as u8, byte });
        prop_assert_eq!(arrived, typed.collect::<Vec<_>>());
    }

    #[test]
    fn the_terminals_size_arrives(rows in 0..256_u16, columns in 0..256_u16) {
        let mut decoder = stream::Decoder::default();
        let arrived: Vec<_> = Encoder::window(rows, columns).into_iter().filter_map(|byte| decoder.byte(byte)).collect();
        prop_assert_eq!(arrived, [Input::Window { rows: rows as u8, columns: columns as u8 }]);
    }
}

#[test]
fn each_end_of_a_guest_arrives() {
    for (said, understood) in [
        (EndStatus::PoweredOff, GuestEnd::PoweredOff),
        (EndStatus::Crashed, GuestEnd::Crashed),
        (EndStatus::BadInput, GuestEnd::BadInput),
        (EndStatus::Rebooted, GuestEnd::Rebooted),
    ] {
        let line = stream::ended(17, said);
        assert_eq!(Decoder::default().push(&line), [Output::Ended { guest: 17, status: understood }]);
    }
}
