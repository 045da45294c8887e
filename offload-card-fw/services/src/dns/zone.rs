//! The names and addresses of the network's own machines.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::Ipv4Addr;

use smoltcp::wire::DnsQueryType as Type;

use super::{Name, Question};
use crate::config::{Config, ConfigError, Net, host_label};

/// What asks for all there is (RFC 1035 3.2.3), and for the name of an address (RFC 1035 3.3.12).
const ANY: u16 = 255;
const PTR: u16 = 12;

/// What the zone says to a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict<'a> {
    /// These addresses.
    Addresses(&'a [Ipv4Addr]),
    /// This name.
    Name(&'a Name),
    /// The name is there, but nothing of this type.
    Empty,
    /// There is no such name.
    Absent,
    /// Others know.
    Elsewhere,
}

/// The names of this network: authority for its domain, for labels without a domain, and for its addresses.
pub struct Zone {
    domain: Name,
    config: Config,
    addresses: BTreeMap<Name, Vec<Ipv4Addr>>,
    names: BTreeMap<Name, Name>,
}

impl Zone {
    /// The zone of a checked description.
    ///
    /// # Errors
    /// The domain is no name.
    pub fn new(config: &Config, nets: &[Net]) -> Result<Self, ConfigError> {
        let domain = Name::from_text(&config.domain).ok_or(ConfigError::Name)?;
        let (mut addresses, mut names) = (BTreeMap::<Name, Vec<Ipv4Addr>>::new(), BTreeMap::new());
        let machines = nets.iter().map(|net| (net.machine.as_str(), net.address));
        for (machine, address) in machines.chain([(config.name.as_str(), config.address)]) {
            let Some(label) = host_label(machine) else { continue };
            let full = Name::within(&label, &domain).ok_or(ConfigError::Name)?;
            for name in [Name::from_text(&label), Some(full.clone())].into_iter().flatten() {
                addresses.entry(name).or_default().push(address);
            }
            names.extend(Name::of_address(address).map(|reverse| (reverse, full)));
        }
        Ok(Self { domain, config: config.clone(), addresses, names })
    }

    /// The zone's domain.
    pub const fn domain(&self) -> &Name {
        &self.domain
    }

    /// Answers a question.
    pub fn answer(&self, question: &Question<'_>) -> Verdict<'_> {
        let name = &question.name;
        let is = |kind: u16| [kind, ANY].contains(&question.kind);
        if let Some(addresses) = self.addresses.get(name) {
            return if is(Type::A.into()) { Verdict::Addresses(addresses) } else { Verdict::Empty };
        }
        if let Some(host) = self.names.get(name) {
            return if is(PTR) { Verdict::Name(host) } else { Verdict::Empty };
        }
        if *name == self.domain {
            return Verdict::Empty;
        }
        // Other labels alone are typing mistakes or names of another network's machines, unless it is asked for what only
        // the world's top-level domains have.
        let is_host = name.labels().count() == 1 && (is(Type::A.into()) || question.kind == Type::Aaaa.into());
        let is_own_address = name.to_address().is_some_and(|address| self.config.contains(address));
        if name.is_in(&self.domain) || is_host || is_own_address { Verdict::Absent } else { Verdict::Elsewhere }
    }
}
