//! The files of a system, and the tar archive that a file system is made from.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};
use tar::{EntryType, Header};

/// When the files that no package has were last changed, in seconds of Unix time: always the same, so that archives of the
/// same contents are.
const CHANGED: u64 = 1_700_000_000;

/// Folders of the root that are links to those below `usr`; packages of Debian 12 still have files in both.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Files, folders and links by their paths, which have no leading `/`. All belong to root.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<PathBuf, Entry>);

#[derive(Debug)]
struct Entry {
    kind: Kind,
    mode: u32,
    changed: u64,
}

#[derive(Debug)]
enum Kind {
    Folder,
    File(Contents),
    Link(PathBuf),
}

#[derive(Debug)]
enum Contents {
    Here(Vec<u8>),
    In(PathBuf),
}

impl Tree {
    /// The files of unpacked packages below `root`, in the places where Debian installs them.
    ///
    /// # Errors
    /// Fails when a folder cannot be read.
    pub fn of(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        tree.walk(root, Path::new(""))?;
        for name in MERGED {
            tree.link(name, &format!("usr/{name}"));
        }
        Ok(tree)
    }

    fn walk(&mut self, root: &Path, folder: &Path) -> Result<()> {
        let path = root.join(folder);
        let entries = fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            let below = folder.join(entry?.file_name());
            let path = root.join(&below);
            let metadata = path.symlink_metadata().with_context(|| format!("cannot read {}", path.display()))?;
            let is_folder = metadata.is_dir();
            let kind = if is_folder {
                Kind::Folder
            } else if metadata.is_symlink() {
                Kind::Link(fs::read_link(&path)?)
            } else {
                Kind::File(Contents::In(path))
            };
            let changed = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
            self.0.insert(merged(&below), Entry { kind, mode: metadata.mode() & 0o7777, changed });
            if is_folder {
                self.walk(root, &below)?;
            }
        }
        Ok(())
    }

    /// Whether there is something at `path`.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }

    /// Adds a folder, or changes its permissions.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.add(path, Kind::Folder, mode);
    }

    /// Adds a file, or replaces it.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.add(path, Kind::File(Contents::Here(contents.into())), mode);
    }

    /// Adds a symbolic link, or replaces what is there.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, Kind::Link(target.into()), 0o777);
    }

    fn add(&mut self, path: &str, kind: Kind, mode: u32) {
        self.0.insert(path.into(), Entry { kind, mode, changed: CHANGED });
    }

    /// The contents of all files below `folder` whose names end in `.extension`, one after the other.
    ///
    /// # Errors
    /// Fails when one cannot be read.
    pub fn joined(&self, folder: &str, extension: &str) -> Result<Vec<u8>> {
        let mut joined = Vec::new();
        for (path, entry) in &self.0 {
            if path.starts_with(folder)
                && path.extension().is_some_and(|name| name == extension)
                && let Kind::File(contents) = &entry.kind
            {
                joined.extend(contents.read()?);
            }
        }
        Ok(joined)
    }

    /// Bytes of all files, rounded up to blocks of a file system.
    ///
    /// # Errors
    /// Fails when a file is not there any more.
    pub fn size(&self) -> Result<u64> {
        const BLOCK: u64 = 4096;
        self.0.values().try_fold(0, |sum, entry| {
            let bytes = match &entry.kind {
                Kind::File(Contents::Here(bytes)) => bytes.len() as u64,
                Kind::File(Contents::In(path)) => fs::metadata(path)?.len(),
                Kind::Folder | Kind::Link(_) => BLOCK,
            };
            Ok(sum + bytes.next_multiple_of(BLOCK))
        })
    }

    /// Writes the tar archive, folders before what is in them.
    ///
    /// # Errors
    /// Fails when a file cannot be read or the archive cannot be written.
    pub fn write(&self, output: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(output);
        for (path, Entry { kind, mode, changed }) in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mode(*mode);
            header.set_mtime(*changed);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match kind {
                Kind::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    archive.append_data(&mut header, path, std::io::empty())?;
                }
                Kind::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    archive.append_link(&mut header, path, target)?;
                }
                Kind::File(contents) => {
                    let bytes = contents.read()?;
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())?;
                }
            }
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }
}

impl Contents {
    fn read(&self) -> Result<Vec<u8>> {
        match self {
            Self::Here(bytes) => Ok(bytes.clone()),
            Self::In(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Where a package's file is installed.
fn merged(path: &Path) -> PathBuf {
    let is_merged = MERGED.iter().any(|folder| path.starts_with(folder));
    if is_merged { Path::new("usr").join(path) } else { path.into() }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn packages() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["bin", "usr/bin", "etc"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("bin/tool"), "ELF").unwrap();
        fs::write(root.path().join("usr/bin/other"), "ELF").unwrap();
        std::os::unix::fs::symlink("tool", root.path().join("bin/alias")).unwrap();
        root
    }

    fn listed(tree: &Tree) -> Vec<(String, EntryType, u64)> {
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path, entry.header().entry_type(), entry.header().uid().unwrap())
        });
        entries.collect()
    }

    #[test]
    fn files_of_the_root_are_installed_below_usr_and_belong_to_root() {
        let root = packages();
        let tree = Tree::of(root.path()).unwrap();
        assert!(tree.has("usr/bin/tool") && tree.has("usr/bin/other") && !tree.has("bin/tool"));
        let listed = listed(&tree);
        assert!(listed.contains(&("bin".into(), EntryType::Symlink, 0)), "{listed:?}");
        assert!(listed.contains(&("usr/bin/alias".into(), EntryType::Symlink, 0)), "{listed:?}");
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it() {
        let root = packages();
        let paths: Vec<_> = listed(&Tree::of(root.path()).unwrap()).into_iter().map(|(path, ..)| path).collect();
        let place = |wanted: &str| paths.iter().position(|path| path.trim_end_matches('/') == wanted).unwrap();
        assert!(place("usr") < place("usr/bin") && place("usr/bin") < place("usr/bin/tool"));
    }

    #[test]
    fn what_is_added_replaces_what_is_there() {
        let root = packages();
        let mut tree = Tree::of(root.path()).unwrap();
        tree.file("usr/bin/tool", 0o755, b"mine");
        let mut bytes = Vec::new();
        tree.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut contents = Vec::new();
        for entry in archive.entries().unwrap().map(Result::unwrap) {
            let mut entry = entry;
            if entry.path().unwrap().ends_with("tool") {
                entry.read_to_end(&mut contents).unwrap();
            }
        }
        assert_eq!(contents, b"mine");
    }

    #[test]
    fn files_are_joined_by_their_extension() {
        let mut tree = Tree::default();
        for (path, text) in [("c/b.crt", "two"), ("c/a.crt", "one"), ("c/x.txt", "no"), ("d/y.crt", "no")] {
            tree.file(path, 0o644, text.as_bytes());
        }
        assert_eq!(tree.joined("c", "crt").unwrap(), b"onetwo");
    }
}
