//! Version numbers as programs print them.

use std::fmt;

/// A program's version: up to three numbers, compared in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first dotted number in `text`: `QEMU emulator version 10.0.2 (Debian …)` gives 10.0.2, `Emulator 3.0` 3.0.0.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find_map(|word| {
            let mut parts = word.split('.').map(|part| part.parse().ok());
            let major = parts.next()??;
            let minor = parts.next()??;
            Some(Self(major, minor, parts.next().flatten().unwrap_or(0)))
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_programs_print() {
        for (text, version) in [
            ("QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", Some(Version(10, 0, 13))),
            ("                 Bochs x86 Emulator 3.0\n", Some(Version(3, 0, 0))),
            ("grub-mkimage (GRUB) 2.12-9+deb13u2", Some(Version(2, 12, 0))),
            ("xorriso 1.5.6 : RockRidge filesystem manipulator", Some(Version(1, 5, 6))),
            ("no number here", None),
            ("build 17", None),
            ("1..2", None),
        ] {
            assert_eq!(Version::find(text), version, "{text}");
        }
    }

    #[test]
    fn ten_is_newer_than_nine() {
        assert!(Version(10, 0, 0) > Version(9, 2, 1));
    }
}
