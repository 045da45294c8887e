//! A domain's arguments: words separated by blanks, many of them `key=value`.

/// The value of the last word `key=value`, so that what is appended to a command line rules.
pub(crate) fn value<'a>(arguments: &'a str, key: &str) -> Option<&'a str> {
    arguments.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The number in a word `handle.NAME=NUMBER`, which the loader wrote.
pub(crate) fn handle_number(arguments: &str, name: &str) -> Option<u32> {
    arguments
        .split_ascii_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix("handle.")?.strip_prefix(name)?.strip_prefix('='))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{handle_number, value};

    #[test]
    fn the_value_of_a_key_is_found_among_the_words() {
        let arguments = "exit=qemu  log=debug\tquiet name=ping";
        assert_eq!(value(arguments, "log"), Some("debug"));
        assert_eq!(value(arguments, "name"), Some("ping"));
        assert_eq!(value(arguments, "quiet"), None);
        assert_eq!(value(arguments, "lo"), None);
        assert_eq!(value("", "log"), None);
    }

    #[test]
    fn the_last_of_several_values_rules() {
        assert_eq!(value("log=info log=trace", "log"), Some("trace"));
        assert_eq!(value("log=info log=", "log"), Some(""));
    }

    #[test]
    fn a_handle_is_found_by_its_name() {
        let arguments = "role=ping handle.pong=5 handle.ping=6 handle.bad=x";
        assert_eq!(handle_number(arguments, "pong"), Some(5));
        assert_eq!(handle_number(arguments, "ping"), Some(6));
        assert_eq!(handle_number(arguments, "bad"), None);
        assert_eq!(handle_number(arguments, "pon"), None);
    }
}
