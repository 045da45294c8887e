//! What `offload-card snapshot` does with a volume, whether a guest uses it or not.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use dragonfly_card_devices::Store;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lists the snapshots.
    List,
    /// Keeps the disk as it is now under this name.
    Create(String),
    /// Deletes the snapshot of this name.
    Delete(String),
}

impl Action {
    /// The action of this word, with the name that it needs.
    #[must_use]
    pub fn of(word: &str, name: Option<&str>) -> Option<Self> {
        match (word, name) {
            ("list", None) => Some(Self::List),
            ("create", Some(name)) => Some(Self::Create(name.into())),
            ("delete", Some(name)) => Some(Self::Delete(name.into())),
            _ => None,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create(_) => "create",
            Self::Delete(_) => "delete",
        }
    }

    /// The snapshot that is meant.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::List => None,
            Self::Create(name) | Self::Delete(name) => Some(name),
        }
    }
}

/// Refuses names that a line of text has no room for.
///
/// # Errors
/// It is one.
pub fn check(action: &Action) -> Result<()> {
    match action.name() {
        Some(name) if name.contains(char::is_control) => bail!("{name:?} cannot be shown: choose another name"),
        _ => Ok(()),
    }
}

/// Does it: what there is to say.
///
/// # Errors
/// The volume does not do it, and says why.
pub fn perform(store: &Store, action: &Action) -> Result<String> {
    check(action)?;
    match action {
        Action::List => {
            let mut text = String::new();
            for snapshot in store.snapshots() {
                writeln!(text, "{}", snapshot.name)?;
            }
            Ok(text)
        }
        Action::Create(name) => {
            if store.find(name).is_ok() {
                bail!("there is a snapshot \"{name}\" already: choose another name");
            }
            store.create_snapshot(name).with_context(|| format!("cannot make \"{name}\""))?;
            Ok(String::new())
        }
        Action::Delete(name) => {
            let deleted = store.find(name).and_then(|id| store.delete_snapshot(id));
            deleted.with_context(|| format!("cannot delete \"{name}\""))?;
            Ok(String::new())
        }
    }
}
