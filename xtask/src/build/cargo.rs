//! Bare-metal builds through cargo, one package at a time: features of host crates must not reach bare ones.

use std::{
    io::BufReader,
    path::PathBuf,
    process::{Child, Stdio},
};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, Metadata};

use super::Project;
use crate::tools::rust::{self, BARE_TARGET};

/// cargo's build profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Optimised: what is measured and shipped.
    Release,
    /// Not optimised, with overflow checks and debug assertions.
    Debug,
}

impl Profile {
    /// The profile for the command line's `--debug`.
    #[must_use]
    pub fn from_debug(debug: bool) -> Self {
        if debug { Self::Debug } else { Self::Release }
    }
}

/// A program of the workspace for the bare target.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Package that it is in.
    pub package: &'a str,
    /// Its name there.
    pub bin: &'a str,
    /// Features that it needs.
    pub features: &'a [&'a str],
}

/// The kernel's image.
pub const KERNEL: Program<'_> = Program { package: "dragonfly-kernel", bin: "dragonfly-kernel", features: &["image"] };
/// The Multiboot2 loader.
pub const LOADER: Program<'_> = Program { package: "dragonfly-multiboot2", bin: "dragonfly-multiboot2", features: &[] };

/// Builds `program` for the bare target and returns the file.
///
/// # Errors
/// Fails when cargo fails; its messages have been shown by then.
pub fn build_bin(project: &Project, offline: bool, program: &Program, profile: Profile) -> Result<PathBuf> {
    build_bin_for(project, offline, program, profile, BARE_TARGET)
}

/// Builds `program` for `target` and returns the file.
///
/// # Errors
/// As [`build_bin`].
pub fn build_bin_for(
    project: &Project,
    offline: bool,
    program: &Program,
    profile: Profile,
    target: &str,
) -> Result<PathBuf> {
    let Program { package, bin, features } = *program;
    let mut command = rust::cargo(offline);
    command.current_dir(&project.root).args(["build", "--message-format=json-render-diagnostics"]);
    command.args(["--package", package, "--bin", bin, "--target", target]);
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    if profile == Profile::Release {
        command.arg("--release");
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let executable = executable_from(&mut child, bin);
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("cargo could not build `{bin}` of {package}");
    }
    executable?.with_context(|| format!("cargo built {package} but named no program `{bin}`"))
}

fn executable_from(cargo: &mut Child, bin: &str) -> Result<Option<PathBuf>> {
    let stdout = cargo.stdout.take().context("cargo has no standard output")?;
    let mut executable = None;
    for message in Message::parse_stream(BufReader::new(stdout)) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.target.name == bin
            && artifact.target.is_bin()
        {
            executable = artifact.executable.map(PathBuf::from).or(executable);
        }
    }
    Ok(executable)
}

/// Name of the workspace package that has a program called `bin`.
///
/// # Errors
/// Fails when there is none, or more than one.
pub fn package_with_bin<'a>(metadata: &'a Metadata, bin: &str) -> Result<&'a str> {
    let has_bin =
        |package: &&cargo_metadata::Package| package.targets.iter().any(|target| target.is_bin() && target.name == bin);
    let packages: Vec<_> = metadata.packages.iter().filter(has_bin).map(|package| package.name.as_str()).collect();
    match packages[..] {
        [package] => Ok(package),
        [] => bail!("no package of the workspace has a program called `{bin}`"),
        _ => bail!("several packages have a program called `{bin}`: {}", packages.join(", ")),
    }
}
