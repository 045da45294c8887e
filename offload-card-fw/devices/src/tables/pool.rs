//! A disk that holds volumes, in a machine file.

use alloc::{format, string::String, vec::Vec};

use dragonfly_settings::{Section, SettingsError};

use super::disk::serial;

/// A `[[pool]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// By which disks choose it.
    pub name: String,
    /// What is byte for byte the pool: its name, which whoever opens it understands.
    pub image: String,
    /// The serial number of the physical disk that is the pool, where disks are known by those.
    pub serial: String,
}

impl Pool {
    fn read(section: &Section<'_>) -> Result<Self, SettingsError> {
        section.only_keys(&["name", "image", "serial"])?;
        let name = section.name("name")?;
        let image = section.required("image", section.string("image")?)?;
        Ok(Self { serial: serial(section, &name)?, name, image })
    }
}

/// The pools: no two have the same name, image or serial number.
pub(super) fn read(sections: &[Section<'_>]) -> Result<Vec<Pool>, SettingsError> {
    let mut pools: Vec<Pool> = Vec::new();
    for section in sections {
        let pool = Pool::read(section)?;
        for other in &pools {
            let pairs = [
                ("name", &pool.name, &other.name),
                ("image", &pool.image, &other.image),
                ("serial", &pool.serial, &other.serial),
            ];
            if let Some((key, value, _)) = pairs.into_iter().find(|(_, mine, theirs)| mine == theirs) {
                return Err(section.error(key, format!("has \"{value}\" again: describe each pool once")));
            }
        }
        pools.push(pool);
    }
    Ok(pools)
}
