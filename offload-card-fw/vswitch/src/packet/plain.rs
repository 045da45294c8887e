//! The short way for what most frames are: TCP or UDP in IPv4 without tags, options or fragments.
//!
//! It gives the same result as the long way, or none.

use super::{FlowKey, Packet, TcpHeader, protocol};
use crate::bytes;

/// Where the parts of such a frame begin.
const NETWORK: usize = 14;
const TRANSPORT: usize = NETWORK + 20;

/// Ethernet, IPv4 and UDP, or as much of TCP.
const HEADERS: usize = TRANSPORT + 8;
const TCP_HEADER: usize = 20;

/// Reads a frame if it is plain and right; otherwise `packet` stays as it is.
#[inline(always)]
pub fn parse(packet: &mut Packet, head: &[u8], length: usize) -> Option<()> {
    let &[
        d0,
        d1,
        d2,
        d3,
        d4,
        d5,
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        t0,
        t1, //
        version,
        _,
        l0,
        l1,
        _,
        _,
        f0,
        f1,
        _,
        protocol,
        _,
        _,
        a0,
        a1,
        a2,
        a3,
        b0,
        b1,
        b2,
        b3, //
        p0,
        p1,
        q0,
        q1,
        u0,
        u1,
        _,
        _,
    ]: &[u8; HEADERS] = head.first_chunk()?;
    let total_length = usize::from(u16::from_be_bytes([l0, l1]));
    let end = NETWORK + total_length;
    // IPv4 with a header of five words, and neither an offset nor more fragments.
    let is_plain = [t0, t1, version] == [8, 0, 0x45] && u16::from_be_bytes([f0, f1]) & 0x3fff == 0;
    if !is_plain || end > length || end < HEADERS {
        return None;
    }
    let tcp = match protocol {
        protocol::UDP => {
            let datagram = usize::from(u16::from_be_bytes([u0, u1]));
            if datagram < 8 || TRANSPORT + datagram > end {
                return None;
            }
            TcpHeader::default()
        }
        protocol::TCP => tcp_header(head, end)?,
        _ => return None,
    };
    let ethernet = [[d0, d1, d2, d3, d4, d5, s0, s1], [s0, s1, s2, s3, s4, s5, t0, t1]];
    let key = FlowKey::of_plain_v4(ethernet, [[a0, a1, a2, a3], [b0, b1, b2, b3]], [p0, p1, q0, q1], protocol);
    *packet = Packet { key, tcp, fragment: None, network: NETWORK as u16, transport: TRANSPORT as u16 };
    Some(())
}

#[inline]
fn tcp_header(head: &[u8], end: usize) -> Option<TcpHeader> {
    let &[_, _, _, _, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, ..]: &[u8; TCP_HEADER] =
        bytes::array(head, TRANSPORT)?;
    let header_length = usize::from(offset >> 4) * 4;
    let data_length = end.checked_sub(TRANSPORT + header_length).filter(|_| header_length >= TCP_HEADER)?;
    Some(TcpHeader {
        sequence: u32::from_be_bytes([q0, q1, q2, q3]),
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        // An IP packet's length has 16 bits.
        data_length: data_length as u16,
        window: u16::from_be_bytes([w0, w1]),
        flags,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_short_way_never_differs_from_the_long_one(
            protocol in prop_oneof![Just(6_u8), Just(17), any::<u8>()],
            total_length in prop_oneof![Just(46_u16), 20_u16..60, any::<u16>()],
            udp_length in prop_oneof![Just(26_u16), any::<u16>()],
            data_offset in any::<u8>(),
            version in prop_oneof![Just(0x45_u8), Just(0x46), any::<u8>()],
            fragment in prop_oneof![Just(0x4000_u16), Just(0), any::<u16>()],
            other in proptest::collection::vec(any::<u8>(), 60),
            length in 30_usize..=60,
        ) {
            let mut frame = other;
            frame[12..15].copy_from_slice(&[8, 0, version]);
            frame[16..18].copy_from_slice(&total_length.to_be_bytes());
            frame[20..22].copy_from_slice(&fragment.to_be_bytes());
            frame[23] = protocol;
            if protocol == 17 {
                frame[38..40].copy_from_slice(&udp_length.to_be_bytes());
            }
            frame[46] = data_offset;
            frame.truncate(length);
            let (mut short, mut long) = (Packet::EMPTY, Packet::EMPTY);
            if parse(&mut short, &frame, frame.len()).is_some() {
                prop_assert_eq!(long.read_any(&frame, frame.len()), Ok(()));
                prop_assert_eq!(short, long);
            }
        }
    }
}
