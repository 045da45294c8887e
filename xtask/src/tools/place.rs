//! Looks for a program in one place and asks it for its version.

use std::{path::PathBuf, process::Command};

use super::{Origin, Program, existing, on_path, version::Version};

/// A place where a set's programs and data may be.
pub struct Place {
    /// Folder of the programs; none for all of PATH.
    pub bin: Option<PathBuf>,
    /// Folder under which data has its usual path.
    pub root: PathBuf,
    /// What to call it.
    pub origin: Origin,
}

impl Place {
    /// The program `name`, if it starts and is new enough.
    pub fn program(&self, name: &str, version_argument: &str, at_least: Version) -> Option<Program> {
        let path = match &self.bin {
            Some(bin) => existing(bin.join(name))?,
            None => on_path(name)?,
        };
        let output = Command::new(&path).arg(version_argument).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let version = Version::find(&version_lines(&String::from_utf8_lossy(&text)))?;
        (version >= at_least).then_some(Program { path, version, origin: self.origin })
    }
}

/// Leaves only lines about a version: Bochs mixes its banner with log lines that hold other numbers.
fn version_lines(text: &str) -> String {
    let of_interest = |line: &&str| {
        let line = line.to_ascii_lowercase();
        ["version", "emulator", "grub", "xorriso", "qemu-nbd"].iter().any(|word| line.contains(word))
    };
    text.lines().filter(of_interest).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_around_the_banner_hold_no_version() {
        let text = "00000000000i[ ] LTDL_LIBRARY_PATH is set to '/lib/bochs-2.7'\n   Bochs x86 Emulator 3.0\n";
        assert_eq!(Version::find(&version_lines(text)), Some(Version(3, 0, 0)));
        let text = "qemu-nbd 10.0.2 (Debian 1:10.0.2)\nWritten by A. N. Author 2.\n";
        assert_eq!(Version::find(&version_lines(text)), Some(Version(10, 0, 2)));
    }

    #[test]
    fn a_program_that_is_too_old_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tool");
        std::fs::write(&path, "#!/bin/sh\necho tool version 2.5\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let place = Place { bin: Some(folder.path().into()), root: PathBuf::from("/"), origin: Origin::Private };
        assert!(place.program("tool", "--version", Version(2, 5, 0)).is_some());
        assert!(place.program("tool", "--version", Version(2, 6, 0)).is_none());
        assert!(place.program("other", "--version", Version(0, 0, 0)).is_none());
    }
}
