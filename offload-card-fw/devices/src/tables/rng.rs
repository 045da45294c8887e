//! A source of random numbers in a machine file.

use alloc::string::String;

use dragonfly_rate::Rate;
use dragonfly_settings::{Section, SettingsError};

/// An `[[rng]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rng {
    /// The name in log lines.
    pub name: String,
    /// How many bytes the guest gets.
    pub rate: Option<Rate>,
}

impl Rng {
    const KEYS: &[&str] = &["name", "bandwidth", "bandwidth_burst"];

    pub(super) fn read(section: &Section<'_>, more_keys: &[&str]) -> Result<Self, SettingsError> {
        section.only_keys(&[Self::KEYS, more_keys].concat())?;
        let bandwidth = super::rate(section, "bandwidth", "bandwidth_burst", |key| section.size(key))?;
        let rate = bandwidth.map(|(per_second, burst)| Rate { per_second, burst });
        Ok(Self { name: section.name("name")?, rate })
    }
}
