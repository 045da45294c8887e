//! Memory sizes as users write them.

use std::{fmt, str::FromStr};

/// An amount of memory in mebibytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// The amount.
    pub mebibytes: u64,
}

impl MemorySize {
    /// One gibibyte: enough for every bundle so far.
    pub const DEFAULT: Self = Self { mebibytes: 1024 };
    /// Less has no room for firmware, loader and kernel.
    const SMALLEST: u64 = 64;
    const LARGEST: u64 = 1024 * 1024;
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size; write it like 512M or 2G");
        let unit = text.strip_suffix("iB").unwrap_or(text);
        let (number, unit) = match unit.strip_suffix(['G', 'g']) {
            Some(number) => (number, 1024),
            None => (unit.strip_suffix(['M', 'm']).ok_or_else(wrong)?, 1),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let mebibytes = number.checked_mul(unit).ok_or_else(wrong)?;
        if !(Self::SMALLEST..=Self::LARGEST).contains(&mebibytes) {
            return Err(format!("`{text}` is outside {}M to {}G", Self::SMALLEST, Self::LARGEST / 1024));
        }
        Ok(Self { mebibytes })
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.mebibytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        for (text, mebibytes) in [
            ("64M", 64),
            ("512m", 512),
            ("1G", 1024),
            ("6g", 6144),
            ("64MiB", 64),
            ("2GiB", 2048),
            ("1024G", 1024 * 1024),
        ] {
            assert_eq!(text.parse(), Ok(MemorySize { mebibytes }), "{text}");
        }
    }

    #[test]
    fn what_is_no_sensible_size_is_refused() {
        for text in [
            "",
            "G",
            "iB",
            "1iB",
            "1",
            "1K",
            "-1G",
            "1.5G",
            "63M",
            "1025G",
            "99999999999999999999G",
            "18446744073709551615G",
        ] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
    }
}
