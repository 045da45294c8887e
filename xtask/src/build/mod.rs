//! From sources to something that boots: kernel, loader, bundle, ISO.

pub mod bundle;
pub mod cargo;
pub mod cpio;
pub mod iso;
pub mod strip;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

use self::{bundle::BundleFile, cargo::Profile};
use crate::tools::{Tools, rust};

/// The workspace as cargo sees it.
#[derive(Debug)]
pub struct Project {
    /// The workspace's root folder.
    pub root: PathBuf,
    /// cargo's description of the workspace's packages, without dependencies.
    pub metadata: Metadata,
}

/// What a boot needs, built.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The Multiboot2 loader, with debug information.
    pub loader: PathBuf,
    /// The kernel, with debug information.
    pub kernel: PathBuf,
    /// The bundle's bytes: a cpio archive.
    pub bundle: Vec<u8>,
}

impl Project {
    /// Reads the workspace that this tool belongs to.
    ///
    /// # Errors
    /// Fails when a manifest of the workspace cannot be read; the message is cargo's.
    pub fn load() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(&manifest)
            .no_deps()
            .exec()
            .with_context(|| format!("cannot read the workspace of {}", manifest.display()))?;
        Ok(Self { root: metadata.workspace_root.clone().into(), metadata })
    }

    /// Folder for everything this tool makes, apart from what cargo makes.
    ///
    /// # Errors
    /// Fails when the folder cannot be made.
    pub fn build_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join("build").join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(folder)
    }

    /// Builds kernel, loader and the bundle `name` with its programs.
    ///
    /// # Errors
    /// Fails when the bare target cannot be had, a build fails, or the bundle names a program that does not exist.
    pub fn build(&self, tools: &Tools, name: &str, profile: Profile) -> Result<Parts> {
        rust::ensure_bare_target(tools.is_offline())?;
        let bundle = BundleFile::read(&self.root, name)?;
        let programs = bundle
            .programs()
            .map(|name| {
                let package = cargo::package_with_bin(&self.metadata, name)?;
                let program = cargo::Program { package, bin: name, features: &[] };
                Ok((name.to_string(), cargo::build_bin(self, tools.is_offline(), &program, profile)?))
            })
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("cannot build what {} names", bundle.path.display()))?;
        let loader = cargo::build_bin(self, tools.is_offline(), &cargo::LOADER, profile)?;
        let kernel = cargo::build_bin(self, tools.is_offline(), &cargo::KERNEL, profile)?;
        Ok(Parts { loader, kernel, bundle: bundle.archive(&programs)? })
    }
}
