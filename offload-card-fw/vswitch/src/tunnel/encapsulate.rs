//! Outer headers.

use super::{SHIM, Tunnel, TunnelProtocol, UDP};
use crate::{
    address::{Family, address_bits},
    bytes::put,
    checksum::{self, Checksum},
    frame::PartialChecksum,
    packet::{ethertype, protocol},
};

/// Hops that an outer packet may take.
const HOP_LIMIT: u8 = 64;

/// `EtherType` of a bridged Ethernet frame within Geneve (RFC 8926 3.4).
pub const TRANSPARENT_ETHERNET: u16 = 0x6558;

/// The low end of the ports from which outer packets come; their number tells routers flows apart (RFC 7348 5).
const FIRST_SOURCE_PORT: u16 = 49_152;

impl Tunnel {
    /// Writes the outer headers for an inner frame of `length` bytes, from a port that depends on its flow's hash.
    /// `None` if `header` has not [`Self::header_length`] bytes, or the whole would be longer than an IP packet can be.
    ///
    /// Outer packets are not to be fragmented, and carry no congestion marks (RFC 6040 4.1, compatibility mode).
    #[must_use]
    pub fn write_header(&self, length: usize, flow_hash: u64, header: &mut [u8]) -> Option<()> {
        let ip = self.ip_offset();
        let udp = ip + self.ip_length();
        let udp_length = u16::try_from(UDP + SHIM + length).ok()?;
        let source_port = FIRST_SOURCE_PORT | (flow_hash >> 32) as u16;
        header.fill(0);
        put(header, 0, &self.next_hop_mac.0)?;
        put(header, 6, &self.local_mac.0)?;
        if let Some(vlan) = self.vlan {
            put(header, 12, &ethertype::VLAN.to_be_bytes())?;
            put(header, 14, &vlan.to_be_bytes())?;
        }
        self.write_ip(header, ip, udp_length)?;
        put(header, udp, &source_port.to_be_bytes())?;
        put(header, udp + 2, &self.protocol.port().to_be_bytes())?;
        put(header, udp + 4, &udp_length.to_be_bytes())?;
        if self.has_checksum {
            let mut sum = Checksum::default();
            let addresses = (address_bits(self.local).1, address_bits(self.remote).1);
            sum.add_pseudo_header(self.family(), addresses, protocol::UDP, udp_length.into());
            put(header, udp + 6, &sum.folded().to_be_bytes())?;
        }
        match self.protocol {
            // The flag says that the network's number is there.
            TunnelProtocol::Vxlan => put(header, udp + UDP, &[0x08])?,
            TunnelProtocol::Geneve => put(header, udp + UDP + 2, &TRANSPARENT_ETHERNET.to_be_bytes())?,
        }
        put(header, udp + UDP + 4, &(self.network << 8).to_be_bytes())
    }

    /// The outer checksum that [`Self::write_header`] leaves partial.
    pub(crate) fn partial_checksum(&self) -> Option<PartialChecksum> {
        // At most 58.
        let start = (self.ip_offset() + self.ip_length()) as u16;
        self.has_checksum.then_some(PartialChecksum { start, offset: 6 })
    }

    fn write_ip(&self, header: &mut [u8], at: usize, udp_length: u16) -> Option<()> {
        let addresses = (address_bits(self.local).1, address_bits(self.remote).1);
        match self.family() {
            Family::V4 => {
                let total_length = udp_length.checked_add(20)?;
                put(header, at - 2, &ethertype::IPV4.to_be_bytes())?;
                put(header, at, &[0x45])?;
                put(header, at + 2, &total_length.to_be_bytes())?;
                // Do not fragment.
                put(header, at + 6, &[0x40])?;
                put(header, at + 8, &[HOP_LIMIT, protocol::UDP])?;
                put(header, at + 12, &(addresses.0 as u32).to_be_bytes())?;
                put(header, at + 16, &(addresses.1 as u32).to_be_bytes())?;
                let sum = checksum::of(header.get(at..at + 20)?);
                put(header, at + 10, &sum.to_be_bytes())
            }
            Family::V6 => {
                put(header, at - 2, &ethertype::IPV6.to_be_bytes())?;
                put(header, at, &[0x60])?;
                put(header, at + 4, &udp_length.to_be_bytes())?;
                put(header, at + 6, &[protocol::UDP, HOP_LIMIT])?;
                put(header, at + 8, &addresses.0.to_be_bytes())?;
                put(header, at + 24, &addresses.1.to_be_bytes())
            }
        }
    }
}
