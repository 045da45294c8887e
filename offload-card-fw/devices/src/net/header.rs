//! The header before each frame of a ring (virtio 1.2 5.1.6): what is left to do about the frame.

use dragonfly_vswitch::{Family, Offload, PartialChecksum, SegmentKind, Segmentation, packet::Packet};

use super::{Features, frame::Buffered};

/// Bytes with the number of buffers, which legacy drivers without MRG_RXBUF leave out.
pub const HEADER: usize = 12;
const LEGACY_HEADER: usize = 10;

const FLAG_NEEDS_CSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// Bytes of the header that a driver with these features uses.
#[must_use]
pub const fn len(features: Features) -> usize {
    if features.intersects(Features::VERSION_1.union(Features::MRG_RXBUF)) { HEADER } else { LEGACY_HEADER }
}

/// What a driver says is left to do. `None` if it claims what it has not negotiated, or contradicts itself.
#[must_use]
pub fn parse(header: &[u8; HEADER], features: Features) -> Option<Offload> {
    let [flags, gso_type, ..] = *header;
    if (flags & FLAG_NEEDS_CSUM, gso_type) == (0, GSO_NONE) {
        return Some(Offload::default());
    }
    let [_, _, _, _, size_low, size_high, start_low, start_high, offset_low, offset_high, ..] = *header;
    let checksum = (flags & FLAG_NEEDS_CSUM != 0).then(|| PartialChecksum {
        start: u16::from_le_bytes([start_low, start_high]),
        offset: u16::from_le_bytes([offset_low, offset_high]),
    });
    if gso_type == GSO_NONE {
        let is_agreed = checksum.is_none() || features.contains(Features::CSUM);
        return is_agreed.then_some(Offload { checksum, ..Offload::default() });
    }
    let (kind, needed) = match gso_type {
        GSO_TCPV4 => (SegmentKind::Tcp, Features::HOST_TSO4),
        GSO_TCPV6 => (SegmentKind::Tcp, Features::HOST_TSO6),
        GSO_UDP_L4 => (SegmentKind::Udp, Features::HOST_USO),
        _ => return None,
    };
    let segmentation = Some(Segmentation { kind, size: u16::from_le_bytes([size_low, size_high]) });
    // Each segment gets a checksum, so the frame must leave its own to the device, too (virtio 1.2 5.1.6.2.1).
    let is_agreed = checksum.is_some() && features.contains(needed | Features::CSUM);
    is_agreed.then_some(Offload { checksum, segmentation, is_valid: false })
}

/// The header of a frame that fills so many buffers.
#[must_use]
pub fn of(frame: &Buffered, buffers: u16) -> [u8; HEADER] {
    let [first, rest] = words(frame, buffers);
    let mut header = [0; HEADER];
    let bytes = first.to_ne_bytes().into_iter().chain(rest.to_ne_bytes());
    header.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    header
}

/// The same in two words, whose bytes in memory are the header's and four behind it. For headers that are copied at once:
/// a CPU passes a word on from a store that waits, but not from stores of its bytes.
#[inline]
#[must_use]
pub fn words(frame: &Buffered, buffers: u16) -> [u64; 2] {
    let Offload { checksum, segmentation, is_valid } = frame.offload;
    if checksum.is_none() & segmentation.is_none() & !is_valid {
        return [0, (u64::from(buffers) << 16).to_le()];
    }
    words_of_offload(frame, buffers)
}

fn words_of_offload(frame: &Buffered, buffers: u16) -> [u64; 2] {
    let Offload { checksum, segmentation, is_valid } = frame.offload;
    let mut flags = if is_valid { FLAG_DATA_VALID } else { 0 };
    let (mut start, mut offset) = (0, 0);
    if let Some(checksum) = checksum {
        flags = FLAG_NEEDS_CSUM;
        (start, offset) = (checksum.start, checksum.offset);
    }
    let (mut gso_type, mut header_len, mut size) = (GSO_NONE, 0, 0);
    if let Some(cut) = segmentation
        && let Ok(packet) = Packet::parse(&frame.bytes, frame.bytes.len())
    {
        size = cut.size;
        gso_type = match (cut.kind, packet.family()) {
            (SegmentKind::Tcp, Some(Family::V6)) => GSO_TCPV6,
            (SegmentKind::Tcp, _) => GSO_TCPV4,
            (SegmentKind::Udp, _) => GSO_UDP_L4,
        };
        let transport = usize::from(packet.transport);
        let transport_header = match cut.kind {
            SegmentKind::Tcp => frame.bytes.get(transport + 12).map_or(0, |byte| usize::from(byte >> 4) * 4),
            SegmentKind::Udp => UDP_HEADER,
        };
        // Headers are in the first few hundred bytes.
        header_len = (transport + transport_header) as u16;
    }
    let kind = u16::from_le_bytes([flags, gso_type]);
    let word = |fields: [u16; 4]| fields.into_iter().rfold(0, |word, field| word << 16 | u64::from(field)).to_le();
    [word([kind, header_len, size, start]), word([offset, buffers, 0, 0])]
}
