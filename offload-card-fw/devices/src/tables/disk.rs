//! A disk in a machine file.

use alloc::{format, string::String, vec::Vec};

use dragonfly_settings::{Section, SettingsError};
use dragonfly_storage::{Limits, Rate, SECTOR_BYTES, nbd::Address};

use super::Pool;

/// The longest serial number that a driver can read (virtio 1.2 5.2.6).
const MAX_SERIAL: usize = 20;
const MAX_QUEUES: u64 = 16;
const MAX_OPERATIONS: u64 = 100_000_000;
/// How long requests wait for a server, unless it is said, and at most.
const USUAL_TIMEOUT_SECONDS: u64 = 60;
const MAX_TIMEOUT_SECONDS: u64 = 3600;

/// A `[[disk]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The name in log lines.
    pub name: String,
    /// Where the disk's contents are.
    pub medium: Medium,
    /// What of the medium the guest sees.
    pub view: View,
    /// Whether the guest can only read.
    pub is_read_only: bool,
    /// What the guest reads as the disk's serial number.
    pub serial: String,
    /// Number of queues.
    pub queues: u16,
    /// How fast requests are served.
    pub limits: Limits,
    /// The name of the file with the key that the disk is encrypted with.
    pub key_file: Option<String>,
    /// How long requests wait for a server's answer until they fail, in seconds.
    pub timeout_seconds: u64,
}

/// Where a disk's contents are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// In something that is byte for byte the disk: its name, which whoever opens it understands.
    Image(String),
    /// In memory, zeroes at first, of so many bytes.
    Ram(u64),
    /// In a volume of a pool.
    Volume {
        /// The pool, by its place in [`Devices::pools`](super::Devices::pools).
        pool: usize,
        /// The volume's name.
        volume: String,
    },
    /// At an NBD server.
    Nbd(Address),
}

/// What of its medium a guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// All, as it is.
    Whole,
    /// The medium holds a volume with snapshots: that volume.
    Live,
    /// The medium holds a volume with snapshots: the one of this name, which is read-only.
    Snapshot(String),
}

impl Disk {
    const KEYS: &[&str] = &[
        "name",
        "image",
        "size",
        "pool",
        "volume",
        "nbd",
        "timeout",
        "snapshots",
        "snapshot",
        "read_only",
        "serial",
        "queues",
        "iops",
        "iops_burst",
        "bandwidth",
        "bandwidth_burst",
        "key_file",
    ];

    pub(super) fn read(section: &Section<'_>, more_keys: &[&str], pools: &[Pool]) -> Result<Self, SettingsError> {
        section.only_keys(&[Self::KEYS, more_keys].concat())?;
        let name = section.name("name")?;
        let serial = serial(section, &name)?;
        let medium = medium(section, pools)?;
        let view = view(section, &medium)?;
        let timeout_seconds = section.integer("timeout", 1..=MAX_TIMEOUT_SECONDS)?;
        if timeout_seconds.is_some() && !matches!(medium, Medium::Nbd(_)) {
            return Err(section.error("timeout", "is given without `nbd`: only a server is waited for".into()));
        }
        let operations = |key: &str| section.integer(key, 1..=MAX_OPERATIONS);
        let rate = |(per_second, burst)| Rate { per_second, burst };
        Ok(Self {
            name,
            medium,
            is_read_only: section.boolean("read_only")?.unwrap_or(false) || matches!(view, View::Snapshot(_)),
            view,
            serial,
            // In range by the line before, so nothing is lost.
            queues: section.integer("queues", 1..=MAX_QUEUES)?.unwrap_or(1) as u16,
            limits: Limits {
                operations: super::rate(section, "iops", "iops_burst", operations)?.map(rate),
                bytes: super::rate(section, "bandwidth", "bandwidth_burst", |key| section.size(key))?.map(rate),
            },
            key_file: section.string("key_file")?,
            timeout_seconds: timeout_seconds.unwrap_or(USUAL_TIMEOUT_SECONDS),
        })
    }

