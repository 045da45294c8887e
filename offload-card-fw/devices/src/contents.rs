//! The layers between a disk's medium and its guest: encryption, snapshots, write protection.

use alloc::{string::String, sync::Arc, vec::Vec};

use dragonfly_storage::{
    BlockBackend, DataUnit, EncryptedDisk, ReadOnlyDisk, XtsAes256,
    snapshot::{SnapshotDisk, SnapshotError},
    volumes::VolumeError,
};

use crate::tables::{Disk, Medium, View};

/// What holds a disk's contents. Several disks may have a part of one.
pub type SharedDisk = Arc<dyn BlockBackend + Send + Sync>;

/// A volume with its snapshots.
pub type Store = Arc<SnapshotDisk<SharedDisk>>;

/// Why a disk cannot be served: the fault of whoever described it, or made what it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentsError {
    /// Sectors of 512 bytes are encrypted each by itself, but the disk has larger blocks.
    #[error("it has blocks larger than 512 bytes and cannot be encrypted: use another disk, or leave `key_file` out")]
    LargeBlocks,
    /// What is to have snapshots was not made to, or the key is another.
    #[error(
        "its volume with snapshots cannot be opened: {0}: make one by `offload-card snapshot`, and check `key_file`"
    )]
    Store(SnapshotError),
    /// There is no such snapshot.
    #[error("it has no snapshot \"{0}\": see `offload-card snapshot`")]
    NoSnapshot(String),
    /// The pool cannot be used.
    #[error("pool {pool}: {error}: see `offload-card volume`")]
    Pool {
        /// The pool's name.
        pool: String,
        /// What is wrong.
        error: VolumeError,
    },
    /// The pool has no such volume.
    #[error("pool {pool} has no volume \"{volume}\": make it by `offload-card volume`")]
    NoVolume {
        /// The pool's name.
        pool: String,
        /// The name that no volume has.
        volume: String,
    },
    /// Another disk has the volume.
    #[error("volume \"{volume}\" of pool {pool} is another disk's, and one of them writes to it: name another volume")]
    VolumeInUse {
        /// The pool's name.
        pool: String,
        /// The volume's name.
        volume: String,
    },
}

/// Makes the contents of a machine file's disks, of which several may see the same medium.
#[derive(Default)]
pub struct Contents {
    stores: Vec<(Medium, Store)>,
}

impl Contents {
    /// What the guest of `disk` sees. `open` gives the medium and the disk's key; it is called once for each medium with
    /// snapshots, whatever number of disks show it.
    ///
    /// # Errors
    /// Those of `open`, and [`ContentsError`].
    pub fn of<E: From<ContentsError>>(
        &mut self,
        disk: &Disk,
        open: impl FnOnce() -> Result<(SharedDisk, Option<XtsAes256>), E>,
    ) -> Result<SharedDisk, E> {
        let contents: SharedDisk = match &disk.view {
            View::Whole => {
                let (medium, key) = open()?;
                encrypt(medium, key)?
            }
            View::Live => self.store(&disk.medium, open)?,
            View::Snapshot(name) => {
                let store = self.store(&disk.medium, open)?;
                let snapshot = store.find(name).and_then(|id| store.snapshot(id));
                Arc::new(snapshot.map_err(|_| ContentsError::NoSnapshot(name.clone()))?)
            }
        };
        let is_protected = disk.is_read_only && !contents.geometry().is_read_only;
        Ok(if is_protected { Arc::new(ReadOnlyDisk(contents)) } else { contents })
    }

    /// The volume with snapshots that is in this medium, if a disk shows it.
    #[must_use]
    pub fn opened(&self, medium: &Medium) -> Option<&Store> {
        self.stores.iter().find(|(known, _)| known == medium).map(|(_, store)| store)
    }

    fn store<E: From<ContentsError>>(
        &mut self,
        medium: &Medium,
        open: impl FnOnce() -> Result<(SharedDisk, Option<XtsAes256>), E>,
    ) -> Result<Store, E> {
        if let Some(store) = self.opened(medium) {
            return Ok(store.clone());
        }
        let (contents, key) = open()?;
        let store = open_store(contents, key)?;
        self.stores.push((medium.clone(), store.clone()));
        Ok(store)
    }
}

/// Opens the volume with snapshots in a medium, which has ciphertext if there is a key.
///
/// # Errors
/// [`ContentsError::LargeBlocks`], [`ContentsError::Store`].
pub fn open_store(medium: SharedDisk, key: Option<XtsAes256>) -> Result<Store, ContentsError> {
    SnapshotDisk::open(encrypt(medium, key)?).map(Arc::new).map_err(ContentsError::Store)
}

/// What is encrypted in a medium, if there is a key.
///
/// # Errors
/// [`ContentsError::LargeBlocks`].
pub fn encrypt(medium: SharedDisk, key: Option<XtsAes256>) -> Result<SharedDisk, ContentsError> {
    let Some(key) = key else { return Ok(medium) };
    let encrypted = EncryptedDisk::new(medium, key, DataUnit::Bytes512).map_err(|_| ContentsError::LargeBlocks)?;
    Ok(Arc::new(encrypted))
}
