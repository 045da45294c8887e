//! A pseudo-terminal: the only line in both directions that Bochs has and no other user of the host can get at.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::PathBuf,
};

use anyhow::{Context, Result};
use rustix::{
    fs::OFlags,
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
        // A process that leads a session without a terminal would take it for its own, and get a SIGHUP at its end.
        let not_its_own = OFlags::NOCTTY.bits().cast_signed();
        let held = File::options().read(true).write(true).custom_flags(not_its_own).open(&device)?;
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
    use std::{
        env,
        io::{Read, Write},
        process::Command,
    };

    use super::*;

    #[test]
    fn it_does_not_become_the_terminal_of_a_session_without_one() {
        const IS_LEADER: &str = "DRAGONFLY_TEST_LEADS_SESSION";
        if env::var_os(IS_LEADER).is_some() {
            let _terminal = open().unwrap();
            assert!(File::open("/dev/tty").is_err());
            return;
        }
        let name = "emulator::pseudo_terminal::tests::it_does_not_become_the_terminal_of_a_session_without_one";
        let leader = [env::current_exe().unwrap().into_os_string(), "--exact".into(), name.into()];
        let status = Command::new("setsid").arg("--wait").args(leader).env(IS_LEADER, "1").status().unwrap();
        assert!(status.success());
    }

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
