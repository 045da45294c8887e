//! The machine file: which devices the card serves.

mod address;
mod disk;
mod net;
mod rule;
#[cfg(test)]
mod tests;

use std::{
    num::NonZeroU64,
    path::{Path, PathBuf},
};

use dragonfly_settings::{Document, Section, SettingsError};
use dragonfly_vswitch::policy::Rule;

pub use disk::{Disk, Medium};
pub use net::Net;

/// All that a machine file describes.
#[derive(Debug)]
pub struct Machine {
    /// The disks, of which there may be none.
    pub disks: Vec<Disk>,
    /// The network devices, which are ports of one switch.
    pub nets: Vec<Net>,
    /// The security groups, which devices name by their places.
    pub groups: Vec<Group>,
}

impl Machine {
    /// Reads the text of a machine file; `file` is its name in errors, and relative paths begin at its folder.
    ///
    /// # Errors
    /// The first fault of the text.
    pub fn parse(file: &Path, text: &str) -> Result<Self, SettingsError> {
        let name = file.display().to_string();
        let document = Document::parse(&name, text)?;
        let top = document.top();
        top.only_keys(&["disk", "net", "rule"])?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let sections = top.tables("disk")?;
        let disks = sections.iter().map(|section| Disk::read(section, folder)).collect::<Result<Vec<_>, _>>()?;
        let groups = groups(&top.tables("rule")?)?;
        let net_sections = top.tables("net")?;
        let nets =
            net_sections.iter().map(|section| Net::read(section, folder, &groups)).collect::<Result<Vec<_>, _>>()?;
        if disks.is_empty() && nets.is_empty() {
            let message = "is missing: describe at least one device in a table [[disk]] or [[net]]";
            return Err(top.error("disk", message.into()));
        }
        let mut taken = Taken::default();
        for (section, disk) in sections.iter().zip(&disks) {
            taken.check(section, &disk.name, &disk.socket)?;
        }
        for (section, net) in net_sections.iter().zip(&nets) {
            taken.check(section, &net.name, &net.socket)?;
        }
        Ok(Self { disks, nets, groups })
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

/// Names and sockets that devices have.
#[derive(Default)]
struct Taken {
    names: Vec<String>,
    sockets: Vec<PathBuf>,
}

impl Taken {
    fn check(&mut self, section: &Section<'_>, name: &str, socket: &Path) -> Result<(), SettingsError> {
        if self.names.iter().any(|taken| taken == name) {
            return Err(section.error("name", format!("has \"{name}\" again: give each device a name of its own")));
        }
        if self.sockets.iter().any(|taken| taken == socket) {
            let message = format!("has \"{}\" again: give each device a socket of its own", socket.display());
            return Err(section.error("socket", message));
        }
        self.names.push(name.into());
        self.sockets.push(socket.into());
        Ok(())
    }
}

/// A path, relative to the machine file's folder.
fn path(section: &Section<'_>, key: &str, folder: &Path) -> Result<Option<PathBuf>, SettingsError> {
    Ok(section.string(key)?.map(|text| folder.join(text)))
}

/// The socket that every device has.
fn socket(section: &Section<'_>, folder: &Path) -> Result<PathBuf, SettingsError> {
    /// What `sockaddr_un` has room for, with a zero at the end.
    const MAX_SOCKET_PATH: usize = 107;
    let socket = section.required("socket", path(section, "socket", folder)?)?;
    let len = socket.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        let message = format!("has a path of {len} bytes: Linux takes {MAX_SOCKET_PATH}, so name a shorter one");
        return Err(section.error("socket", message));
    }
    Ok(socket)
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
