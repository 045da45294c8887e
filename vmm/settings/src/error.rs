//! What is wrong with a file, for the person who wrote it.

use alloc::string::String;
use core::fmt;
use core::ops::Range;

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The file's name, as it was given to [`Document::parse`](crate::Document::parse).
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The key, if the fault is one key's.
    pub key: Option<String>,
    /// What is wrong and how to put it right.
    pub message: String,
}

impl SettingsError {
    /// A fault of the text at this range.
    pub(crate) fn at(file: &str, text: &str, span: Range<usize>, key: Option<&str>, message: String) -> Self {
        let before = text.as_bytes().get(..span.start).unwrap_or(text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Self { file: file.into(), line, key: key.map(Into::into), message }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: ", self.file, self.line)?;
        if let Some(key) = &self.key {
            write!(formatter, "`{key}` ")?;
        }
        formatter.write_str(&self.message)
    }
}

impl core::error::Error for SettingsError {}
