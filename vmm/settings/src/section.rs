//! Reads values of the expected kind out of a TOML document; any other value is an error at its line.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::SettingsError;
use crate::size;
use crate::spelling::is_like;

/// A table of a file.
#[derive(Clone, Debug)]
pub struct Section<'t> {
    file: &'t str,
    text: &'t str,
    span: Range<usize>,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str, span: Range<usize>, table: &'t DeTable<'t>) -> Self {
        Self { file, text, span, table }
    }

    /// The line where the table begins.
    #[must_use]
    pub fn line(&self) -> usize {
        SettingsError::at(self.file, self.text, self.span.clone(), None, String::new()).line
    }

    /// An error about a key, at its value if it has one and at the table's beginning if not.
    #[must_use]
    pub fn error(&self, key: &str, message: String) -> SettingsError {
        let span = self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        SettingsError::at(self.file, self.text, span, Some(key), message)
    }

    /// Refuses any key but these.
    ///
    /// # Errors
    /// There is another key.
    pub fn only_keys(&self, known: &[&str]) -> Result<(), SettingsError> {
        let Some(unknown) = self.table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) else {
            return Ok(());
        };
        let key = unknown.get_ref().as_ref();
        let message = match known.iter().find(|known| is_like(key, known)) {
            Some(like) => format!("is not a known key: did you mean `{like}`?"),
            None => format!("is not a known key: use {}", known.join(", ")),
        };
        Err(SettingsError::at(self.file, self.text, unknown.span(), Some(key), message))
    }

    /// A table under a key.
    ///
    /// # Errors
    /// The value is of another kind.
    pub fn table(&self, key: &str) -> Result<Option<Self>, SettingsError> {
        self.get(key).map(|value| self.section(key, value)).transpose()
    }

    /// The tables of a list; none if the key is not there.
    ///
    /// # Errors
    /// The value is of another kind.
    pub fn tables(&self, key: &str) -> Result<Vec<Self>, SettingsError> {
        self.list(key, "a list of tables", |value| self.section(key, value))
    }

    /// A string.
    ///
    /// # Errors
    /// The value is of another kind.
    pub fn string(&self, key: &str) -> Result<Option<String>, SettingsError> {
        self.get(key).map(|value| self.text_of(key, value)).transpose()
    }

    /// The strings of a list; none if the key is not there.
    ///
    /// # Errors
    /// The value is of another kind.
    pub fn strings(&self, key: &str) -> Result<Vec<String>, SettingsError> {
        self.list(key, "a list of strings", |value| self.text_of(key, value))
    }

    /// True or false.
    ///
    /// # Errors
    /// The value is of another kind.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, SettingsError> {
        self.get(key)
            .map(|value| match value.get_ref() {
                DeValue::Boolean(value) => Ok(*value),
                other => Err(self.wrong_kind(key, other, "true or false")),
            })
            .transpose()
    }

    /// A number in a range.
    ///
    /// # Errors
    /// The value is of another kind or outside the range.
    pub fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, SettingsError> {
        self.get(key).map(|value| self.integer_of(key, value, &range)).transpose()
    }

    /// The numbers of a list, each in a range; none if the key is not there.
    ///
    /// # Errors
    /// The value is of another kind or outside the range.
    pub fn integers(&self, key: &str, range: RangeInclusive<u64>) -> Result<Vec<u64>, SettingsError> {
        self.list(key, "a list of numbers", |value| self.integer_of(key, value, &range))
    }

    /// A size in bytes, written as a string with a unit.
    ///
    /// # Errors
    /// The value is of another kind or no size.
    pub fn size(&self, key: &str) -> Result<Option<u64>, SettingsError> {
        self.string(key)?
            .map(|text| {
                size::parse(&text).ok_or_else(|| {
                    self.error(key, format!("is \"{text}\": give a size like \"64KiB\", \"4MiB\" or \"1GiB\""))
                })
            })
            .transpose()
    }

    /// A string that is one of these names.
    ///
    /// # Errors
    /// The value is of another kind or another name.
    pub fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, SettingsError> {
        self.string(key)?.map(|name| self.chosen(key, &name, choices)).transpose()
    }

    /// What this name, found under the key, stands for.
    ///
    /// # Errors
    /// It is none of the choices.
    pub fn chosen<T: Copy>(&self, key: &str, name: &str, choices: &[(&str, T)]) -> Result<T, SettingsError> {
        choices.iter().find(|(choice, _)| *choice == name).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(choice, _)| format!("\"{choice}\"")).collect();
            self.error(key, format!("has \"{name}\": use {}", names.join(", ")))
        })
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, SettingsError> {
        value.ok_or_else(|| self.error(key, "is missing: add it to this table".to_owned()))
    }

    fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    fn list<T>(
        &self,
        key: &str,
        wanted: &str,
        item: impl Fn(&'t Spanned<DeValue<'t>>) -> Result<T, SettingsError>,
    ) -> Result<Vec<T>, SettingsError> {
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(Vec::new()),
            Some(DeValue::Array(items)) => items.iter().map(item).collect(),
            Some(other) => Err(self.wrong_kind(key, other, wanted)),
        }
    }

    fn section(&self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Result<Self, SettingsError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(Self { file: self.file, text: self.text, span: value.span(), table }),
            other => Err(self.wrong_kind(key, other, "a table")),
        }
    }

    fn text_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, SettingsError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            other => Err(self.wrong_kind(key, other, "a string")),
        }
    }

    fn integer_of(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        range: &RangeInclusive<u64>,
    ) -> Result<u64, SettingsError> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(self.wrong_kind(key, value.get_ref(), "a number"));
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.error(key, format!("is {integer}: give a number from {} to {}", range.start(), range.end()))
        })
    }

    fn wrong_kind(&self, key: &str, value: &DeValue<'_>, wanted: &str) -> SettingsError {
        let kind = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.error(key, format!("is {kind}: give {wanted}"))
    }
}
