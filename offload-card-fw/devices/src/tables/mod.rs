//! The tables of a machine file that describe devices: `[[disk]]` with `[[pool]]`, `[[net]]` with `[[rule]]`, `[[rng]]`,
//! `[[vsock]]` and `[[console]]`; and those of the way out, `[uplink]` and `[[tunnel]]`, which only a card with a system under it reads.
//!
//! Files are known by the names that the tables give them; whoever opens them says what such a name means.

mod address;
mod console;
mod disk;
mod net;
mod outside;
mod pool;
mod rng;
mod rule;
#[cfg(test)]
mod tests;
mod vsock;

use alloc::{format, string::String, vec, vec::Vec};
use core::num::NonZeroU64;

use dragonfly_settings::{Section, SettingsError};
use dragonfly_vswitch::{MacAddress, policy::Rule};

pub use console::Console;
pub use disk::{Disk, Medium, View};
pub use net::Net;
pub use outside::{Interface, OUTSIDE_TABLES, Outside, Tunnel, Underlay, Uplink};
pub use pool::Pool;
pub use rng::Rng;
pub use vsock::Vsock;

/// The keys of [`Devices`] at the top of a machine file.
pub const TABLES: [&str; 7] = ["console", "disk", "net", "pool", "rng", "rule", "vsock"];

/// All devices that a machine file describes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// The disks.
    pub disks: Vec<Disk>,
    /// The disks that hold volumes, which disks name by their places here.
    pub pools: Vec<Pool>,
    /// The network devices.
    pub nets: Vec<Net>,
    /// The sources of random numbers.
    pub rngs: Vec<Rng>,
    /// The guests' sockets.
    pub vsocks: Vec<Vsock>,
    /// The consoles, and other ports.
    pub consoles: Vec<Console>,
    /// The security groups, which network devices name by their places here.
    pub groups: Vec<Group>,
}

impl Devices {
    /// Reads the tables; others at the top are not looked at. `more_keys` are those that a table of a device may have
    /// beside the ones here, for the caller to read. `default_mac` gives the address of a network device, by its number
    /// from 0, whose table has none; without either it is an error.
    ///
    /// # Errors
    /// The first fault of the text.
    pub fn read(
        top: &Section<'_>,
        more_keys: &[&str],
        default_mac: impl Fn(usize) -> Option<MacAddress>,
    ) -> Result<Self, SettingsError> {
        let mut sections = top.tables("disk")?;
        let pools = pool::read(&top.tables("pool")?)?;
        let mut disks: Vec<Disk> = Vec::new();
        for section in &sections {
            let disk = Disk::read(section, more_keys, &pools)?;
            for other in &disks {
                if let Some(why) = disk.conflict(other) {
                    return Err(section.error("name", format!("has the same medium as \"{}\", {why}", other.name)));
                }
            }
            disks.push(disk);
        }
        let groups = groups(&top.tables("rule")?)?;
        let net_sections = top.tables("net")?;
        let net = |(number, section)| Net::read(section, more_keys, default_mac(number), &groups);
        let nets = net_sections.iter().enumerate().map(net).collect::<Result<Vec<_>, _>>()?;
        let rng_sections = top.tables("rng")?;
        let rngs = rng_sections.iter().map(|section| Rng::read(section, more_keys)).collect::<Result<Vec<_>, _>>()?;
        let vsock_sections = top.tables("vsock")?;
        let vsocks =
            vsock_sections.iter().map(|section| Vsock::read(section, more_keys)).collect::<Result<Vec<_>, _>>()?;
        let console_sections = top.tables("console")?;
        let consoles =
            console_sections.iter().map(|section| Console::read(section, more_keys)).collect::<Result<Vec<_>, _>>()?;
        sections.extend([net_sections, rng_sections, vsock_sections, console_sections].concat());
        let names = disks.iter().map(|disk| &disk.name).chain(nets.iter().map(|net| &net.name));
        let names = names.chain(rngs.iter().map(|rng| &rng.name)).chain(vsocks.iter().map(|vsock| &vsock.name));
        let names = names.chain(consoles.iter().map(|console| &console.name));
        let mut taken = vec![];
        for (section, name) in sections.iter().zip(names) {
            if taken.contains(&name) {
                return Err(section.error("name", format!("has \"{name}\" again: give each device a name of its own")));
            }
            taken.push(name);
        }
        Ok(Self { disks, pools, nets, rngs, vsocks, consoles, groups })
    }

    /// Whether a guest can write to the pool at this place.
    #[must_use]
    pub fn is_pool_written(&self, place: usize) -> bool {
        let is_in_it = |disk: &Disk| matches!(disk.medium, Medium::Volume { pool, .. } if pool == place);
        self.disks.iter().any(|disk| is_in_it(disk) && !disk.is_read_only)
    }

    /// Whether a guest can write to this medium.
    #[must_use]
    pub fn is_written(&self, medium: &Medium) -> bool {
        self.disks.iter().any(|disk| disk.medium == *medium && !disk.is_read_only)
    }
}

/// A security group: rules for the network devices that are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name by which devices choose it.
    pub name: String,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// The groups that rules make, in the order in which they are named first.
fn groups(sections: &[Section<'_>]) -> Result<Vec<Group>, SettingsError> {
    let mut groups: Vec<Group> = Vec::new();
    for section in sections {
        let (name, rule) = rule::read(section)?;
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.rules.push(rule),
            None => groups.push(Group { name, rules: vec![rule] }),
        }
    }
    Ok(groups)
}

/// What comes per second, and the burst, which is what one second brings unless it is given.
fn rate(
    section: &Section<'_>,
    key: &str,
    burst_key: &str,
    number: impl Fn(&str) -> Result<Option<u64>, SettingsError>,
) -> Result<Option<(NonZeroU64, NonZeroU64)>, SettingsError> {
    match (number(key)?.and_then(NonZeroU64::new), number(burst_key)?.and_then(NonZeroU64::new)) {
        (Some(per_second), burst) => Ok(Some((per_second, burst.unwrap_or(per_second)))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(section.error(burst_key, format!("is given without `{key}`: give that, too"))),
    }
}
