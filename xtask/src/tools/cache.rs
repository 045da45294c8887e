//! The cache folder: where private tools live, who may change it, and what is in it.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The user's cache folder for this project.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// What a fetched set holds: written last, so its presence says that the set is whole.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Manifest {
    /// [`PackageSet::definition`](super::sets::PackageSet::definition) at the time of fetching.
    pub definition: String,
    /// Server that the packages came from.
    pub server: String,
    /// Packages in the set.
    #[serde(rename = "package")]
    pub packages: Vec<Package>,
}

/// One unpacked package.
#[derive(Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Package {
    /// Debian package name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// SHA-256 of the package file, in hexadecimal.
    pub sha256: String,
    /// Size of the package file in bytes.
    pub size_bytes: u64,
}

/// Exclusive right to change the cache, held until dropped.
#[derive(Debug)]
pub struct CacheLock {
    _file: File,
}

impl Cache {
    /// Finds the folder: `$DRAGONFLY_CACHE`, else `$XDG_CACHE_HOME/dragonfly`, else `~/.cache/dragonfly`.
    ///
    /// # Errors
    /// Fails when none of these variables names an absolute path.
    pub fn find() -> Result<Self> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let root = absolute("DRAGONFLY_CACHE")
            .or_else(|| absolute("XDG_CACHE_HOME").map(|path| path.join("dragonfly")))
            .or_else(|| absolute("HOME").map(|path| path.join(".cache/dragonfly")));
        match root {
            Some(root) => Ok(Self::at(root)),
            None => bail!("no cache folder: set DRAGONFLY_CACHE or HOME to an absolute path"),
        }
    }

    /// The cache in this folder.
    pub(super) const fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Start scripts of the private tools.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Package files, kept so that sets which share a library fetch it once.
    #[must_use]
    pub fn packages(&self) -> PathBuf {
        self.root.join("packages")
    }

    /// apt's private state.
    #[must_use]
    pub fn apt(&self) -> PathBuf {
        self.root.join("apt")
    }

    /// Folder that holds one folder per fetched set.
    #[must_use]
    pub fn sets(&self) -> PathBuf {
        self.root.join("sets")
    }

    /// Waits for the exclusive right to change the cache.
    ///
    /// # Errors
    /// Fails when the folder cannot be made or locked.
    pub fn lock(&self) -> Result<CacheLock> {
        fs::create_dir_all(&self.root).with_context(|| format!("cannot create {}", self.root.display()))?;
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        if file.try_lock().is_err() {
            eprintln!("Waiting for another xtask that is changing {}", self.root.display());
            file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(CacheLock { _file: file })
    }
}

impl Manifest {
    const FILE: &str = "manifest.toml";

    /// Reads the manifest of the set in `folder`; none if the set is not there or not whole.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        toml::from_str(&fs::read_to_string(folder.join(Self::FILE)).ok()?).ok()
    }

    /// Writes the manifest into the set's folder.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(Self::FILE);
        fs::write(&path, toml::to_string(self)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The version of a package of the set.
    #[must_use]
    pub fn version_of(&self, package: &str) -> Option<&str> {
        self.packages.iter().find(|entry| entry.name == package).map(|entry| entry.version.as_str())
    }

    /// Sum of the package files' sizes, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.packages.iter().map(|package| package.size_bytes).sum()
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// Fails when the file cannot be read.
pub fn sha256_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sha256(&bytes))
}

/// SHA-256 of `bytes`, in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            definition: "trixie: bochs".into(),
            server: "http://example.org/debian".into(),
            packages: vec![Package {
                name: "bochs".into(),
                version: "3.0+dfsg-1".into(),
                sha256: sha256(b""),
                size_bytes: 7,
            }],
        }
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        manifest().write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()), Some(manifest()));
    }

    #[test]
    fn a_set_without_manifest_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::read(folder.path()), None);
    }

    #[test]
    fn a_cut_off_manifest_is_not_a_whole_set() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("manifest.toml"), "definition = \"trixie").unwrap();
        assert_eq!(Manifest::read(folder.path()), None);
    }

    #[test]
    fn the_hash_is_sha256() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
