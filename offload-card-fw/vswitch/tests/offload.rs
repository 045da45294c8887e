//! Checksums completed and frames cut, byte for byte as a simple reference does it.

mod common;

use common::*;
use dragonfly_vswitch::{
    Edit, MAX_PREFIX, MacAddress, Offload, PartialChecksum, PortId, SegmentKind, Segmentation,
    offload::{Features, OffloadError, finish},
    tunnel::{Tunnel, TunnelProtocol},
    vlan::TagEdit,
};
use proptest::prelude::*;

const PSH: u8 = 8;
const CWR: u8 = 128;

const NOTHING: Edit<'static> = Edit { strip: 0, tag: TagEdit::Keep, tunnel: None, flow_hash: 0 };

fn finished(
    frame: &[u8],
    offload: &Offload,
    edit: &Edit<'_>,
    features: Features,
) -> Result<Vec<(Vec<u8>, Offload)>, OffloadError> {
    let mut frames = Vec::new();
    let mut scratch = vec![0; frame.len() + MAX_PREFIX];
    finish(frame, offload, edit, features, &mut scratch, |frame, left| frames.push((frame.to_vec(), left)))?;
    Ok(frames)
}

/// Puts in the transport checksum, summed over everything.
fn with_checksum(mut build: Build) -> Build {
    let field = if build.protocol == 6 { 16 } else { 6 };
    build.transport[field..field + 2].fill(0);
    let sum = naive_checksum(&[build.pseudo_header(), build.transport.clone()].concat());
    // UDP's zero means none.
    let sum = if build.protocol == 17 && sum == 0 { 0xffff } else { sum };
    build.transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    build
}

/// What a guest leaves: the pseudo header's sum in the field.
fn with_partial_checksum(mut build: Build) -> Build {
    let field = if build.protocol == 6 { 16 } else { 6 };
    let sum = !naive_checksum(&build.pseudo_header());
    build.transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    build
}

fn partial(build: &Build) -> Option<PartialChecksum> {
    let ip = if build.is_v6 { 40 } else { 20 };
    let offset = if build.protocol == 6 { 16 } else { 6 };
    Some(PartialChecksum { start: 14 + 4 * build.tags.len() as u16 + ip, offset })
}

/// The reference: builds each segment from its own data and numbers.
fn cut(build: &Build, size: usize) -> Vec<Vec<u8>> {
    let header = if build.protocol == 6 { usize::from(build.transport[12] >> 4) * 4 } else { 8 };
    let (header, data) = build.transport.split_at(header);
    let count = data.len().div_ceil(size).max(1);
    let segment = |number: usize| {
        let part = &data[(number * size).min(data.len())..((number + 1) * size).min(data.len())];
        let mut build = Build {
            transport: [header, part].concat(),
            identification: build.identification.wrapping_add(number as u16),
            ..build.clone()
        };
        if build.protocol == 6 {
            let sequence = u32::from_be_bytes(header[4..8].try_into().expect("four bytes"));
            build.transport[4..8].copy_from_slice(&sequence.wrapping_add((number * size) as u32).to_be_bytes());
            build.transport[13] &= if number + 1 == count { 255 } else { !(FIN | PSH) };
            build.transport[13] &= if number == 0 { 255 } else { !CWR };
        } else {
            build.transport[4..6].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        }
        with_checksum(build).frame()
    };
    (0..count).map(segment).collect()
}

