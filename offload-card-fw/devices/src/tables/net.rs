//! A network device in a machine file.

use alloc::{format, string::String, vec::Vec};
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU64,
    ops::RangeInclusive,
};

use dragonfly_settings::{Section, SettingsError};
use dragonfly_vswitch::{
    MacAddress, Prefix,
    limit::{Limits, Rate},
    policy::{FilterConfig, GroupId},
};

use super::{Group, address};

const MAX_PAIRS: u64 = 8;
pub(super) const MAX_VLAN: u64 = 4094;
/// Memory for so many is 128 MiB.
const MAX_CONNECTIONS: u64 = 1 << 20;
/// What IPv6 needs (RFC 8200 5), and what is usual for jumbo frames.
pub(super) const MTUS: RangeInclusive<u64> = 1280..=9000;
pub(super) const DEFAULT_MTU: u64 = 1500;
const MAX_PACKETS: u64 = 1_000_000_000;
const BITS_PER_BYTE: u64 = 8;

/// A `[[net]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// The name in log lines.
    pub name: String,
    /// The guest's address, and the only one that it may use.
    pub mac: MacAddress,
    /// Number of pairs of queues.
    pub queue_pairs: u16,
    /// The longest IP packet, in bytes.
    pub mtu: u16,
    /// The VLAN that the guest is in, without seeing it.
    pub vlan: u16,
    /// The Internet addresses that the guest may use.
    pub addresses: Vec<Prefix>,
    /// Its security groups, by their places in the machine; `None` lets everything pass.
    pub groups: Option<Vec<GroupId>>,
    /// The most connections that its groups know of at a time.
    pub connections: u32,
    /// How much the guest may send, and as much receive.
    pub limits: Limits,
}

impl Net {
    const KEYS: &[&str] = &[
        "name",
        "mac",
        "addresses",
        "groups",
        "connections",
        "queues",
        "mtu",
        "vlan",
        "packets_per_second",
        "packets_burst",
        "bandwidth",
        "bandwidth_burst",
    ];

    pub(super) fn read(
        section: &Section<'_>,
        more_keys: &[&str],
        default_mac: Option<MacAddress>,
        groups: &[Group],
    ) -> Result<Self, SettingsError> {
        section.only_keys(&[Self::KEYS, more_keys].concat())?;
        let given_mac = section.string("mac")?.map(|text| mac(section, &text));
        let mac = section.required("mac", given_mac.transpose()?.or(default_mac))?;
        let packets = |key: &str| section.integer(key, 1..=MAX_PACKETS);
        let bits = |key: &str| Ok(section.size(key)?.map(|bytes| bytes.saturating_mul(BITS_PER_BYTE)));
        let connections = section.integer("connections", 1..=MAX_CONNECTIONS)?;
        let rate = |(per_second, burst): (NonZeroU64, NonZeroU64)| Rate { per_second, burst };
        Ok(Self {
            name: section.name("name")?,
            mac,
            addresses: addresses(section)?,
            groups: chosen_groups(section, groups)?,
            connections: connections.map_or(FilterConfig::default().connections, |number| number as u32),
            // All are in range by their own lines, so nothing is lost.
            queue_pairs: section.integer("queues", 1..=MAX_PAIRS)?.unwrap_or(1) as u16,
            mtu: section.integer("mtu", MTUS)?.unwrap_or(DEFAULT_MTU) as u16,
            vlan: section.integer("vlan", 0..=MAX_VLAN)?.unwrap_or(0) as u16,
            limits: Limits {
                packets: super::rate(section, "packets_per_second", "packets_burst", packets)?.map(rate),
                bits: super::rate(section, "bandwidth", "bandwidth_burst", bits)?.map(rate),
            },
        })
    }
}

/// The groups that a device is in, each of which must have a rule; none if the key is not there.
fn chosen_groups(section: &Section<'_>, groups: &[Group]) -> Result<Option<Vec<GroupId>>, SettingsError> {
    let names = section.names("groups")?;
    let find = |name: &String| {
        let place = groups.iter().position(|group| group.name == *name);
        // A file has fewer groups than 16 bits count.
        place.map(|place| GroupId(place as u16)).ok_or_else(|| {
            let message = format!("has \"{name}\": no [[rule]] has that `group`");
            section.error("groups", message)
        })
    };
    let ids = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    Ok((!ids.is_empty()).then_some(ids))
}

/// Addresses and prefixes; all there are if the key is not there.
fn addresses(section: &Section<'_>) -> Result<Vec<Prefix>, SettingsError> {
    let texts = section.strings("addresses")?;
    if texts.is_empty() {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        return Ok(all.into_iter().filter_map(|any| Prefix::new(any, 0)).collect());
    }
    let read = |text: String| address::prefix(&text).ok_or_else(|| address::error(section, "addresses", &text));
    texts.into_iter().map(read).collect()
}

/// The address of one station, under the key `mac`: not a group's, not zero.
pub(super) fn mac(section: &Section<'_>, text: &str) -> Result<MacAddress, SettingsError> {
    station(text).ok_or_else(|| {
        section.error("mac", format!("is \"{text}\": give a station's address like \"52:54:00:00:00:01\""))
    })
}

fn station(text: &str) -> Option<MacAddress> {
    const GROUP: u8 = 1;
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part =
            parts.next().filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    let is_station = octets[0] & GROUP == 0 && octets != [0; 6];
    (is_station && parts.next().is_none()).then_some(MacAddress(octets))
}
