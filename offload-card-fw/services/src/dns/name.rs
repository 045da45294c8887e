//! Names, as they stand in messages.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// The longest name and the longest label, in bytes (RFC 1035 2.3.4).
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

/// A name in the form of messages: each label behind its length, and an empty one at the end; in small letters, since
/// names are the same in either case (RFC 1035 2.3.3).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name(Vec<u8>);

impl Name {
    /// The name of these labels; `None` if one is empty or too long, or all together are. Without
    /// labels it is the root's.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut name = Vec::new();
        for label in labels {
            let length = u8::try_from(label.len()).ok().filter(|_| (1..=MAX_LABEL).contains(&label.len()))?;
            name.push(length);
            name.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        name.push(0);
        (name.len() <= MAX_NAME).then_some(Self(name))
    }

    /// The name that people write with dots.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::from_labels(text.split('.').map(str::as_bytes))
    }

    /// Reads the name that a question has, in full: there is nothing before it that it could point to.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut labels = Vec::new();
        loop {
            let (&length, rest) = bytes.split_first()?;
            if length == 0 {
                return Self::from_labels(labels);
            }
            let (label, rest) = rest.split_at_checked(length.into())?;
            if labels.len() == MAX_NAME / 2 {
                return None;
            }
            labels.push(label);
            bytes = rest;
        }
    }

    /// The name as it stands in a message.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The labels, the most special first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        core::iter::from_fn(move || {
            let (&length, behind) = rest.split_first().filter(|(length, _)| **length > 0)?;
            let (label, behind) = behind.split_at_checked(length.into())?;
            rest = behind;
            Some(label)
        })
    }

    /// This name's first label in another domain.
    pub fn within(label: &str, domain: &Self) -> Option<Self> {
        Self::from_labels(core::iter::once(label.as_bytes()).chain(domain.labels()))
    }

    /// Whether the name is a domain's, or in it.
    pub fn is_in(&self, domain: &Self) -> bool {
        self.labels()
            .count()
            .checked_sub(domain.labels().count())
            .is_some_and(|deeper| self.labels().skip(deeper).eq(domain.labels()))
    }

    /// The name that stands for an address (RFC 1035 3.5).
    pub fn of_address(address: Ipv4Addr) -> Option<Self> {
        let [a, b, c, d] = address.octets();
        Self::from_text(&alloc::format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
    }

    /// The address that the name stands for, if it does.
    pub fn to_address(&self) -> Option<Ipv4Addr> {
        let mut bytes = [0; 4];
        let mut labels = self.labels();
        for byte in bytes.iter_mut().rev() {
            *byte = core::str::from_utf8(labels.next()?).ok()?.parse().ok()?;
        }
        let address = bytes.into();
        // No other way to write the numbers means it.
        (Self::of_address(address)? == *self).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_a_form_in_messages() {
        let wire = |text| Name::from_text(text).map(|name| name.as_bytes().to_vec());
        assert_eq!(wire("Debian.dragonfly").as_deref(), Some(&b"\x06debian\x09dragonfly\0"[..]));
        let long = "x".repeat(64);
        for wrong in ["", ".", "a..b", "a.", &long, &["abcdefg"; 32].join(".")] {
            assert_eq!(wire(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_is_in_its_domain_and_those_above() {
        let is_in = |name, domain| Name::from_text(name).unwrap().is_in(&Name::from_text(domain).unwrap());
        assert!(is_in("a.b.c", "a.b.c") && is_in("a.b.c", "b.c") && is_in("A.b", "B"));
        assert!(!is_in("b.c", "a.b.c") && !is_in("ab.c", "b.c") && !is_in("a.b", "a"));
    }

    #[test]
    fn a_name_stands_for_an_address_only_as_it_is_written_there() {
        let address = |text| Name::from_text(text).unwrap().to_address();
        assert_eq!(address("15.2.0.10.in-addr.arpa"), Some(Ipv4Addr::new(10, 0, 2, 15)));
        for wrong in
            ["2.0.10.in-addr.arpa", "015.2.0.10.in-addr.arpa", "+5.2.0.10.in-addr.arpa", "256.2.0.10.in-addr.arpa"]
        {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_name_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(name) = Name::parse(&bytes) {
                prop_assert!(name.as_bytes().eq_ignore_ascii_case(&bytes[..name.as_bytes().len()]));
                prop_assert!(name.as_bytes().len() <= MAX_NAME);
            }
        }

        #[test]
        fn each_address_has_a_name_that_stands_for_it(address: [u8; 4]) {
            let address = Ipv4Addr::from(address);
            prop_assert_eq!(Name::of_address(address).unwrap().to_address(), Some(address));
        }
    }
}
