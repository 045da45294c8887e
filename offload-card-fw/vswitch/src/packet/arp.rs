//! Address resolution for IPv4 over Ethernet (RFC 826).

use crate::{address::MacAddress, bytes};

/// Who an ARP message says it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpSender {
    /// Sender's hardware address.
    pub mac: MacAddress,
    /// Sender's protocol address; 0 while it probes for an address of its own (RFC 5227).
    pub address: u32,
}

/// Reads the message that begins at `offset`; `None` unless it is for IPv4 over Ethernet and whole.
#[must_use]
pub fn sender(head: &[u8], offset: usize) -> Option<ArpSender> {
    let message: &[u8; 28] = bytes::array(head, offset)?;
    let [0, 1, 8, 0, 6, 4, _, _, m0, m1, m2, m3, m4, m5, a0, a1, a2, a3, ..] = *message else { return None };
    Some(ArpSender { mac: MacAddress([m0, m1, m2, m3, m4, m5]), address: u32::from_be_bytes([a0, a1, a2, a3]) })
}
