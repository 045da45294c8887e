//! Lines of text on the kernel's log.

use core::fmt::{self, Write};

use crate::message;
use crate::sys::System;

/// The longest line in bytes; what is longer goes on in the next line.
const LINE_SIZE: usize = 240;

/// Writes a line to the kernel's log, without a level: for what is read by programs.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::console::print_line(core::format_args!($($argument)*))
    };
}

/// Writes lines to the kernel's log. A domain without the right to is not heard.
pub fn print_line(text: fmt::Arguments<'_>) {
    let mut lines = Lines::new(write);
    // Neither the lines nor the log have a way to fail.
    let _ = lines.write_fmt(text);
    lines.finish();
}

/// Writes one line. The message buffer's data is put back as it was, so that a domain may write to the log while it
/// puts a message together.
fn write(line: &str) {
    let buffer = message::buffer();
    let mut saved = [0; LINE_SIZE];
    let saved = saved.get_mut(..line.len()).unwrap_or_default();
    buffer.read(saved);
    if buffer.write(line.as_bytes()).is_ok() {
        let _ = System::OWN.log_write(line.len());
    }
    let _ = buffer.write(saved);
}

/// Cuts text into lines, without a heap: it may be what ran out.
struct Lines<W: FnMut(&str)> {
    line: [u8; LINE_SIZE],
    used: usize,
    write: W,
}

impl<W: FnMut(&str)> Lines<W> {
    const fn new(write: W) -> Self {
        Self { line: [0; LINE_SIZE], used: 0, write }
    }

    /// Writes out what has no line end yet; an empty text is an empty line.
    fn finish(&mut self) {
        let line = self.line.get(..self.used).unwrap_or_default();
        // Only whole characters were put in, so this is all of it.
        (self.write)(str::from_utf8(line).unwrap_or_default());
        self.used = 0;
    }
}

impl<W: FnMut(&str)> Write for Lines<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character == '\n' {
                self.finish();
                continue;
            }
            if self.used + character.len_utf8() > LINE_SIZE {
                self.finish();
            }
            if let Some(place) = self.line.get_mut(self.used..) {
                self.used += character.encode_utf8(place).len();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::fmt::Write;

    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{LINE_SIZE, Lines};
    use crate::testing::property_config;

    fn lines_of(parts: &[&str]) -> Vec<String> {
        let mut written = Vec::new();
        let mut lines = Lines::new(|line: &str| written.push(line.to_owned()));
        for part in parts {
            lines.write_str(part).unwrap();
        }
        lines.finish();
        written
    }

    #[test]
    fn parts_make_one_line_until_a_line_end() {
        assert_eq!(lines_of(&["a ", "b", "\nc", "\n\n", "d"]), ["a b", "c", "", "d"]);
        assert_eq!(lines_of(&[]), [""]);
    }

    #[test]
    fn a_long_line_goes_on_in_the_next_without_cutting_a_character() {
        let text = "ü".repeat(LINE_SIZE);
        let lines = lines_of(&["x", &text]);
        assert!(lines.iter().all(|line| line.len() <= LINE_SIZE));
        assert_eq!(lines.concat(), format!("x{text}"));
        assert_eq!(lines.len(), 3);
    }

    proptest! {
        #![proptest_config(property_config())]

        #[test]
        fn no_text_is_lost(text in prop::collection::vec(any::<char>(), 0..600)) {
            let text = String::from_iter(text);
            let lines = lines_of(&[&text]);
            prop_assert!(lines.iter().all(|line| line.len() <= LINE_SIZE));
            prop_assert_eq!(lines.concat(), text.replace('\n', ""));
        }
    }
}
