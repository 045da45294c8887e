//! What the disks of every kind are in, made by the card's own commands, and what must be there afterwards.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::test::{
    command::{self, Finished},
    nbd::Server,
    report::Outcome,
};

const MIB: u64 = 1 << 20;
/// `tests/guests/linux/disks.sh` writes this line again and again to the ends of the plain volume and of the encrypted disk.
const MARKER: &[u8] = b"marked by the guest\n";

/// How long each request to the slow disk takes.
const DELAY: Duration = Duration::from_millis(500);

/// Images, a pool, a key and a slow disk's server; they go with this.
#[derive(Debug)]
pub struct Media {
    _slow: Server,
    folder: TempDir,
}

impl Media {
    /// Empty images, and one with the lines that `disks.sh` expects: the numbers from 1 on, one MiB of them.
    ///
    /// # Errors
    /// Fails when there is no room for them.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let slow = Server::start(&folder.path().join("slow.sock"), 1 << 20, DELAY)?;
        let media = Self { _slow: slow, folder };
        for (name, bytes) in [("pool.img", 64 * MIB), ("cipher.img", 16 * MIB)] {
            let path = media.folder().join(name);
            let made = File::create(&path).and_then(|file| file.set_len(bytes));
            made.with_context(|| format!("cannot make {}", path.display()))?;
        }
        let lines: Vec<u8> = (1..=200_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
        fs::write(media.folder().join("lines.img"), lines.get(..MIB as usize).context("too few lines")?)?;
        fs::write(media.folder().join("cipher.key"), "0123456789abcdef".repeat(4) + &"fedcba9876543210".repeat(4))?;
        Ok(media)
    }

    /// Where the machine file's paths begin.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the pool's volumes and a snapshot, as a user of this machine file does, with the program `card`.
    ///
    /// # Errors
    /// Fails when a command does.
    pub fn fill(&self, card: &Path, machine_file: &str) -> Result<()> {
        let file = self.folder().join("machine.toml");
        fs::write(&file, machine_file)?;
        let lines = self.folder().join("lines.img");
        for (kind, words) in [
            ("volume", &["pool", "format"][..]),
            ("volume", &["pool", "create", "plain", "16MiB"]),
            ("volume", &["pool", "create", "store", "40MiB"]),
            ("snapshot", &["live", "format", "--size", "16MiB", "--from", &lines.to_string_lossy()]),
            ("snapshot", &["live", "create", "before"]),
        ] {
            let mut program = Command::new(card);
            program.arg(kind).arg("--machine").arg(&file).args(words);
            let Finished { success, output, .. } =
                command::run(&mut program, &self.folder().join("said"), Duration::from_secs(60))?;
            anyhow::ensure!(success, "offload-card {kind} {}: {output}", words.join(" "));
        }
        Ok(())
    }

    /// What is encrypted is nowhere in the clear, and what is not encrypted is: the guest has written the same to both.
    ///
    /// # Errors
    /// Fails when an image cannot be read.
    pub fn judge(&self) -> Result<Outcome> {
        const NAME: &str = "the encrypted disk's image has nothing in the clear";
        let has_marker = |name: &str| -> Result<bool> {
            let image = fs::read(self.folder().join(name))?;
            Ok(image.windows(MARKER.len()).any(|bytes| bytes == MARKER))
        };
        Ok(match (has_marker("pool.img")?, has_marker("cipher.img")?) {
            (true, false) => Outcome::passed(NAME),
            (false, _) => Outcome::failed(NAME, "the volume has not what the guest wrote there"),
            (true, true) => Outcome::failed(NAME, "it has what the guest wrote there"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn plaintext_where_there_is_to_be_ciphertext_is_found() {
        let media = Media::new().unwrap();
        let mark = |name: &str| {
            let mut file = File::options().append(true).open(media.folder().join(name)).unwrap();
            file.write_all(&MARKER.repeat(3)).unwrap();
        };
        assert!(media.judge().unwrap().failure.is_some(), "nobody wrote to the volume");
        mark("pool.img");
        assert!(media.judge().unwrap().failure.is_none());
        mark("cipher.img");
        assert!(media.judge().unwrap().failure.is_some());
    }
}
