//! Opens what disks of the machine file are in.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use dragonfly_card_devices::{
    AnyDisk, DiskDevice, parse_key,
    tables::{Disk, Medium},
};
use dragonfly_storage::{RamDisk, SECTOR_BYTES, XtsAes256};

use crate::image::ImageDisk;

/// Opens what holds a disk's contents, and its key; their paths are relative to `folder`.
///
/// # Errors
/// One of them cannot be used.
pub fn open(disk: &Disk, folder: &Path) -> Result<DiskDevice> {
    let contents: AnyDisk = match &disk.medium {
        Medium::Image(name) => {
            let path = folder.join(name);
            let image = ImageDisk::open(&path, disk.is_read_only);
            Box::new(image.with_context(|| format!("disk {}: cannot use {}", disk.name, path.display()))?)
        }
        Medium::Ram(bytes) => Box::new(RamDisk::new(bytes / SECTOR_BYTES as u64)),
    };
    let key = disk.key_file.as_ref().map(|name| read_key(&folder.join(name))).transpose();
    let key = key.with_context(|| format!("disk {}", disk.name))?;
    DiskDevice::new(disk, contents, key).with_context(|| format!("disk {}", disk.name))
}

fn read_key(path: &Path) -> Result<XtsAes256> {
    let bytes = fs::read(path).with_context(|| format!("cannot read the key file {}", path.display()))?;
    parse_key(&bytes).with_context(|| format!("cannot use the key file {}", path.display()))
}
