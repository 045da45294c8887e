//! The figures that the measuring guest and its hypervisor print.

use std::collections::BTreeMap;

/// What one thing costs, in ticks of the time stamp counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The least of many measurements.
    pub minimum: u64,
    /// The one in the middle.
    pub median: u64,
}

/// Figures by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    by_name: BTreeMap<String, Figure>,
    is_complete: bool,
}

impl Figures {
    /// Reads them from the lines of a serial port: `[bench] NAME MINIMUM MEDIAN` each, and `[bench] end` at the end.
    /// Other lines, and what stands before `[bench]`, mean nothing.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut figures = Self::default();
        for line in lines {
            let Some((_, rest)) = line.split_once("[bench] ") else { continue };
            match rest.split_whitespace().collect::<Vec<_>>()[..] {
                ["end"] => figures.is_complete = true,
                [name, minimum, median] => {
                    if let (Ok(minimum), Ok(median)) = (minimum.parse(), median.parse()) {
                        figures.by_name.insert(name.to_string(), Figure { minimum, median });
                    }
                }
                _ => {}
            }
        }
        figures
    }

    /// Whether the guest came to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The figure called `name`; none where the machine has no such thing.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Figure> {
        self.by_name.get(name).copied()
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Figure)> {
        self.by_name.iter().map(|(name, figure)| (name.as_str(), *figure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_between_other_lines() {
        let figures = Figures::read(["Linux version 6.1", "guest: [bench] cpuid 10 12\r", "[bench] eoi 3 3"]);
        assert_eq!(figures.get("cpuid"), Some(Figure { minimum: 10, median: 12 }));
        assert_eq!(figures.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["cpuid", "eoi"]);
        assert!(!figures.is_complete());
    }

    #[test]
    fn what_is_no_figure_is_left_out() {
        let lines = ["[bench] a", "[bench] a 1", "[bench] a 1 x", "[bench] a 1 2 3", "a 1 2", "[bench] a -1 2"];
        assert_eq!(Figures::read(lines), Figures::default());
    }

    #[test]
    fn only_the_last_line_makes_them_complete() {
        assert!(Figures::read(["[bench] cpuid 1 1", "[bench] end"]).is_complete());
    }
}
