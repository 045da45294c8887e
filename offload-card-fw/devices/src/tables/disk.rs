//! A disk in a machine file.

use alloc::{format, string::String};

use dragonfly_settings::{Section, SettingsError};
use dragonfly_storage::{Limits, Rate, SECTOR_BYTES};

/// The longest serial number that a driver can read (virtio 1.2 5.2.6).
const MAX_SERIAL: usize = 20;
const MAX_QUEUES: u64 = 16;
const MAX_OPERATIONS: u64 = 100_000_000;

/// A `[[disk]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The name in log lines.
    pub name: String,
    /// What holds the disk's contents.
    pub medium: Medium,
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
}

/// What holds a disk's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Something that is byte for byte the disk: its name, which whoever opens it understands.
    Image(String),
    /// Memory, zeroes at first, of so many bytes.
    Ram(u64),
}

impl Disk {
    const KEYS: &[&str] = &[
        "name",
        "image",
        "size",
        "read_only",
        "serial",
        "queues",
        "iops",
        "iops_burst",
        "bandwidth",
        "bandwidth_burst",
        "key_file",
    ];

    pub(super) fn read(section: &Section<'_>, more_keys: &[&str]) -> Result<Self, SettingsError> {
        section.only_keys(&[Self::KEYS, more_keys].concat())?;
        let name = section.name("name")?;
        let serial = section.string("serial")?.unwrap_or_else(|| name.chars().take(MAX_SERIAL).collect());
        if serial.len() > MAX_SERIAL || !serial.is_ascii() {
            let message = format!("has \"{serial}\": a serial number has at most {MAX_SERIAL} ASCII characters");
            return Err(section.error("serial", message));
        }
        let operations = |key: &str| section.integer(key, 1..=MAX_OPERATIONS);
        let rate = |(per_second, burst)| Rate { per_second, burst };
        Ok(Self {
            name,
            medium: Self::medium(section)?,
            is_read_only: section.boolean("read_only")?.unwrap_or(false),
            serial,
            // In range by the line before, so nothing is lost.
            queues: section.integer("queues", 1..=MAX_QUEUES)?.unwrap_or(1) as u16,
            limits: Limits {
                operations: super::rate(section, "iops", "iops_burst", operations)?.map(rate),
                bytes: super::rate(section, "bandwidth", "bandwidth_burst", |key| section.size(key))?.map(rate),
            },
            key_file: section.string("key_file")?,
        })
    }

    fn medium(section: &Section<'_>) -> Result<Medium, SettingsError> {
        match (section.string("image")?, section.size("size")?) {
            (Some(image), None) => Ok(Medium::Image(image)),
            (None, Some(bytes)) if bytes.is_multiple_of(SECTOR_BYTES as u64) => Ok(Medium::Ram(bytes)),
            (None, Some(_)) => Err(section.error("size", "is not made of whole sectors of 512 bytes: round it".into())),
            (Some(_), Some(_)) => {
                Err(section.error("size", "is given beside `image`, which has a size of its own: leave one out".into()))
            }
            (None, None) => {
                Err(section.error("image", "is missing: name a file, or give a `size` for a disk in memory".into()))
            }
        }
    }
}
