//! A console device in a machine file.

use alloc::{format, string::String, vec::Vec};

use dragonfly_settings::{Section, SettingsError};

/// Ports of a device: each has two of its queues.
const MAX_PORTS: usize = 8;
/// The usual terminal's.
const DEFAULT_COLUMNS: u16 = 80;
const DEFAULT_ROWS: u16 = 25;
const SIZES: core::ops::RangeInclusive<u64> = 1..=u16::MAX as u64;

/// A `[[console]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// The name in log lines.
    pub name: String,
    /// The ports' names, by which the guest knows them, too.
    pub ports: Vec<String>,
    /// The port that is a console of the guest's.
    pub terminal: Option<String>,
    /// Characters of that one's lines.
    pub columns: u16,
    /// Its lines.
    pub rows: u16,
    /// Where programs of the host are at the other ends of the ports.
    pub host_socket: Option<String>,
}

impl Console {
    const KEYS: &[&str] = &["name", "ports", "terminal", "columns", "rows", "host_socket"];

    pub(super) fn read(section: &Section<'_>, more_keys: &[&str]) -> Result<Self, SettingsError> {
        section.only_keys(&[Self::KEYS, more_keys].concat())?;
        let ports = section.strings("ports")?;
        if !(1..=MAX_PORTS).contains(&ports.len()) {
            return Err(section.error("ports", format!("has {} names: give 1 to {MAX_PORTS}", ports.len())));
        }
        for (place, port) in ports.iter().enumerate() {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            if !(1..=32).contains(&port.len()) || !port.bytes().all(is_name) {
                let message = format!("has \"{port}\": use 1 to 32 letters, digits, dots, hyphens and underscores");
                return Err(section.error("ports", message));
            }
            if ports.iter().take(place).any(|other| other == port) {
                return Err(section.error("ports", format!("has \"{port}\" again: give each port a name of its own")));
            }
        }
        let terminal = section.string("terminal")?;
        if let Some(terminal) = terminal.as_ref().filter(|terminal| !ports.contains(terminal)) {
            return Err(section.error("terminal", format!("has \"{terminal}\": give the name of one of the ports")));
        }
        // Both are in range by their own lines, so nothing is lost.
        let size = |key, usual| Ok::<_, SettingsError>(section.integer(key, SIZES)?.map_or(usual, |size| size as u16));
        Ok(Self {
            name: section.name("name")?,
            ports,
            terminal,
            columns: size("columns", DEFAULT_COLUMNS)?,
            rows: size("rows", DEFAULT_ROWS)?,
            host_socket: section.string("host_socket")?,
        })
    }
}
