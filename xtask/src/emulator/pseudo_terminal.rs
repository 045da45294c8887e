//! A pseudo-terminal: the only line in both directions that Bochs has and no other user of the host can get at.

use std::{ffi::OsStr, fs::File, os::unix::ffi::OsStrExt, path::PathBuf};

use anyhow::{Context, Result};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

/// Both ends.
#[derive(Debug)]
pub struct PseudoTerminal {
    /// What the other end reads from and writes to.
    pub device: PathBuf,
    /// Gives what was written to the device.
    pub reader: File,
    /// Takes what is to be read from the device.
    pub writer: File,
    /// Held open, because reading fails while nobody has the device open.
    pub held: File,
}

/// Opens a pseudo-terminal that changes nothing of what goes through it.
///
/// # Errors
/// Fails when the system has none left.
pub fn open() -> Result<PseudoTerminal> {
    let open = || -> Result<PseudoTerminal> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let device = PathBuf::from(OsStr::from_bytes(ptsname(&master, Vec::new())?.as_bytes()));
        let held = File::options().read(true).write(true).open(&device)?;
        let mut settings = tcgetattr(&held)?;
        settings.make_raw();
        tcsetattr(&held, OptionalActions::Now, &settings)?;
        let reader = File::from(master);
        Ok(PseudoTerminal { device, writer: reader.try_clone()?, reader, held })
    };
    open().context("cannot open a pseudo-terminal")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_go_through_unchanged_both_ways() {
        let PseudoTerminal { device, mut reader, mut writer, held } = open().unwrap();
        let mut other = File::options().read(true).write(true).open(device).unwrap();
        let bytes = *b"line\n\x03\x10\r\x1d\xff\0";
        let mut read = [0; 11];
        other.write_all(&bytes).unwrap();
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, bytes);
        writer.write_all(&bytes).unwrap();
        other.read_exact(&mut read).unwrap();
        assert_eq!(read, bytes);
        drop(held);
    }
}
