//! Pools that are open, and their volumes.

use alloc::{string::String, sync::Arc, vec::Vec};

use dragonfly_storage::volumes::{VolumeError, VolumeTable};

use crate::contents::{ContentsError, SharedDisk};

/// Pools by what names them where disks are opened: a path, or a serial number.
#[derive(Default)]
pub struct Pools {
    open: Vec<Pool>,
}

struct Pool {
    key: String,
    table: VolumeTable<SharedDisk>,
    /// The volumes that were given away, and whether they are written.
    given: Vec<(String, bool)>,
}

impl Pools {
    /// A volume of the pool that `key` names, which `open` opens if it is not open. One that is written is given once.
    ///
    /// # Errors
    /// Those of `open`; [`ContentsError::Pool`], [`ContentsError::NoVolume`], [`ContentsError::VolumeInUse`].
    pub fn volume<E: From<ContentsError>>(
        &mut self,
        key: &str,
        volume: &str,
        is_written: bool,
        open: impl FnOnce() -> Result<SharedDisk, E>,
    ) -> Result<SharedDisk, E> {
        let named = || (key.into(), volume.into());
        let fault = |error| match error {
            VolumeError::NoSuchVolume => {
                let (pool, volume) = named();
                ContentsError::NoVolume { pool, volume }
            }
            error => ContentsError::Pool { pool: key.into(), error },
        };
        let known = self.open.iter().position(|pool| pool.key == key);
        let mut pool = match known {
            Some(place) => self.open.swap_remove(place),
            None => Pool { key: key.into(), table: VolumeTable::open(open()?).map_err(fault)?, given: Vec::new() },
        };
        let is_in_use = pool.given.iter().any(|(name, was)| name == volume && (is_written || *was));
        let found = pool.table.volume(volume).map_err(fault);
        if found.is_ok() && !is_in_use {
            pool.given.push((volume.into(), is_written));
        }
        self.open.push(pool);
        if is_in_use {
            let (pool, volume) = named();
            return Err(ContentsError::VolumeInUse { pool, volume }.into());
        }
        Ok(Arc::new(found?))
    }
}
