//! What the arguments say about the run.

/// How long tests that repeat something do so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// A first answer, soon.
    Quick,
    /// The usual.
    #[default]
    Whole,
    /// As long as it takes.
    Soak,
}

impl Level {
    /// The one of three values that belongs to the level.
    #[must_use]
    pub const fn choose(self, quick: u64, whole: u64, soak: u64) -> u64 {
        match self {
            Self::Quick => quick,
            Self::Whole => whole,
            Self::Soak => soak,
        }
    }
}

/// What the arguments say about the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// Parts of names, separated by commas; empty for all tests.
    pub filter: &'a str,
    /// How much to repeat.
    pub level: Level,
    /// Whether the machine counts one nanosecond per instruction, so that limits of time mean something.
    pub deterministic: bool,
    /// Start of random sequences; `None` to choose one.
    pub seed: Option<u64>,
}

impl<'a> Options<'a> {
    /// Reads `test.filter=A,B`, `test.level=quick|whole|soak`, `test.deterministic=1` and `test.seed=N` among words.
    ///
    /// # Errors
    /// The word that has no meaning.
    pub fn parse(arguments: &'a str) -> Result<Self, &'a str> {
        let mut options = Self::default();
        for word in arguments.split_ascii_whitespace() {
            let Some((key, value)) = word.split_once('=') else { continue };
            match key {
                "test.filter" => options.filter = value,
                "test.level" => {
                    options.level = match value {
                        "quick" => Level::Quick,
                        "whole" => Level::Whole,
                        "soak" => Level::Soak,
                        _ => return Err(word),
                    }
                }
                "test.deterministic" => {
                    options.deterministic = match value {
                        "0" => false,
                        "1" => true,
                        _ => return Err(word),
                    }
                }
                "test.seed" => options.seed = Some(value.parse().map_err(|_| word)?),
                _ if key.starts_with("test.") => return Err(word),
                _ => {}
            }
        }
        Ok(options)
    }

    /// Whether a test of this name is to run. The command line has no room for blanks: `_` stands for them.
    #[must_use]
    pub fn selects(&self, name: &str) -> bool {
        let mut parts = self.filter.split(',').filter(|part| !part.is_empty()).peekable();
        parts.peek().is_none() || parts.any(|part| contains(name, part))
    }
}

/// Whether `part`, in which `_` also matches a blank, occurs in `name`.
fn contains(name: &str, part: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || b == b'_' && a == b' ';
    name.as_bytes().windows(part.len()).any(|window| window.iter().copied().zip(part.bytes()).all(same))
}

#[cfg(test)]
mod tests {
    use super::{Level, Options};

    #[test]
    fn arguments_that_are_for_others_are_passed_over() {
        let options = Options::parse("log=debug exit=qemu test.level=soak test.filter=ipc/,faults quiet test.seed=7");
        let wanted = Options { filter: "ipc/,faults", level: Level::Soak, deterministic: false, seed: Some(7) };
        assert_eq!(options, Ok(wanted));
    }

    #[test]
    fn an_unknown_level_or_key_is_named() {
        assert_eq!(Options::parse("a test.level=fast"), Err("test.level=fast"));
        assert_eq!(Options::parse("test.levle=quick"), Err("test.levle=quick"));
        assert_eq!(Options::parse("test.seed=x"), Err("test.seed=x"));
        assert_eq!(Options::parse("test.deterministic=yes"), Err("test.deterministic=yes"));
    }

    #[test]
    fn without_a_filter_every_test_runs() {
        assert!(Options::default().selects("ipc/anything"));
        assert!(Options { filter: ",", ..Options::default() }.selects("ipc/anything"));
    }

    #[test]
    fn a_part_selects_the_names_it_occurs_in() {
        let options = Options { filter: "ipc/,a_page", ..Options::default() };
        assert!(options.selects("ipc/a call is answered"));
        assert!(options.selects("faults/a page fault is delivered"));
        assert!(!options.selects("faults/a division fault is delivered"));
        assert!(!Options { filter: "longer than the name", ..options }.selects("ipc"));
    }

    #[test]
    fn a_level_chooses_its_value() {
        assert_eq!([Level::Quick, Level::Whole, Level::Soak].map(|level| level.choose(1, 2, 3)), [1, 2, 3]);
    }
}
