//! The kernel's command line: words, some of them `key=value`.

use crate::{Field, HandoffError};

/// Longest command line, in bytes.
pub const MAX_COMMAND_LINE: usize = 4096;

/// A checked command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a>(&'a str);

impl<'a> CommandLine<'a> {
    /// Checks length and encoding.
    ///
    /// # Errors
    /// [`HandoffError::TooLong`] and [`HandoffError::NotText`] for [`Field::CommandLine`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HandoffError> {
        if bytes.len() > MAX_COMMAND_LINE {
            return Err(HandoffError::TooLong(Field::CommandLine));
        }
        str::from_utf8(bytes).map(Self).map_err(|_| HandoffError::NotText(Field::CommandLine))
    }

    /// The line as the loader was given it.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The words, split at white space.
    pub fn words(self) -> impl Iterator<Item = &'a str> {
        self.0.split_whitespace()
    }

    /// The value of the last word `key=value`: later words override earlier ones.
    pub fn value(self, key: &str) -> Option<&'a str> {
        self.words().filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')).last()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_key_counts() {
        let line = CommandLine::parse(b"log=info exit=qemu log=debug").unwrap();
        assert_eq!(line.value("log"), Some("debug"));
        assert_eq!(line.value("exit"), Some("qemu"));
    }

    #[test]
    fn a_key_is_not_found_within_a_longer_one() {
        let line = CommandLine::parse(b"logger=1 log").unwrap();
        assert_eq!(line.value("log"), None);
    }

    #[test]
    fn a_value_may_be_empty_and_may_hold_equals_signs() {
        let line = CommandLine::parse(b"a= b=c=d").unwrap();
        assert_eq!(line.value("a"), Some(""));
        assert_eq!(line.value("b"), Some("c=d"));
    }

    #[test]
    fn a_line_that_is_not_text_or_too_long_is_refused() {
        assert_eq!(CommandLine::parse(b"\xff"), Err(HandoffError::NotText(Field::CommandLine)));
        let long = [b'x'; MAX_COMMAND_LINE + 1];
        assert_eq!(CommandLine::parse(&long), Err(HandoffError::TooLong(Field::CommandLine)));
        assert!(CommandLine::parse(&long[1..]).is_ok());
    }
}
