//! The archive together with its plan.

use alloc::format;
use alloc::string::String;

use dragonfly_archive::{Archive, ArchiveError};
use dragonfly_settings::SettingsError;
use thiserror::Error;

use crate::plan::Plan;

/// Name of the file that says what to start.
pub const PLAN_NAME: &str = "bundle.toml";

/// Why a bundle cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BundleError {
    /// The archive is damaged.
    #[error("{0}: build the image again")]
    Archive(#[from] ArchiveError),
    /// The archive has no `bundle.toml`.
    #[error("the archive has no {PLAN_NAME}: add one")]
    NoPlan,
    /// `bundle.toml` is no text.
    #[error("{PLAN_NAME}:{line}: is not UTF-8: save it as such")]
    NotText {
        /// The line where it stops to be.
        line: usize,
    },
    /// `bundle.toml` has a fault.
    #[error(transparent)]
    Plan(#[from] SettingsError),
}

/// A bundle that is fit to be started.
#[derive(Clone, Debug)]
pub struct Bundle<'a> {
    archive: Archive<'a>,
    plan: Plan,
}

impl<'a> Bundle<'a> {
    /// Checks an archive, its plan, and that it has the programs that the plan names.
    ///
    /// # Errors
    /// Each [`BundleError`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let archive = Archive::new(bytes);
        // All of it is read once, so that a damaged end does not show only when something there is needed.
        archive.entries().try_for_each(|entry| entry.map(drop))?;
        let file = archive.find(PLAN_NAME)?.ok_or(BundleError::NoPlan)?;
        let text = str::from_utf8(file.data).map_err(|error| {
            let valid = file.data.get(..error.valid_up_to()).unwrap_or_default();
            BundleError::NotText { line: 1 + valid.iter().filter(|byte| **byte == b'\n').count() }
        })?;
        let plan = Plan::parse(text)?;
        for domain in &plan.domains {
            if archive.find(&domain.program)?.is_none() {
                let message = format!("is \"{}\", which is not in the archive: {}", domain.program, names(archive));
                let fault =
                    SettingsError { file: PLAN_NAME.into(), line: domain.line, key: Some("program".into()), message };
                return Err(fault.into());
            }
        }
        Ok(Self { archive, plan })
    }

    /// What `bundle.toml` says.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A file of the archive.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        // `open` has read all entries without an error.
        self.archive.find(name).ok().flatten().map(|entry| entry.data)
    }
}

/// What the archive has, for whoever misspelt a name.
fn names(archive: Archive<'_>) -> String {
    let mut list = String::from("it has");
    for entry in archive.entries().flatten().filter(|entry| entry.name != PLAN_NAME) {
        list.push(' ');
        list.push_str(entry.name);
    }
    list
}
