//! What the services are told about the network.

use alloc::{string::String, vec::Vec};
use core::net::Ipv4Addr;

use dragonfly_vswitch::MacAddress;
use thiserror::Error;

use crate::dns::Name;

/// The longest label of a name (RFC 1035 2.3.4).
const MAX_LABEL: usize = 63;

/// The station of the services and its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The station's Ethernet address.
    pub mac: MacAddress,
    /// The station's address: of the DHCP server and the DNS server.
    pub address: Ipv4Addr,
    /// Bits that all addresses of the network share, 1 to 30.
    pub prefix: u8,
    /// The way out of the network, if there is one.
    pub router: Option<Ipv4Addr>,
    /// The DNS server that is asked about names that are not of this network, on port 53. It is heard from
    /// [`Source::Outside`] only. Without one such names are refused.
    pub resolver: Option<Ipv4Addr>,
    /// The label by which the station itself is found.
    pub name: String,
    /// The domain that the machines' names are in, such as `dragonfly`.
    pub domain: String,
    /// How long an address is given for, in seconds.
    pub lease_seconds: u32,
    /// The longest IP packet of the network, in bytes.
    pub mtu: u16,
}

/// A guest's network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// Its Ethernet address. Frames of this net from another are ignored.
    pub mac: MacAddress,
    /// The address that it gets.
    pub address: Ipv4Addr,
    /// The machine's name; it is found by its [`host_label`]. Nets of the same name are one machine.
    pub machine: String,
}

/// Which port of the switch a frame came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A guest's, as an index into the nets given to [`crate::Services::new`].
    Net(usize),
    /// The uplink.
    Outside,
}

/// What is wrong with the network as it was described.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// The network has no room for stations, or the services' address is none of its stations'.
    #[error("the services' address and prefix make no network of 1 to 30 bits with room for stations")]
    Network,
    /// The name of the services is no label, or the domain no name.
    #[error("the services' name or domain is no name of DNS")]
    Name,
    /// A net's address is not of this network's stations, or is another's.
    #[error("the address of net {net} is outside the network or taken")]
    Address {
        /// The net's index.
        net: usize,
    },
    /// A net's Ethernet address names a group, or is another's.
    #[error("the Ethernet address of net {net} is no station's or taken")]
    Mac {
        /// The net's index.
        net: usize,
    },
}

impl Config {
    /// The network's mask.
    pub(crate) fn mask(&self) -> Ipv4Addr {
        let host_bits = 32_u32.saturating_sub(self.prefix.into());
        Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    /// Whether an address is of this network, its first and last address included.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask().to_bits() == 0
    }

    /// Whether a station of this network may have this address.
    fn is_station(&self, address: Ipv4Addr) -> bool {
        let host_bits = !self.mask().to_bits();
        let host = address.to_bits() & host_bits;
        self.contains(address) && host != 0 && host != host_bits
    }

    /// Checks the description as a whole.
    ///
    /// # Errors
    /// Names the first part that cannot be.
    pub(crate) fn check(&self, nets: &[Net]) -> Result<(), ConfigError> {
        if !(1..=30).contains(&self.prefix) || !self.is_station(self.address) || self.mac.is_group() {
            return Err(ConfigError::Network);
        }
        let is_label = host_label(&self.name).is_some_and(|label| label == self.name);
        if !is_label || Name::from_text(&self.domain).is_none() {
            return Err(ConfigError::Name);
        }
        let mut addresses: Vec<_> = [Some(self.address), self.router, self.resolver].into_iter().flatten().collect();
        let mut macs = [self.mac].to_vec();
        for (net, Net { mac, address, .. }) in nets.iter().enumerate() {
            if !self.is_station(*address) || addresses.contains(address) {
                return Err(ConfigError::Address { net });
            }
            if mac.is_group() || macs.contains(mac) {
                return Err(ConfigError::Mac { net });
            }
            addresses.push(*address);
            macs.push(*mac);
        }
        Ok(())
    }
}

/// The label of DNS that stands for a machine's name, which is free text: in small letters, and a hyphen for what a host
/// name cannot hold (RFC 1123 2.1). `None` if nothing is left.
#[must_use]
pub fn host_label(name: &str) -> Option<String> {
    let to_label = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let all: String = name.trim().chars().map(to_label).take(MAX_LABEL).collect();
    let label = all.trim_matches('-');
    (!label.is_empty()).then(|| label.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_found_by_what_a_host_name_can_hold_of_its_name() {
        for (name, label) in [
            ("debian", Some("debian")),
            ("Web-1", Some("web-1")),
            (" my machine! ", Some("my-machine")),
            ("größe", Some("gr--e")),
            ("a.b_c", Some("a-b-c")),
            ("!?", None),
            ("", None),
        ] {
            assert_eq!(host_label(name).as_deref(), label, "{name:?}");
        }
        assert_eq!(host_label(&"x".repeat(100)).map(|label| label.len()), Some(MAX_LABEL));
    }

    #[test]
    fn a_network_that_cannot_be_is_refused() {
        let config = Config {
            mac: MacAddress([2, 0, 0, 0, 0, 4]),
            address: Ipv4Addr::new(10, 0, 2, 4),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 2, 2)),
            resolver: Some(Ipv4Addr::new(10, 0, 2, 3)),
            name: "card".into(),
            domain: "dragonfly".into(),
            lease_seconds: 3600,
            mtu: 1500,
        };
        let net = |mac, address: [u8; 4]| Net {
            mac: MacAddress([mac, 0, 0, 0, 0, 1]),
            address: address.into(),
            machine: "a".into(),
        };
        let good = net(2, [10, 0, 2, 15]);
        let check = |config: Config, other: Net| config.check(&[good.clone(), other]);
        let other = net(6, [10, 0, 2, 16]);
        assert_eq!(check(config.clone(), other.clone()), Ok(()));
        for (wrong, error) in [
            (Config { prefix: 31, ..config.clone() }, ConfigError::Network),
            (Config { prefix: 0, ..config.clone() }, ConfigError::Network),
            (Config { prefix: 40, ..config.clone() }, ConfigError::Network),
            (Config { address: [10, 0, 2, 255].into(), ..config.clone() }, ConfigError::Network),
            (Config { name: "the card".into(), ..config.clone() }, ConfigError::Name),
            (Config { domain: "a..b".into(), ..config.clone() }, ConfigError::Name),
        ] {
            assert_eq!(check(wrong, other.clone()), Err(error));
        }
        for (wrong, error) in [
            (net(6, [10, 0, 3, 16]), ConfigError::Address { net: 1 }),
            (net(6, [10, 0, 2, 0]), ConfigError::Address { net: 1 }),
            (net(6, [10, 0, 2, 2]), ConfigError::Address { net: 1 }),
            (net(6, [10, 0, 2, 15]), ConfigError::Address { net: 1 }),
            (net(2, [10, 0, 2, 16]), ConfigError::Mac { net: 1 }),
            (net(3, [10, 0, 2, 16]), ConfigError::Mac { net: 1 }),
        ] {
            assert_eq!(check(config.clone(), wrong), Err(error));
        }
    }
}
