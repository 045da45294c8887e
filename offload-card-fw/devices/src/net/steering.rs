//! Receive-side scaling (virtio 1.2 5.1.6.5.7): which pair of queues receives a frame, by a hash of its addresses and ports
//! and a table that the driver gives.

use alloc::vec::Vec;

use bitflags::bitflags;
use dragonfly_vswitch::{
    Family,
    packet::{Packet, protocol},
};

/// The longest key: what a hash of two IPv6 addresses and ports uses.
pub const MAX_KEY: usize = 40;
/// The most entries of a table.
pub const MAX_TABLE: u16 = 128;

bitflags! {
    /// What is hashed of which packets (5.1.6.4.3.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct HashTypes: u32 {
        /// Addresses of IPv4.
        const IPV4 = 1 << 0;
        /// Addresses and ports of TCP over IPv4.
        const TCPV4 = 1 << 1;
        /// Those of UDP.
        const UDPV4 = 1 << 2;
        /// Addresses of IPv6.
        const IPV6 = 1 << 3;
        /// Addresses and ports of TCP over IPv6.
        const TCPV6 = 1 << 4;
        /// Those of UDP.
        const UDPV6 = 1 << 5;
    }
}

/// What a driver has chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steering {
    types: HashTypes,
    key: [u8; MAX_KEY],
    /// Pairs of queues: as many as a power of two.
    table: Vec<u16>,
    /// The pair for what has no hash.
    unclassified: u16,
}

impl Steering {
    /// Reads `struct virtio_net_rss_config`, for a device with so many pairs; `None` if it cannot be done.
    pub fn parse(data: &[u8], pairs: u16) -> Option<Self> {
        let (types, data) = data.split_first_chunk()?;
        let (mask, data) = data.split_first_chunk()?;
        let (unclassified, data) = data.split_first_chunk()?;
        let types = HashTypes::from_bits(u32::from_le_bytes(*types))?;
        let len = u16::from_le_bytes(*mask).checked_add(1).filter(|len| len.is_power_of_two() && *len <= MAX_TABLE)?;
        let (table, data) = data.split_at_checked(usize::from(len) * 2)?;
        let (most_transmit, data) = data.split_first_chunk()?;
        let (key_len, given) = data.split_first()?;
        let table: Vec<_> = table.as_chunks().0.iter().copied().map(u16::from_le_bytes).collect();
        let unclassified = u16::from_le_bytes(*unclassified);
        let are_there = table.iter().chain([&unclassified]).all(|pair| *pair < pairs);
        let is_right =
            (1..=pairs).contains(&u16::from_le_bytes(*most_transmit)) && usize::from(*key_len) == given.len();
        let mut key = [0; MAX_KEY];
        key.get_mut(..given.len())?.copy_from_slice(given);
        (are_there && is_right).then_some(Self { types, key, table, unclassified })
    }

    /// What [`Self::parse`] reads as this.
    pub fn encode(&self) -> Vec<u8> {
        // A table has as many entries as a power of two, 128 at most. How many pairs send is nothing to the card.
        let mask = (self.table.len() as u16).wrapping_sub(1);
        let mut data = self.types.bits().to_le_bytes().to_vec();
        for number in [mask, self.unclassified].iter().chain(&self.table).chain(&[1]) {
            data.extend(number.to_le_bytes());
        }
        data.push(MAX_KEY as u8);
        data.extend(self.key);
        data
    }

    /// The pair that receives a frame.
    pub fn pair(&self, frame: &[u8]) -> u16 {
        let place = self.hash(frame).and_then(|hash| {
            // A table has as many entries as a power of two, so this is what the mask does.
            let at = (hash as usize).checked_rem(self.table.len())?;
            self.table.get(at).copied()
        });
        place.unwrap_or(self.unclassified)
    }

    /// The hash of what the driver has chosen for such a frame, if it has any.
    fn hash(&self, frame: &[u8]) -> Option<u32> {
        let packet = Packet::parse(frame, frame.len()).ok()?;
        // Where the addresses are, the source first, and how long both are.
        let (offset, len, [any, tcp, udp]) = match packet.family()? {
            Family::V4 => (12, 8, [HashTypes::IPV4, HashTypes::TCPV4, HashTypes::UDPV4]),
            Family::V6 => (8, 32, [HashTypes::IPV6, HashTypes::TCPV6, HashTypes::UDPV6]),
        };
        let with_ports = match packet.key.protocol() {
            protocol::TCP => self.types.contains(tcp),
            protocol::UDP => self.types.contains(udp),
            _ => false,
        };
        let addresses = frame.get(usize::from(packet.network) + offset..)?.get(..len)?;
        if with_ports && packet.fragment.is_none() {
            let ports = frame.get(usize::from(packet.transport)..)?.get(..4)?;
            Some(toeplitz(&self.key, addresses.iter().chain(ports)))
        } else {
            self.types.contains(any).then(|| toeplitz(&self.key, addresses))
        }
    }
}

