//! Checksums and segments: what arrives is the same whoever makes them.

use dragonfly_card_devices::Control;
use proptest::prelude::*;

use crate::{
    packets::{FIN, KINDS, Kind, PUSH, Place},
    station::*,
};

/// With the number of buffers that the device fills in.
fn in_buffers(mut header: [u8; HEADER], buffers: usize) -> [u8; HEADER] {
    header[10..].copy_from_slice(&(buffers as u16).to_le_bytes());
    header
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|place| (place * 7 + place / 251) as u8).collect()
}

#[derive(Clone, Debug)]
struct Stream {
    kind: Kind,
    place: Place,
    len: usize,
    size: u16,
    layout: u64,
    buffer: u32,
}

fn streams() -> impl Strategy<Value = Stream> {
    let place = (any::<u32>(), any::<u16>(), prop::sample::select(vec![0, PUSH, FIN | PUSH]))
        .prop_map(|(sequence, id, flags)| Place { sequence, id, flags });
    let layout = prop::sample::select(vec![0, 1 << 34, 1 << 29, 1 << 34 | 1 << 28 | 1 << 29]);
    (prop::sample::select(KINDS.to_vec()), place, 1..20_000usize, 100..1400u16, layout, 512..5000u32)
        .prop_map(|(kind, place, len, size, layout, buffer)| Stream { kind, place, len, size, layout, buffer })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_stream_arrives_in_the_same_bytes_whoever_cuts_it(stream in streams()) {
        let Stream { kind, place, len, size, layout, buffer } = stream;
        let data = data(len);
        let segments = kind.segments(place, &data, size.into());
        let whole = kind.partial(place, &data);
        let buffers = (HEADER + whole.len()).div_ceil(buffer as usize);
        for (sends, takes) in [
            (0, 0),
            (SENDS_ALL, 0),
            (SENDS_ALL, GUEST_CSUM),
            (SENDS_ALL, MRG_RXBUF),
            (0, TAKES_ALL),
            (SENDS_ALL, TAKES_ALL | MRG_RXBUF),
        ] {
            let (mut fabric, nets) = two_nets();
            let mut one = Station::new(&mut fabric, &nets[0], Control::Card, sends | layout);
            let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, takes | layout);
            if sends == 0 {
                segments.iter().for_each(|segment| one.send(&mut fabric, PLAIN, segment));
            } else {
                one.send(&mut fabric, kind.cut(size), &whole);
            }
            let room = if takes & MRG_RXBUF == 0 { 1600 } else { buffer };
            let frames = two.receive_by(&mut fabric, 0, room);
            if sends & takes.rotate_right(1) & CSUM != 0 && takes & GUEST_TSO4 != 0 {
                prop_assert_eq!(&frames, &[(in_buffers(kind.cut(size), buffers), whole.clone())]);
                continue;
            }
            prop_assert_eq!(frames.len(), segments.len());
            for ((header, frame), segment) in frames.iter().zip(&segments) {
                prop_assert_eq!(header, &in_buffers([0; HEADER], (HEADER + frame.len()).div_ceil(room as usize)));
                prop_assert_eq!(frame, segment, "sends {:#x}, takes {:#x}", sends, takes);
            }
        }
    }

    #[test]
    fn a_stream_leaves_by_the_uplink_as_it_is_on_the_wire(stream in streams()) {
        let Stream { kind, place, len, size, layout, .. } = stream;
        let data = data(len);
        let (mut fabric, nets) = nets("[[net]]\nname = 'one'\n");
        let uplink = fabric.add_uplink().unwrap();
        let mut one = Station::new(&mut fabric, &nets[0], Control::Card, SENDS_ALL | layout);
        one.send(&mut fabric, kind.cut(size), &kind.partial(place, &data));
        let frames: Vec<_> = std::iter::from_fn(|| fabric.take(uplink)).collect();
        prop_assert_eq!(frames, kind.segments(place, &data, size.into()));
    }
}

#[test]
fn a_checksum_is_completed_for_who_does_not_take_it_partial() {
    for kind in KINDS {
        for takes in [0, GUEST_CSUM] {
            let (mut fabric, nets) = two_nets();
            let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, CSUM);
            let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, takes);
            let (partial, complete) =
                (kind.partial(Place::default(), &data(99)), kind.frame(Place::default(), &data(99)));
            one.send(&mut fabric, kind.checksum_only(), &partial);
            let expected = if takes == 0 { (PLAIN, complete) } else { (in_buffers(kind.checksum_only(), 1), partial) };
            assert_eq!(two.receive_by(&mut fabric, 0, 1600), [expected], "{kind:?}");
        }
    }
}

#[test]
fn a_checksum_is_completed_for_each_receiver_by_itself() {
    let kind = KINDS[0];
    let (mut fabric, nets) = two_nets();
    let uplink = fabric.add_uplink().unwrap();
    let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, CSUM);
    let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, GUEST_CSUM);
    let to_all = |mut frame: Vec<u8>| {
        frame[..6].fill(0xff);
        frame
    };
    let partial = to_all(kind.partial(Place::default(), b"hello"));
    one.send(&mut fabric, kind.checksum_only(), &partial);
    assert_eq!(two.receive_by(&mut fabric, 0, 1600), [(in_buffers(kind.checksum_only(), 1), partial)]);
    assert_eq!(fabric.take(uplink), Some(to_all(kind.frame(Place::default(), b"hello"))));
}

#[test]
fn what_was_not_negotiated_is_not_claimed() {
    let [v4, v6, udp, _] = KINDS;
    let whole = |kind: Kind| kind.partial(Place::default(), &data(3000));
    let mut without_checksum = v4.cut(1000);
    without_checksum[0] = 0;
    let mut fragments = udp.cut(1000);
    fragments[1] = 3;
    for (sends, header, frame) in [
        (0, v4.checksum_only(), v4.partial(Place::default(), &[])),
        (CSUM, v4.cut(1000), whole(v4)),
        (CSUM | HOST_TSO4, v6.cut(1000), whole(v6)),
        (CSUM | HOST_TSO4 | HOST_TSO6, udp.cut(1000), whole(udp)),
        (SENDS_ALL, without_checksum, whole(v4)),
        (SENDS_ALL, fragments, whole(udp)),
        (SENDS_ALL, v4.cut(0), whole(v4)),
        (SENDS_ALL, v4.cut(1), whole(v4)),
        (SENDS_ALL, v4.cut(1000), whole(udp)),
        (SENDS_ALL, [0; HEADER], whole(v4)),
    ] {
        let (mut fabric, nets) = two_nets();
        let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, sends);
        let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, TAKES_ALL | MRG_RXBUF);
        one.send(&mut fabric, header, &frame);
        assert_eq!(two.receive_by(&mut fabric, 0, 1600), [], "{sends:#x} {header:?}");
    }
}

#[test]
fn segments_that_are_too_long_for_the_receiver_are_not_sent() {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, SENDS_ALL);
    let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, TAKES_ALL | MRG_RXBUF);
    for (size, count) in [(1460, 1), (1461, 0)] {
        one.send(&mut fabric, KINDS[0].cut(size), &KINDS[0].partial(Place::default(), &data(5000)));
        assert_eq!(two.receive_by(&mut fabric, 0, 1600).len(), count, "{size}");
    }
}
