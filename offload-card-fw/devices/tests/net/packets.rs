//! Packets, made header by header and summed byte by byte: nothing here is the switch's.

use crate::station::{HEADER, MACS};

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub is_v6: bool,
    pub is_udp: bool,
}

pub const KINDS: [Kind; 4] = [
    Kind { is_v6: false, is_udp: false },
    Kind { is_v6: true, is_udp: false },
    Kind { is_v6: false, is_udp: true },
    Kind { is_v6: true, is_udp: true },
];

pub const PUSH: u8 = 0x08;
pub const FIN: u8 = 0x01;
const ACK: u8 = 0x10;

/// What tells one packet of a flow from another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    pub sequence: u32,
    pub id: u16,
    pub flags: u8,
}

impl Kind {
    /// Where the transport header begins.
    pub fn transport(self) -> usize {
        if self.is_v6 { 54 } else { 34 }
    }

    fn transport_header(self) -> usize {
        if self.is_udp { 8 } else { 20 }
    }

    /// Where the checksum is in the transport header.
    pub fn checksum_offset(self) -> usize {
        if self.is_udp { 6 } else { 16 }
    }

    /// A frame from the first station to the second one with its checksums.
    pub fn frame(self, place: Place, data: &[u8]) -> Vec<u8> {
        let mut frame = self.partial(place, data);
        let covered = &frame[self.transport()..];
        let mut checksum = !fold(sum(covered));
        if self.is_udp && checksum == 0 {
            checksum = 0xffff;
        }
        let at = self.transport() + self.checksum_offset();
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// The same with the pseudo header's sum in place of the transport checksum.
    pub fn partial(self, place: Place, data: &[u8]) -> Vec<u8> {
        let protocol = if self.is_udp { 17 } else { 6 };
        let len = self.transport_header() + data.len();
        let mut transport = [40_000u16, 443].map(u16::to_be_bytes).concat();
        if self.is_udp {
            transport.extend((len as u16).to_be_bytes());
            transport.extend([0, 0]);
        } else {
            transport.extend(place.sequence.to_be_bytes());
            transport.extend(7u32.to_be_bytes());
            transport.extend([0x50, ACK | place.flags, 0x10, 0, 0, 0, 0, 0]);
        }
        let (addresses, ip) = if self.is_v6 {
            let addresses = [[0xfd; 16], [0xfe; 16]].concat();
            let ip = [&[0x60, 0, 0, 0][..], &(len as u16).to_be_bytes(), &[protocol, 64], &addresses].concat();
            (addresses, ip)
        } else {
            let addresses = vec![10, 0, 0, 1, 10, 0, 0, 2];
            let [total, id] = [(20 + len) as u16, place.id].map(u16::to_be_bytes);
            let fields = [&[0x45, 0][..], &total, &id, &[0x40, 0, 64, protocol, 0, 0], &addresses];
            let mut ip = fields.concat();
            let checksum = !fold(sum(&ip));
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            (addresses, ip)
        };
        let pseudo = fold(sum(&addresses) + u64::from(protocol) + len as u64);
        let at = self.checksum_offset();
        transport[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        let ethertype: [u8; 2] = if self.is_v6 { [0x86, 0xdd] } else { [8, 0] };
        [&MACS[1].0[..], &MACS[0].0, &ethertype, &ip, &transport, data].concat()
    }

    /// What a stream's data is in frames of `size` bytes each.
    pub fn segments(self, first: Place, data: &[u8], size: usize) -> Vec<Vec<u8>> {
        let count = data.chunks(size).count();
        let segment = |(number, piece): (usize, &[u8])| {
            let flags = if number + 1 == count { first.flags } else { first.flags & !(PUSH | FIN) };
            let sequence = first.sequence.wrapping_add((number * size) as u32);
            self.frame(Place { sequence, id: first.id.wrapping_add(number as u16), flags }, piece)
        };
        data.chunks(size).enumerate().map(segment).collect()
    }

    /// The header of a frame that is to be cut into pieces of `size` bytes.
    pub fn cut(self, size: u16) -> [u8; HEADER] {
        let mut header = self.checksum_only();
        header[1] = match (self.is_udp, self.is_v6) {
            (true, _) => 5,
            (false, true) => 4,
            (false, false) => 1,
        };
        header[2..4].copy_from_slice(&((self.transport() + self.transport_header()) as u16).to_le_bytes());
        header[4..6].copy_from_slice(&size.to_le_bytes());
        header
    }

    /// The header of a frame whose checksum is to be completed.
    pub fn checksum_only(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = 1;
        header[6] = self.transport() as u8;
        header[8] = self.checksum_offset() as u8;
        header
    }
}

/// The sum of the words of a text, as RFC 1071 has it.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
