//! Reads TOML files that people write: `bundle.toml` and machine files.
//!
//! A [`Document`] is a file's text, a [`Section`] one of its tables. Each value is asked for by key and kind; any other
//! value is a [`SettingsError`], which names file, line and key, and says what to write instead.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod budget;
mod document;
mod error;
mod name;
mod section;
mod size;
mod spelling;

pub use budget::Budget;
pub use document::Document;
pub use error::SettingsError;
pub use section::Section;
pub use size::parse as parse_size;
