//! Builds cpio archives ("newc"): the bundle, and guests' initial RAM disks.

use std::{fs, io::Write, path::Path};

use anyhow::{Context, Result};
use cpio::newc;

/// File types and permissions (`inode(7)`).
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    /// An archive with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    ///
    /// # Errors
    /// Fails when it is larger than the format can say: 4 GiB.
    pub fn file(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        self.append(newc::Builder::new(name).mode(FILE), name, contents)
    }

    /// Adds a file that can be executed.
    ///
    /// # Errors
    /// See [`Archive::file`].
    pub fn program(&mut self, name: &str, contents: &[u8]) -> Result<()> {
        self.append(newc::Builder::new(name).mode(PROGRAM), name, contents)
    }

    /// Adds what is in the file at `path`.
    ///
    /// # Errors
    /// Fails when the file cannot be read; see also [`Archive::file`].
    pub fn file_from(&mut self, name: &str, path: &Path) -> Result<()> {
        let contents = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.file(name, &contents)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// Never in practice.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        self.append(newc::Builder::new(name).mode(FOLDER).nlink(2), name, &[])
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// Never in practice.
    pub fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.append(newc::Builder::new(name).mode(LINK), name, target.as_bytes())
    }

    /// Adds a character device.
    ///
    /// # Errors
    /// Never in practice.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        let builder = newc::Builder::new(name).mode(CHARACTER_DEVICE).rdev_major(major).rdev_minor(minor);
        self.append(builder, name, &[])
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// Never in practice.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        newc::trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }

    fn append(&mut self, builder: newc::Builder, name: &str, contents: &[u8]) -> Result<()> {
        let size = u32::try_from(contents.len()).with_context(|| format!("{name} is too large for a cpio archive"))?;
        let mut writer = builder.write(&mut self.bytes, size);
        writer.write_all(contents)?;
        writer.finish()?;
        Ok(())
    }
}

/// Names, modes and contents of an archive's entries, for tests of those who build one.
#[cfg(test)]
pub fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut rest = archive;
    let mut entries = Vec::new();
    loop {
        let mut reader = newc::Reader::new(rest).unwrap();
        if reader.entry().is_trailer() {
            return entries;
        }
        let mut contents = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut contents).unwrap();
        entries.push((reader.entry().name().to_string(), reader.entry().mode(), contents));
        rest = reader.finish().unwrap();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_reads_back_as_built() {
        let mut archive = Archive::new();
        archive.folder("bin").unwrap();
        archive.program("bin/tool", b"odd").unwrap();
        archive.link("bin/alias", "tool").unwrap();
        archive.file("empty", b"").unwrap();
        archive.character_device("dev/console", 5, 1).unwrap();
        let read = entries(&archive.finish().unwrap());
        let expected = [
            ("bin", 0o040_755, &b""[..]),
            ("bin/tool", 0o100_755, b"odd"),
            ("bin/alias", 0o120_777, b"tool"),
            ("empty", 0o100_644, b""),
            ("dev/console", 0o020_600, b""),
        ];
        assert_eq!(read, expected.map(|(name, mode, contents)| (name.to_string(), mode, contents.to_vec())));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Archive::new().file_from("x", Path::new("/nonexistent/file")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/file"), "{error}");
    }
}
