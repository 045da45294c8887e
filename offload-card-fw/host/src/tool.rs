//! `offload-card volume` and `offload-card snapshot`: what is done to disks beside serving them.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use dragonfly_card_devices::{
    Pools, SharedDisk, Store, encrypt, open_store,
    tables::{Devices, Disk, View},
};
use dragonfly_settings::Document;
use dragonfly_storage::{
    BlockBackend, SECTOR_BYTES, Sector,
    snapshot::{Format, SnapshotDisk},
    volumes::VolumeTable,
};
use dragonfly_vswitch::MacAddress;

use crate::{
    cli::{Snapshot, SnapshotAction, Volume, VolumeAction},
    control,
    disk::{open_image, open_medium, read_key},
    image::ImageDisk,
    snapshots::{Action, perform},
};

/// Bytes that are copied at once.
const COPY_BYTES: usize = 1 << 20;

/// A machine file of the process or of the hypervisor, as far as it is about disks.
struct Description {
    devices: Devices,
    folder: PathBuf,
    /// The control socket of the process that serves the disks.
    control: Option<PathBuf>,
}

impl Description {
    fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.display().to_string();
        let document = Document::parse(&name, &text)?;
        let top = document.top();
        let folder = file.parent().unwrap_or(Path::new("")).to_path_buf();
        // The address is of no matter here.
        let devices = Devices::read(&top, &["socket"], |_| Some(MacAddress([0; 6])))?;
        Ok(Self { devices, control: top.string("control")?.map(|path| folder.join(path)), folder })
    }

    fn disk(&self, name: &str) -> Result<&Disk> {
        let disk = self.devices.disks.iter().find(|disk| disk.name == name);
        let disk = disk.with_context(|| format!("there is no disk \"{name}\" in the machine file"))?;
        if disk.view == View::Whole {
            bail!("disk {name} has no snapshots: write `snapshots = true` in its table");
        }
        Ok(disk)
    }

    /// What the disk is in, decrypted.
    fn medium(&self, disk: &Disk, is_written: bool) -> Result<SharedDisk> {
        let medium = open_medium(&self.devices, &self.folder, &mut Pools::default(), &disk.medium, is_written)?;
        Ok(encrypt(medium, read_key(&self.folder, disk)?)?)
    }

    fn store(&self, disk: &Disk, is_written: bool) -> Result<Store> {
        Ok(open_store(self.medium(disk, is_written)?, None)?)
    }
}

/// Does what `offload-card volume` is to do.
///
/// # Errors
/// It cannot be done.
pub fn volume(arguments: &Volume) -> Result<()> {
    let description = Description::read(&arguments.machine)?;
    let pool = description.devices.pools.iter().find(|pool| pool.name == arguments.pool);
    let pool = pool.with_context(|| format!("there is no pool \"{}\" in the machine file", arguments.pool))?;
    let is_read_only = matches!(arguments.action, VolumeAction::List);
    let image = open_image(&description.folder.join(&pool.image), is_read_only)?;
    let open = || VolumeTable::open(image.clone()).with_context(|| format!("pool {}", pool.name));
    match &arguments.action {
        VolumeAction::Format { force } => {
            if !force && VolumeTable::open(image.clone()).is_ok() {
                bail!("pool {} has volumes already: give --force to lose them", pool.name);
            }
            VolumeTable::format(image.clone()).with_context(|| format!("pool {}", pool.name))?;
        }
        VolumeAction::List => {
            for volume in open()?.volumes() {
                writeln!(io::stdout(), "{}\t{} MiB", volume.name, volume.extent.count.div_ceil(2048))?;
            }
        }
        VolumeAction::Create { name, size } => {
            let made = open()?.create(name, sectors(*size)?);
            made.with_context(|| format!("volume {name}"))?;
        }
        VolumeAction::Delete { name } => open()?.delete(name).with_context(|| format!("volume {name}"))?,
    }
    Ok(())
}