fn builds() -> impl Strategy<Value = Build> {
    let parts = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..4000),
        any::<(u32, u16, u8)>(),
    );
    parts.prop_map(|(is_tcp, is_v6, is_tagged, data, (sequence, identification, flags))| {
        let build = if is_tcp {
            Build::tcp(1, 2, (3, 4), Tcp { flags: flags & !SYN, sequence, acknowledgement: 9, window: 77 }, &data)
        } else {
            Build::udp(1, 2, (3, 4), &data)
        };
        let build = Build { identification, ..build };
        let build = if is_v6 { build.v6() } else { build };
        if is_tagged { build.tag(5) } else { build }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_missing_checksum_is_put_in(build in builds()) {
        let frame = with_partial_checksum(build.clone()).frame();
        let offload = Offload { checksum: partial(&build), ..Offload::default() };
        let expected = vec![(with_checksum(build).frame(), Offload::default())];
        prop_assert_eq!(finished(&frame, &offload, &NOTHING, Features::default()), Ok(expected));
    }

    #[test]
    fn a_long_frame_is_cut_into_segments(build in builds(), size in 1..3000_u16) {
        let size = size.max(build.transport.len() as u16 / 60);
        let kind = if build.protocol == 6 { SegmentKind::Tcp } else { SegmentKind::Udp };
        let segmentation = Some(Segmentation { kind, size });
        let offload = Offload { checksum: partial(&build), segmentation, ..Offload::default() };
        let frame = with_partial_checksum(build.clone()).frame();
        let expected: Vec<_> =
            cut(&build, size.into()).into_iter().map(|frame| (frame, Offload::default())).collect();
        prop_assert_eq!(finished(&frame, &offload, &NOTHING, Features::default()), Ok(expected));
    }
}

#[test]
fn what_the_receiver_can_do_is_left_to_it() {
    let build = Build::tcp(1, 2, (3, 4), Tcp { flags: ACK, ..Tcp::default() }, &[7; 3000]);
    let frame = with_partial_checksum(build.clone()).frame();
    let checksum = Offload { checksum: partial(&build), ..Offload::default() };
    let both = Offload { segmentation: Some(Segmentation { kind: SegmentKind::Tcp, size: 1000 }), ..checksum };
    let can_sum = Features { checksum: true, ..Features::default() };
    let can_cut = Features { tcp_v4: true, ..can_sum };
    let cases = [
        ("checksum", checksum, can_sum, 1, checksum),
        ("segments", both, can_cut, 1, both),
        ("segments of another family", both, Features { tcp_v6: true, ..can_sum }, 3, Offload::default()),
        ("segments without checksums", both, Features { checksum: false, ..can_cut }, 3, Offload::default()),
        ("checksum alone", both, can_sum, 3, Offload::default()),
    ];
    for (name, offload, features, count, left) in cases {
        let frames = finished(&frame, &offload, &NOTHING, features).expect(name);
        assert_eq!((frames.len(), frames[0].1), (count, left), "{name}");
    }
}

#[test]
fn a_tag_moves_what_is_left_to_do() {
    let build = Build::udp(1, 2, (3, 4), b"data");
    let tagged = build.clone().tag(9);
    let features = Features { checksum: true, ..Features::default() };
    let push = Edit { tag: TagEdit::Push(9), ..NOTHING };
    let pop = Edit { tag: TagEdit::Pop, ..NOTHING };
    for (from, edit, to) in [(&build, push, &tagged), (&tagged, pop, &build)] {
        let offload = Offload { checksum: partial(from), ..Offload::default() };
        let expected = (to.frame(), Offload { checksum: partial(to), ..offload });
        assert_eq!(finished(&from.frame(), &offload, &edit, features), Ok(vec![expected]));
    }
}

#[test]
fn a_long_frame_goes_into_a_tunnel_in_parts_with_right_checksums() {
    let tunnel = Tunnel {
        protocol: TunnelProtocol::Vxlan,
        network: 5,
        local: [192, 0, 2, 1].into(),
        remote: [192, 0, 2, 2].into(),
        local_mac: MacAddress([6, 0, 0, 0, 0, 1]),
        next_hop_mac: MacAddress([6, 0, 0, 0, 0, 2]),
        vlan: None,
        uplink: PortId(0),
        has_checksum: true,
    };
    let build = Build::tcp(1, 2, (3, 4), Tcp { flags: ACK, ..Tcp::default() }, &[7; 2500]);
    let frame = with_partial_checksum(build.clone()).frame();
    let segmentation = Some(Segmentation { kind: SegmentKind::Tcp, size: 1000 });
    let offload = Offload { checksum: partial(&build), segmentation, ..Offload::default() };
    let edit = Edit { tunnel: Some(&tunnel), ..NOTHING };
    let everything = Features { checksum: true, tcp_v4: true, tcp_v6: true, udp: true };
    let frames = finished(&frame, &offload, &edit, everything).expect("it can be cut");
    let inner = cut(&build, 1000);
    assert_eq!(frames.len(), 3);
    for ((outer, left), inner) in frames.iter().zip(&inner) {
        assert_eq!(outer[50..], inner[..]);
        assert_eq!(*left, Offload::default());
        let mut pseudo = [192, 0, 2, 1, 192, 0, 2, 2, 0, 17].to_vec();
        pseudo.extend((outer.len() as u16 - 34).to_be_bytes());
        assert_eq!(naive_checksum(&[&pseudo[..], &outer[34..]].concat()), 0);
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let build = Build::udp(1, 2, (3, 4), &[0; 100]);
    let frame = build.frame();
    let offload = |start, offset| Offload { checksum: Some(PartialChecksum { start, offset }), ..Offload::default() };
    let cut = |kind, size| Offload { segmentation: Some(Segmentation { kind, size }), ..Offload::default() };
    let mut arp = arp(1, 1, false);
    arp.extend([0; 60]);
    let cases = [
        (&frame, offload(143, 0), OffloadError::Checksum),
        (&frame, offload(34, 107), OffloadError::Checksum),
        (&frame, offload(u16::MAX, u16::MAX), OffloadError::Checksum),
        (&frame, cut(SegmentKind::Tcp, 10), OffloadError::Segmentation),
        (&frame, cut(SegmentKind::Udp, 0), OffloadError::Segmentation),
        (&arp, cut(SegmentKind::Udp, 10), OffloadError::Segmentation),
    ];
    for (frame, offload, error) in cases {
        assert_eq!(finished(frame, &offload, &NOTHING, Features::default()), Err(error), "{offload:?}");
    }
    let too_small = finish(&frame, &offload(34, 6), &NOTHING, Features::default(), &mut [0; 100], |_, _| {});
    assert_eq!(too_small, Err(OffloadError::Room));
}
