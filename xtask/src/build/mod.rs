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
use crate::{
    guest::{self, bundle::Host, description::Guest},
    tools::{Tools, rust},
};

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
        let bundle = BundleFile::read(&self.root, name)?;
        let context = || format!("cannot build what {} names", bundle.path.display());
        let programs = self.build_programs(tools, bundle.programs(), profile).with_context(context)?;
        self.build_around(tools, profile, bundle.archive(&programs)?)
    }

    /// Builds kernel, loader and the programs that run these guests on a host with so many CPUs.
    ///
    /// # Errors
    /// Fails when the bare target cannot be had, a build fails, or a guest's file is too large for the bundle.
    pub fn build_for_guests(
        &self,
        tools: &Tools,
        guests: &[Guest],
        host: impl Into<Host>,
        profile: Profile,
    ) -> Result<Parts> {
        let host = host.into();
        let programs = self.build_programs(tools, guest::bundle::programs(guests, host), profile)?;
        self.build_around(tools, profile, guest::bundle::archive(guests, host, &programs)?)
    }

    /// Builds user programs; gives their names and files.
    fn build_programs<'a>(
        &self,
        tools: &Tools,
        names: impl IntoIterator<Item = &'a str>,
        profile: Profile,
    ) -> Result<Vec<(String, PathBuf)>> {
        rust::ensure_bare_target(tools.is_offline())?;
        let build = |name: &str| {
            let package = cargo::package_with_bin(&self.metadata, name)?;
            let program = cargo::Program { package, bin: name, features: &[] };
            Ok((name.to_string(), cargo::build_bin(self, tools.is_offline(), &program, profile)?))
        };
        names.into_iter().map(build).collect()
    }

    fn build_around(&self, tools: &Tools, profile: Profile, bundle: Vec<u8>) -> Result<Parts> {
        let loader = cargo::build_bin(self, tools.is_offline(), &cargo::LOADER, profile)?;
        let kernel = cargo::build_bin(self, tools.is_offline(), &cargo::KERNEL, profile)?;
        Ok(Parts { loader, kernel, bundle })
    }
}