/// Does what `offload-card snapshot` is to do.
///
/// # Errors
/// It cannot be done.
pub fn snapshot(arguments: &Snapshot) -> Result<()> {
    let description = Description::read(&arguments.machine)?;
    let disk = description.disk(&arguments.disk)?;
    let action = match &arguments.action {
        SnapshotAction::Format { size, from, force } => {
            return format(&description, disk, *size, from.as_deref(), *force);
        }
        SnapshotAction::Export { name, to } => return export(&description, disk, name.as_deref(), to),
        SnapshotAction::List => Action::List,
        SnapshotAction::Create { name } => Action::Create(name.clone()),
        SnapshotAction::Delete { name } => Action::Delete(name.clone()),
    };
    let asked = description.control.as_ref().map(|path| control::ask(path, &disk.name, &action)).transpose()?;
    let said = match asked.flatten() {
        Some(said) => said,
        None => perform(&description.store(disk, action != Action::List)?, &action)?,
    };
    Ok(io::stdout().write_all(said.as_bytes())?)
}

/// Makes a volume with snapshots, empty or with the contents of an image.
fn format(description: &Description, disk: &Disk, size: Option<u64>, from: Option<&Path>, force: bool) -> Result<()> {
    let medium = description.medium(disk, true)?;
    if !force && SnapshotDisk::open(medium.clone()).is_ok() {
        bail!("disk {} has a volume with snapshots already: give --force to lose it", disk.name);
    }
    let source = from.map(|path| ImageDisk::open(path, true).with_context(|| format!("cannot use {}", path.display())));
    let source = source.transpose()?;
    let source_sectors = source.as_ref().map(|source| source.geometry().capacity_sectors);
    let capacity_sectors = match (size, source_sectors) {
        (Some(bytes), Some(least)) if sectors(bytes)? < least => bail!("--size is less than what --from has"),
        (Some(bytes), _) => sectors(bytes)?,
        // Whole blocks of 4 KiB.
        (None, Some(sectors)) => sectors.next_multiple_of(8),
        (None, None) => bail!("give the disk a --size, or contents by --from"),
    };
    let format = Format { capacity_sectors, chunk_bytes: Format::CHUNK_BYTES };
    let store = SnapshotDisk::format(medium, format).with_context(|| format!("disk {}", disk.name))?;
    if let Some(source) = source {
        copy(&source, |first, bytes| Ok(store.write(first, bytes)?))?;
    }
    Ok(store.flush()?)
}

/// Copies a snapshot, or the disk as it is, to a file that is the disk byte for byte.
fn export(description: &Description, disk: &Disk, name: Option<&str>, to: &Path) -> Result<()> {
    let store = description.store(disk, false)?;
    let cannot_write = || format!("cannot write {}", to.display());
    let file = File::create_new(to).with_context(cannot_write)?;
    file.set_len(store.geometry().capacity_sectors * SECTOR_BYTES as u64).with_context(cannot_write)?;
    let source: SharedDisk = match name {
        None => store,
        Some(name) => {
            Arc::new(store.find(name).and_then(|id| store.snapshot(id)).with_context(|| format!("\"{name}\""))?)
        }
    };
    let write = |first: Sector, bytes: &[u8]| {
        let at = first.0 * SECTOR_BYTES as u64;
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).with_context(cannot_write)
    };
    copy(&source, write)?;
    file.sync_all().with_context(cannot_write)
}

/// Gives all of a disk to `write` that is not zeros.
fn copy(from: &impl BlockBackend, mut write: impl FnMut(Sector, &[u8]) -> Result<()>) -> Result<()> {
    let capacity = from.geometry().capacity_sectors;
    let step = (COPY_BYTES / SECTOR_BYTES) as u64;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < capacity {
        let now = step.min(capacity - at);
        // At most a buffer's, by the line before.
        let bytes = buffer.get_mut(..now as usize * SECTOR_BYTES).unwrap_or_default();
        from.read(Sector(at), bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            write(Sector(at), bytes)?;
        }
        at += now;
    }
    Ok(())
}

/// A size in sectors.
fn sectors(bytes: u64) -> Result<u64> {
    if bytes == 0 || !bytes.is_multiple_of(8 * SECTOR_BYTES as u64) {
        bail!("a size is a multiple of 4 KiB: round {bytes}");
    }
    Ok(bytes / SECTOR_BYTES as u64)
}

/// A size such as `64MiB`, for the command line.
///
/// # Errors
/// It is none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    dragonfly_settings::parse_size(text).ok_or_else(|| "give a size such as 64MiB or 10GiB".into())
}