    /// Why this disk and another cannot both be, if they cannot: what one writes would be wrong for the other.
    pub(super) fn conflict(&self, other: &Self) -> Option<&'static str> {
        if self.medium != other.medium || matches!(self.medium, Medium::Ram(_)) {
            return None;
        }
        let is_whole = |disk: &Self| disk.view == View::Whole;
        let is_changed = |disk: &Self| !disk.is_read_only;
        if self.key_file != other.key_file {
            Some("with another `key_file`: give both the same")
        } else if is_whole(self) != is_whole(other) {
            Some("without `snapshots`: give it to both, or use two media")
        } else if is_changed(self) && (is_whole(self) || is_changed(other)) || is_changed(other) && is_whole(self) {
            Some("and one of them writes to it: make both `read_only`, or use two media")
        } else {
            None
        }
    }
}

/// A serial number; without the key, as much of the name as there is room for.
pub(super) fn serial(section: &Section<'_>, name: &str) -> Result<String, SettingsError> {
    let serial = section.string("serial")?.unwrap_or_else(|| name.chars().take(MAX_SERIAL).collect());
    if serial.len() > MAX_SERIAL || !serial.is_ascii() {
        let message = format!("has \"{serial}\": a serial number has at most {MAX_SERIAL} ASCII characters");
        return Err(section.error("serial", message));
    }
    Ok(serial)
}

fn medium(section: &Section<'_>, pools: &[Pool]) -> Result<Medium, SettingsError> {
    let (image, size) = (section.string("image")?, section.size("size")?);
    let (pool, volume) = (section.string("pool")?, section.string("volume")?);
    let nbd = section.string("nbd")?;
    let given =
        [("image", image.is_some()), ("size", size.is_some()), ("pool", pool.is_some()), ("nbd", nbd.is_some())];
    let mut given = given.into_iter().filter_map(|(key, is_given)| is_given.then_some(key));
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        return Err(
            section.error(second, format!("is given beside `{first}`: a disk is in one place, so leave one out"))
        );
    }
    if volume.is_some() && pool.is_none() {
        return Err(section.error("volume", "is given without `pool`: name the pool that it is in".into()));
    }
    if let Some(name) = pool {
        let pool = pools.iter().position(|pool| pool.name == name).ok_or_else(|| {
            let known: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
            let remedy =
                if known.is_empty() { "describe it in a table [[pool]]" } else { "use one that a [[pool]] describes" };
            section.error("pool", format!("is \"{name}\", which is no pool: {remedy}"))
        })?;
        return Ok(Medium::Volume { pool, volume: section.required("volume", volume)? });
    }
    if let Some(uri) = nbd {
        let address = Address::parse(&uri);
        return address.map(Medium::Nbd).map_err(|why| section.error("nbd", format!("is \"{uri}\", which {why}")));
    }
    match (image, size) {
        (Some(image), _) => Ok(Medium::Image(image)),
        (None, Some(bytes)) if bytes.is_multiple_of(SECTOR_BYTES as u64) => Ok(Medium::Ram(bytes)),
        (None, Some(_)) => Err(section.error("size", "is not made of whole sectors of 512 bytes: round it".into())),
        (None, None) => {
            let message = "is missing: name a file, give a `size` for a disk in memory, a `pool` and a `volume`, or a server by `nbd`";
            Err(section.error("image", message.into()))
        }
    }
}

fn view(section: &Section<'_>, medium: &Medium) -> Result<View, SettingsError> {
    let (is_live, snapshot) = (section.boolean("snapshots")?.unwrap_or(false), section.string("snapshot")?);
    let key = if snapshot.is_some() { "snapshot" } else { "snapshots" };
    if (is_live || snapshot.is_some()) && matches!(medium, Medium::Ram(_)) {
        let message = "is given for a disk in memory, which is gone with the card: use an `image` or a `volume`";
        return Err(section.error(key, message.into()));
    }
    if (is_live || snapshot.is_some()) && matches!(medium, Medium::Nbd(_)) {
        let message = "is given for a disk at a server, which has snapshots of its own, if any: leave it out";
        return Err(section.error(key, message.into()));
    }
    match (is_live, snapshot) {
        (false, None) => Ok(View::Whole),
        (true, None) => Ok(View::Live),
        (false, Some(name)) => Ok(View::Snapshot(name)),
        (true, Some(_)) => {
            let message =
                "is given beside `snapshots`: that is the disk as it is now, this one as it was, so leave one out";
            Err(section.error("snapshot", message.into()))
        }
    }
}
