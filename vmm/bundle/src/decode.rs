//! Reads values of the expected kind out of a TOML document; any other value is an error at its line.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::PlanError;
use crate::size;

/// A table of the document.
#[derive(Clone)]
pub(crate) struct Section<'t> {
    text: &'t str,
    span: Range<usize>,
    table: &'t DeTable<'t>,
}

/// Parses a document; its top is a [`Section`].
pub(crate) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, PlanError> {
    DeTable::parse(text).map_err(|error| {
        let message = format!("is not valid TOML: {}: see https://toml.io", error.message());
        PlanError::at(text, error.span().unwrap_or_default(), None, message)
    })
}

impl<'t> Section<'t> {
    pub(crate) fn new(text: &'t str, document: &'t Spanned<DeTable<'t>>) -> Self {
        Self { text, span: document.span(), table: document.get_ref() }
    }

    /// The line where the table begins.
    pub(crate) fn line(&self) -> usize {
        PlanError::at(self.text, self.span.clone(), None, String::new()).line
    }

    /// An error about a key, at its value if it has one and at the table's beginning if not.
    pub(crate) fn error(&self, key: &str, message: String) -> PlanError {
        let span = self.table.get(key).map_or_else(|| self.span.clone(), Spanned::span);
        PlanError::at(self.text, span, Some(key), message)
    }

    /// Refuses any key but these.
    pub(crate) fn only_keys(&self, known: &[&str]) -> Result<(), PlanError> {
        let Some(unknown) = self.table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) else {
            return Ok(());
        };
        let key = unknown.get_ref().as_ref();
        let message = match known.iter().find(|known| is_like(key, known)) {
            Some(like) => format!("is not a known key: did you mean `{like}`?"),
            None => format!("is not a known key: use {}", known.join(", ")),
        };
        Err(PlanError::at(self.text, unknown.span(), Some(key), message))
    }

    pub(crate) fn table(&self, key: &str) -> Result<Option<Self>, PlanError> {
        self.get(key).map(|value| self.section(key, value)).transpose()
    }

    pub(crate) fn tables(&self, key: &str) -> Result<Vec<Self>, PlanError> {
        self.list(key, "a list of tables", |value| self.section(key, value))
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<String>, PlanError> {
        self.get(key).map(|value| self.text_of(key, value)).transpose()
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Vec<String>, PlanError> {
        self.list(key, "a list of strings", |value| self.text_of(key, value))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>, PlanError> {
        self.get(key)
            .map(|value| match value.get_ref() {
                DeValue::Boolean(value) => Ok(*value),
                other => Err(self.wrong_kind(key, other, "true or false")),
            })
            .transpose()
    }

    pub(crate) fn integer(&self, key: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, PlanError> {
        self.get(key).map(|value| self.integer_of(key, value, &range)).transpose()
    }

    pub(crate) fn integers(&self, key: &str, range: RangeInclusive<u64>) -> Result<Vec<u64>, PlanError> {
        self.list(key, "a list of numbers", |value| self.integer_of(key, value, &range))
    }

    /// A size in bytes, written as a string with a unit.
    pub(crate) fn size(&self, key: &str) -> Result<Option<u64>, PlanError> {
        self.string(key)?
            .map(|text| {
                size::parse(&text).ok_or_else(|| {
                    self.error(key, format!("is \"{text}\": give a size like \"64KiB\", \"4MiB\" or \"1GiB\""))
                })
            })
            .transpose()
    }

    /// A string that is one of these names.
    pub(crate) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>, PlanError> {
        self.string(key)?.map(|name| self.chosen(key, &name, choices)).transpose()
    }

    /// What this name stands for.
    pub(crate) fn chosen<T: Copy>(&self, key: &str, name: &str, choices: &[(&str, T)]) -> Result<T, PlanError> {
        choices.iter().find(|(choice, _)| *choice == name).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(choice, _)| format!("\"{choice}\"")).collect();
            self.error(key, format!("has \"{name}\": use {}", names.join(", ")))
        })
    }

    /// A value that must be there.
    pub(crate) fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, PlanError> {
        value.ok_or_else(|| self.error(key, "is missing: add it to this table".to_owned()))
    }

    fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    fn list<T>(
        &self,
        key: &str,
        wanted: &str,
        item: impl Fn(&'t Spanned<DeValue<'t>>) -> Result<T, PlanError>,
    ) -> Result<Vec<T>, PlanError> {
        match self.get(key).map(Spanned::get_ref) {
            None => Ok(Vec::new()),
            Some(DeValue::Array(items)) => items.iter().map(item).collect(),
            Some(other) => Err(self.wrong_kind(key, other, wanted)),
        }
    }

    fn section(&self, key: &str, value: &'t Spanned<DeValue<'t>>) -> Result<Self, PlanError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(Self { text: self.text, span: value.span(), table }),
            other => Err(self.wrong_kind(key, other, "a table")),
        }
    }

    fn text_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<String, PlanError> {
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
    ) -> Result<u64, PlanError> {
        let DeValue::Integer(integer) = value.get_ref() else {
            return Err(self.wrong_kind(key, value.get_ref(), "a number"));
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            self.error(key, format!("is {integer}: give a number from {} to {}", range.start(), range.end()))
        })
    }

    fn wrong_kind(&self, key: &str, value: &DeValue<'_>, wanted: &str) -> PlanError {
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

/// Whether a word was probably meant to be another: both have the same letters but for one added, left out or changed,
/// or for two that are swapped.
fn is_like(word: &str, known: &str) -> bool {
    let common = word.bytes().zip(known.bytes()).take_while(|(one, other)| one == other).count();
    let (word, known) =
        (word.as_bytes().get(common..).unwrap_or_default(), known.as_bytes().get(common..).unwrap_or_default());
    let rest = |bytes: &'_ [u8], skip: usize| bytes.get(skip..).map(<[u8]>::to_vec);
    let swapped = matches!((word, known), ([a, b, tail @ ..], [c, d, rest @ ..]) if (a, b, tail) == (d, c, rest));
    swapped
        || rest(word, 1) == rest(known, 1)
        || rest(word, 1).as_deref() == Some(known)
        || rest(known, 1).as_deref() == Some(word)
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn a_misspelt_word_is_recognised() {
        for misspelt in ["priorty", "prioority", "priolity", "proirity", "rpiority", "prioritys", "prior1ty"] {
            assert!(is_like(misspelt, "priority"), "{misspelt}");
        }
        for other in ["", "prio", "memory", "period_us"] {
            assert!(!is_like(other, "priority"), "{other}");
        }
    }
}