/// Toeplitz's hash: for each bit that is set, the 32 bits of the key that begin at its place.
fn toeplitz<'a>(key: &[u8; MAX_KEY], input: impl IntoIterator<Item = &'a u8>) -> u32 {
    let [first, second, third, fourth, rest @ ..] = key;
    let mut window = u32::from_be_bytes([*first, *second, *third, *fourth]);
    let mut rest = rest.iter();
    let mut hash = 0;
    for byte in input {
        let wide = u64::from(window) << 8 | u64::from(rest.next().copied().unwrap_or(0));
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                hash ^= (wide >> (8 - bit)) as u32;
            }
        }
        window = wide as u32;
    }
    hash
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    /// The key, addresses, ports and hashes by which Microsoft has drivers verified ("Verifying the RSS Hash Calculation").
    const KEY: [u8; MAX_KEY] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];
    /// Source and destination with their ports, the hash of the addresses, and the hash of all.
    const VECTORS: [(&str, u16, &str, u16, u32, u32); 8] = [
        ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e_8fc2, 0x51cc_c178),
        ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718_262a, 0xc626_b0ea),
        ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0_a5de, 0x5c2b_394a),
        ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x8298_9176, 0xafc7_327f),
        ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d18_09c5, 0x10e8_28a2),
        ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc1_8cd5, 0x4020_7d3d),
        ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c_461c, 0xdde5_1bbf),
        ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024, 0x4b61_e985, 0x02d1_feef),
    ];

    fn octets(address: &str) -> Vec<u8> {
        match address.parse().unwrap() {
            std::net::IpAddr::V4(address) => address.octets().into(),
            std::net::IpAddr::V6(address) => address.octets().into(),
        }
    }

    /// A frame of this protocol without data.
    fn frame(source: (&str, u16), destination: (&str, u16), protocol: u8) -> Vec<u8> {
        let addresses = [octets(source.0), octets(destination.0)].concat();
        let mut transport = [source.1, destination.1].map(u16::to_be_bytes).concat();
        transport.extend(if protocol == 17 {
            vec![0, 8, 0, 0]
        } else {
            [&[0; 8][..], &[0x50, 0x10], &[0; 6]].concat()
        });
        let len = transport.len() as u8;
        let (ethertype, ip): ([u8; 2], _) = if addresses.len() == 8 {
            ([8, 0], vec![0x45, 0, 0, 20 + len, 0, 0, 0x40, 0, 64, protocol, 0, 0])
        } else {
            ([0x86, 0xdd], vec![0x60, 0, 0, 0, 0, len, protocol, 64])
        };
        [&[2; 12][..], &ethertype, &ip, &addresses, &transport].concat()
    }

    fn config(types: u32, table: &[u16], unclassified: u16, most_transmit: u16, key: &[u8]) -> Vec<u8> {
        let mask = (table.len() as u16).wrapping_sub(1);
        let table: Vec<u8> = table.iter().flat_map(|pair| pair.to_le_bytes()).collect();
        [
            &types.to_le_bytes()[..],
            &mask.to_le_bytes(),
            &unclassified.to_le_bytes(),
            &table,
            &most_transmit.to_le_bytes(),
            &[key.len() as u8],
            key,
        ]
        .concat()
    }

    #[test]
    fn hashes_are_those_that_are_known() {
        for (source, source_port, destination, destination_port, by_addresses, by_all) in VECTORS {
            for protocol in [6, 17] {
                let frame = frame((source, source_port), (destination, destination_port), protocol);
                for (types, hash) in [(0b00_1001, Some(by_addresses)), (0b11_1111, Some(by_all)), (0, None)] {
                    let steering = Steering::parse(&config(types, &[0], 0, 1, &KEY), 1).unwrap();
                    assert_eq!(steering.hash(&frame), hash, "{source} {protocol} {types:#x}");
                }
            }
        }
    }

    #[test]
    fn fragments_are_hashed_by_their_addresses() {
        let (source, source_port, destination, destination_port, by_addresses, _) = VECTORS[0];
        let mut frame = frame((source, source_port), (destination, destination_port), 17);
        // More fragments follow.
        frame[20] = 0x20;
        let steering = Steering::parse(&config(0b11_1111, &[0], 0, 1, &KEY), 1).unwrap();
        assert_eq!(steering.hash(&frame), Some(by_addresses));
    }

    #[test]
    fn the_table_says_which_pair_receives_a_hash() {
        let steering = Steering::parse(&config(0b10, &[0, 1, 2, 3], 3, 4, &KEY), 4).unwrap();
        for (source, source_port, destination, destination_port, _, by_all) in &VECTORS[..5] {
            let of = |protocol| frame((source, *source_port), (destination, *destination_port), protocol);
            assert_eq!(u32::from(steering.pair(&of(6))), by_all % 4);
            assert_eq!(steering.pair(&of(17)), 3, "it has no hash");
        }
        assert_eq!(steering.pair(&[]), 3);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let long = [0; MAX_KEY + 1];
        for (text, is_right) in [
            (config(0x3f, &[0, 1, 1, 0], 1, 2, &KEY), true),
            (config(0x3f, &[0; 128], 0, 1, &KEY), true),
            (config(0x3f, &[0], 0, 2, &[]), true),
            (config(0x40, &[0], 0, 1, &KEY), false),
            (config(0x3f, &[0; 3], 0, 1, &KEY), false),
            (config(0x3f, &[0; 256], 0, 1, &KEY), false),
            (config(0x3f, &[], 0, 1, &KEY), false),
            (config(0x3f, &[0, 2], 0, 1, &KEY), false),
            (config(0x3f, &[0], 2, 1, &KEY), false),
            (config(0x3f, &[0], 0, 0, &KEY), false),
            (config(0x3f, &[0], 0, 3, &KEY), false),
            (config(0x3f, &[0], 0, 1, &long), false),
            ([&config(0x3f, &[0], 0, 1, &KEY)[..], &[0]].concat(), false),
        ] {
            let parsed = Steering::parse(&text, 2);
            assert_eq!(parsed.is_some(), is_right, "{text:?}");
            assert_eq!(parsed.as_ref().and_then(|steering| Steering::parse(&steering.encode(), 2)), parsed);
        }
        let whole = config(0x3f, &[0, 1], 0, 1, &KEY);
        for len in 0..whole.len() {
            assert_eq!(Steering::parse(&whole[..len], 2), None, "{len}");
        }
    }
}
