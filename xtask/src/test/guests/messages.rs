//! Kernel messages that tell of trouble, and those among them that mean nothing: the kernel prints them without us too.

use std::collections::BTreeSet;

/// What scripts put in front of such a message.
const PREFIX: &str = "[dmesg] ";

/// Words that a console line of a kernel in trouble has, in lower case.
const WORDS: [&str; 8] =
    ["warning:", "bug:", "oops", "unstable", "lockup", "firmware bug", "call trace", "kernel panic"];

/// Messages by what they say whatever the time, the address or the number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownMessages(BTreeSet<String>);

impl KnownMessages {
    /// All messages in these lines of a console.
    pub fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self(lines.into_iter().filter_map(message).map(skeleton).collect())
    }

    /// The messages in these lines of a console that are none of the known ones.
    pub fn unknown<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        let messages = lines.into_iter().filter_map(message);
        messages.filter(|message| !self.0.contains(&skeleton(message))).collect()
    }

    /// As text, one a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.iter().map(|message| format!("{message}\n")).collect()
    }

    /// From such a text.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.lines().map(str::to_string).collect())
    }
}

/// The message in a line: a script shows it, or the kernel itself writes it to the console.
fn message(line: &str) -> Option<&str> {
    match line.split_once(PREFIX) {
        Some((_, message)) => Some(message),
        None => {
            let lower = line.to_lowercase();
            WORDS.iter().any(|word| lower.contains(word)).then_some(line)
        }
    }
}

/// A message without `<LEVEL>[TIME]`, and with all numbers alike.
fn skeleton(message: &str) -> String {
    let message = message.strip_prefix('<').and_then(|rest| rest.split_once('>')).map_or(message, |(_, rest)| rest);
    let message = message.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(message, |(_, rest)| rest);
    let mut skeleton = String::new();
    for word in message.split_whitespace() {
        if !skeleton.is_empty() {
            skeleton.push(' ');
        }
        if word.contains(|c: char| c.is_ascii_digit()) {
            skeleton.extend(word.chars().filter(|c| !c.is_ascii_hexdigit()).chain(['#']));
        } else {
            skeleton.push_str(word);
        }
    }
    skeleton
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_whatever_its_time_and_numbers() {
        let known = KnownMessages::of(["[dmesg] <4>[    0.123456] RETBleed: WARNING: Spectre v2 at 0xff00"]);
        let same = "[dmesg] <4>[   12.000001] RETBleed: WARNING: Spectre v2 at 0xab12";
        assert!(known.unknown([same]).is_empty());
        assert_eq!(known.unknown([same, "[dmesg] <4>[ 1.0] tsc: unstable"]), ["<4>[ 1.0] tsc: unstable"]);
    }

    #[test]
    fn what_a_kernel_in_trouble_writes_to_the_console_is_a_message() {
        let line = "[    4.2] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!";
        assert_eq!(KnownMessages::default().unknown(["/ # ", line]), [line]);
    }

    #[test]
    fn other_lines_are_no_messages() {
        let lines = ["Dragonfly guest debian: Linux 6.1.0", "[check] ok kernel messages", ""];
        assert!(KnownMessages::default().unknown(lines).is_empty());
    }

    #[test]
    fn known_messages_survive_being_written_down() {
        let known = KnownMessages::of(["[dmesg] <4>[ 0.1] one 1", "[dmesg] <3>[ 0.1] two"]);
        assert_eq!(KnownMessages::from_text(&known.to_text()), known);
    }
}
