//! The identity of a flow, in a fixed number of machine words.

use crate::address::MacAddress;

/// The fields of a key before they are packed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct KeyFields {
    /// Low 48 bits.
    pub destination_mac: u64,
    /// Low 48 bits.
    pub source_mac: u64,
    /// What the frame carries behind its tags.
    pub ethertype: u16,
    /// The first VLAN tag as [`tag`] makes it; 0 if there is none.
    pub outer_tag: u16,
    /// The second VLAN tag.
    pub inner_tag: u16,
    /// Source address: IPv4 in the low 32 bits.
    pub source: u128,
    /// Destination address.
    pub destination: u128,
    /// IP protocol of the transport header.
    pub protocol: u8,
    /// Source port; ICMP's type and code.
    pub source_port: u16,
    /// Destination port; the identifier of an ICMP echo.
    pub destination_port: u16,
}

/// A tag's VLAN number, marked as present; the mark differs for a provider's tag, the priority does not count.
pub const fn tag(control: u16, is_service: bool) -> u16 {
    (control & 0x0fff) | if is_service { 0x3000 } else { 0x1000 }
}

/// Everything by which a packet is judged and forwarded: packets with equal keys are of one flow.
#[derive(Clone, Copy, Default, Eq, Debug)]
pub struct FlowKey([u64; 7]);

impl PartialEq for FlowKey {
    /// Compares all words without a branch between them: a call of `memcmp` would cost more than the rest of a lookup.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl FlowKey {
    /// That of no packet.
    pub(crate) const EMPTY: Self = Self([0; 7]);

    /// Packs the fields.
    #[inline]
    #[must_use]
    pub const fn new(fields: &KeyFields) -> Self {
        let ports = (fields.source_port as u64) << 48 | (fields.destination_port as u64) << 32;
        Self([
            fields.destination_mac << 16 | fields.outer_tag as u64,
            fields.source_mac << 16 | fields.ethertype as u64,
            (fields.source >> 64) as u64,
            fields.source as u64,
            (fields.destination >> 64) as u64,
            fields.destination as u64,
            ports | (fields.inner_tag as u64) << 16 | fields.protocol as u64,
        ])
    }

    /// The key of an untagged IPv4 packet, from where its fields lie in the frame: `ethernet` is the frame's begin up
    /// to and with the `EtherType`, `ports` the transport header's first four bytes.
    #[inline]
    pub(super) const fn of_plain_v4(
        ethernet: [[u8; 8]; 2],
        addresses: [[u8; 4]; 2],
        ports: [u8; 4],
        protocol: u8,
    ) -> Self {
        let [first, second] = ethernet;
        let [source, destination] = addresses;
        Self([
            u64::from_be_bytes(first) & !0xffff,
            u64::from_be_bytes(second),
            0,
            u32::from_be_bytes(source) as u64,
            0,
            u32::from_be_bytes(destination) as u64,
            (u32::from_be_bytes(ports) as u64) << 32 | protocol as u64,
        ])
    }

    /// The packed words, for hashing.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &[u64; 7] {
        &self.0
    }

    /// Where the frame goes.
    #[must_use]
    pub const fn destination_mac(&self) -> MacAddress {
        MacAddress::from_bits(self.0[0] >> 16)
    }

    /// Where the frame says it comes from.
    #[must_use]
    pub const fn source_mac(&self) -> MacAddress {
        MacAddress::from_bits(self.0[1] >> 16)
    }

    /// Whether a first VLAN tag is there, and its VLAN number.
    #[must_use]
    pub const fn outer_vlan(&self) -> Option<u16> {
        let tag = self.0[0] as u16;
        if tag == 0 { None } else { Some(tag & 0x0fff) }
    }

    /// What the frame carries behind its tags.
    #[inline]
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        self.0[1] as u16
    }

    /// Source address as a number; 0 if the frame carries no IP.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> u128 {
        (self.0[2] as u128) << 64 | self.0[3] as u128
    }

    /// Destination address as a number; 0 if the frame carries no IP.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> u128 {
        (self.0[4] as u128) << 64 | self.0[5] as u128
    }

    /// IP protocol of the transport header.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.0[6] as u8
    }

    /// Source port; for ICMP, type (high byte) and code.
    #[inline]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        (self.0[6] >> 48) as u16
    }

    /// Destination port; for an ICMP echo its identifier.
    #[inline]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        (self.0[6] >> 32) as u16
    }

    /// The same flow with other ports, for a later fragment whose first one told them.
    #[must_use]
    pub const fn with_ports(mut self, source: u16, destination: u16) -> Self {
        self.0[6] = (self.0[6] & 0xffff_ffff) | (source as u64) << 48 | (destination as u64) << 32;
        self
    }
}
