//! A whole file.

use alloc::format;

use toml::Spanned;
use toml::de::DeTable;

use crate::error::SettingsError;
use crate::section::Section;

/// The text of a file, parsed.
#[derive(Debug)]
pub struct Document<'t> {
    file: &'t str,
    text: &'t str,
    table: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    /// Parses `text`; errors call it `file`.
    ///
    /// # Errors
    /// The text is not TOML.
    pub fn parse(file: &'t str, text: &'t str) -> Result<Self, SettingsError> {
        let table = DeTable::parse(text).map_err(|error| {
            let message = format!("is not valid TOML: {}: see https://toml.io", error.message());
            SettingsError::at(file, text, error.span().unwrap_or_default(), None, message)
        })?;
        Ok(Self { file, text, table })
    }

    /// The table at the top.
    #[must_use]
    pub fn top(&self) -> Section<'_> {
        Section::new(self.file, self.text, self.table.span(), self.table.get_ref())
    }
}
