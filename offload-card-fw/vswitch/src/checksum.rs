//! The Internet checksum (RFC 1071).

use crate::address::Family;

/// A sum of 16-bit words that is not folded yet.
///
/// Parts are added in any order, each beginning at an even offset of what is summed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Checksum(u64);

impl Checksum {
    /// Adds bytes; an odd last one counts as the high half of a word.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<4>();
        // At most 2^14 words of 32 bits in a packet: the sum cannot overflow 64 bits.
        let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        sum += u64::from(u32::from_be_bytes(last));
        self.0 += (sum >> 32) + (sum & 0xffff_ffff);
    }

    /// Adds a 16-bit word.
    pub const fn add_u16(&mut self, word: u16) {
        self.0 += word as u64;
    }

    /// Adds the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1). `length` counts the bytes from the
    /// transport header on.
    pub fn add_pseudo_header(&mut self, family: Family, addresses: (u128, u128), protocol: u8, length: usize) {
        for address in [addresses.0, addresses.1] {
            match family {
                Family::V4 => self.add(&(address as u32).to_be_bytes()),
                Family::V6 => self.add(&address.to_be_bytes()),
            }
        }
        self.add_u16(u16::from(protocol));
        self.0 += length as u64;
    }

    /// The sum in 16 bits, not complemented: what a partial checksum holds (virtio 1.2 5.1.6.2).
    #[must_use]
    pub const fn folded(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    /// The value for a header's field: the complement of the sum.
    #[must_use]
    pub const fn finish(self) -> u16 {
        !self.folded()
    }

    /// The value for UDP's field, where zero means that there is none (RFC 768).
    #[must_use]
    pub const fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

/// The checksum of one run of bytes.
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    let mut sum = Checksum::default();
    sum.add(bytes);
    sum.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_adds_up() {
        let mut sum = Checksum::default();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2, "RFC 1071 section 3");
    }

    #[test]
    fn a_header_with_its_own_checksum_sums_to_zero() {
        let mut header = [0x45, 0, 0, 0x54, 0x12, 0x34, 0x40, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum = of(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(of(&header), 0);
    }

    #[test]
    fn an_odd_last_byte_counts_as_a_high_half() {
        assert_eq!(of(&[0x12, 0x34, 0x56]), of(&[0x12, 0x34, 0x56, 0x00]));
    }

    #[test]
    fn udp_never_sends_zero() {
        let mut sum = Checksum::default();
        sum.add_u16(0xffff);
        assert_eq!((sum.finish(), sum.finish_udp()), (0, 0xffff));
    }
}
