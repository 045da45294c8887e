//! Internet addresses as people write them.

use alloc::format;

use dragonfly_settings::{Section, SettingsError};
use dragonfly_vswitch::Prefix;

/// An address, or a prefix of addresses.
pub(super) fn prefix(text: &str) -> Option<Prefix> {
    match text.split_once('/') {
        None => Some(Prefix::host(text.parse().ok()?)),
        Some((address, length)) => Prefix::new(address.parse().ok()?, length.parse().ok()?),
    }
}

/// What is wrong with a text that is none.
pub(super) fn error(section: &Section<'_>, key: &str, text: &str) -> SettingsError {
    section.error(key, format!("has \"{text}\": give addresses like \"10.0.0.2\" or \"fd00::/64\""))
}
