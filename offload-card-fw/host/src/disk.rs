//! Opens what disks of the machine file are in.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use dragonfly_card_devices::{
    Contents, DiskDevice, Pools, SharedDisk, Store, parse_key,
    tables::{Devices, Disk, Medium},
};
use dragonfly_storage::{RamDisk, SECTOR_BYTES, XtsAes256};

use crate::image::ImageDisk;

/// Opens the disks of a machine file: each image once, whatever number of disks are in it.
pub struct Opener<'a> {
    devices: &'a Devices,
    folder: &'a Path,
    pools: Pools,
    contents: Contents,
}

impl<'a> Opener<'a> {
    /// Nothing is open yet. Paths are relative to `folder`.
    #[must_use]
    pub fn new(devices: &'a Devices, folder: &'a Path) -> Self {
        Self { devices, folder, pools: Pools::default(), contents: Contents::default() }
    }

    /// Opens what holds a disk's contents, and its key.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn open(&mut self, disk: &Disk) -> Result<DiskDevice> {
        let Self { devices, folder, pools, contents } = self;
        let open = || -> Result<_> {
            let is_written = devices.is_written(&disk.medium);
            Ok((open_medium(devices, folder, pools, &disk.medium, is_written)?, read_key(folder, disk)?))
        };
        let contents = contents.of(disk, open).with_context(|| format!("disk {}", disk.name))?;
        Ok(DiskDevice::new(disk, contents))
    }

    /// The volumes with snapshots that were opened, each with the names of the disks that show it.
    #[must_use]
    pub fn stores(&self) -> Vec<(String, Store)> {
        let disks = self.devices.disks.iter();
        disks.filter_map(|disk| Some((disk.name.clone(), self.contents.opened(&disk.medium)?.clone()))).collect()
    }
}

/// Opens what a disk is in, without the layers above it.
///
/// # Errors
/// It cannot be used.
pub fn open_medium(
    devices: &Devices,
    folder: &Path,
    pools: &mut Pools,
    medium: &Medium,
    is_written: bool,
) -> Result<SharedDisk> {
    match medium {
        Medium::Image(name) => open_image(&folder.join(name), !is_written),
        Medium::Nbd(_) => bail!("it is at a server: use an image or a volume"),
        Medium::Ram(bytes) => Ok(Arc::new(RamDisk::new(bytes / SECTOR_BYTES as u64))),
        Medium::Volume { pool: place, volume } => {
            let pool = devices.pools.get(*place).context("the machine file has no such pool")?;
            let is_read_only = !is_written && !devices.is_pool_written(*place);
            pools.volume(&pool.name, volume, is_written, || open_image(&folder.join(&pool.image), is_read_only))
        }
    }
}

/// Opens a file that is a disk byte for byte.
///
/// # Errors
/// It cannot be used.
pub fn open_image(path: &Path, is_read_only: bool) -> Result<SharedDisk> {
    let image = ImageDisk::open(path, is_read_only).with_context(|| format!("cannot use {}", path.display()))?;
    Ok(Arc::new(image))
}

/// The key of a disk that is encrypted.
///
/// # Errors
/// Its file cannot be used.
pub fn read_key(folder: &Path, disk: &Disk) -> Result<Option<XtsAes256>> {
    let Some(name) = &disk.key_file else { return Ok(None) };
    let path = folder.join(name);
    let bytes = fs::read(&path).with_context(|| format!("cannot read the key file {}", path.display()))?;
    parse_key(&bytes).map(Some).with_context(|| format!("cannot use the key file {}", path.display()))
}
