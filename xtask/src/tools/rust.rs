//! Rust's own parts: the bare-metal target, the nightly components that Miri needs, the test runner.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Once,
};

use anyhow::{Context, Result, bail};

use super::on_path;

/// The target of kernel, loader and user domains.
pub const BARE_TARGET: &str = "x86_64-unknown-none";
/// The target of programs that run beside this one: the only one of which emulators are fetched.
pub const HOST_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The target of programs for Linux guests that have no libraries.
pub const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// Adds rustfmt and clippy if they are missing.
///
/// # Errors
/// Fails when one is missing and cannot be added, with the command that would add it.
pub fn ensure_components(offline: bool) -> Result<()> {
    const REMEDY: &str = "run `rustup component add rustfmt clippy`";
    if version_line("cargo-fmt", &["--version"]).is_some() && version_line("cargo-clippy", &["--version"]).is_some() {
        return Ok(());
    }
    if offline || on_path("rustup").is_none() {
        bail!("rustfmt or clippy is missing and cannot be fetched; {REMEDY}");
    }
    eprintln!("Adding rustfmt and clippy");
    show(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]))
}

/// Adds the bare-metal target if it is missing.
///
/// # Errors
/// As [`ensure_target`].
pub fn ensure_bare_target(offline: bool) -> Result<()> {
    ensure_target(BARE_TARGET, offline)
}

/// Adds a target if it is missing.
///
/// # Errors
/// Fails when the target is missing and `offline` forbids to add it, there is no rustup, or rustup fails.
pub fn ensure_target(target: &str, offline: bool) -> Result<()> {
    if has_target(target)? {
        return Ok(());
    }
    if offline {
        bail!("the Rust target {target} is missing; run `rustup target add {target}` while online");
    }
    if on_path("rustup").is_none() {
        bail!("the Rust target {target} is missing and there is no rustup to add it; install rustup from rustup.rs");
    }
    eprintln!("Adding the Rust target {target}");
    show(Command::new("rustup").args(["target", "add", target]))
}

/// Whether the toolchain in use has the bare-metal target.
///
/// # Errors
/// Fails when `rustc` does not start.
pub fn has_bare_target() -> Result<bool> {
    has_target(BARE_TARGET)
}

fn has_target(target: &str) -> Result<bool> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot start rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
}

/// Makes Miri available on the nightly toolchain.
///
/// # Errors
/// Fails when it is missing and cannot be added, with the command that would add it.
pub fn ensure_miri(offline: bool) -> Result<()> {
    const REMEDY: &str =
        "run `rustup toolchain install nightly --profile minimal --component miri --component rust-src`";
    if has_miri() {
        return Ok(());
    }
    if offline || on_path("rustup").is_none() {
        bail!("Miri is missing and cannot be fetched; {REMEDY}");
    }
    eprintln!("Adding Miri on the nightly toolchain");
    let mut command = Command::new("rustup");
    command.args(["toolchain", "install", "nightly", "--profile", "minimal", "--no-self-update"]);
    show(command.args(["--component", "miri", "--component", "rust-src"]))
        .with_context(|| format!("to add it, {REMEDY}"))
}

/// Whether the nightly toolchain has Miri.
#[must_use]
pub fn has_miri() -> bool {
    let mut command = Command::new("rustup");
    command.args(["component", "list", "--toolchain", "nightly", "--installed"]);
    command.stderr(Stdio::null()).output().is_ok_and(|output| {
        let installed = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success() && ["miri", "rust-src"].iter().all(|name| installed.contains(name))
    })
}

/// First line that `program --version` prints.
#[must_use]
pub fn version_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_string())
}

/// A cargo command in the toolchain of this tool, for the host or the bare target.
///
/// `RUSTFLAGS` in the environment would replace the flags of `.cargo/config.toml`, so it is left out (with a note, once).
#[must_use]
pub fn cargo(offline: bool) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    prepare(&mut command, offline);
    command
}

/// A cargo command in the nightly toolchain, which alone has Miri.
#[must_use]
pub fn nightly_cargo(offline: bool) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).env_remove("CARGO");
    prepare(&mut command, offline);
    command
}

fn prepare(cargo: &mut Command, offline: bool) {
    static NOTE: Once = Once::new();
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        if env::var_os(name).is_some() {
            NOTE.call_once(|| eprintln!("Note: {name} is ignored; it would replace the flags of .cargo/config.toml"));
            cargo.env_remove(name);
        }
    }
    if offline {
        cargo.env("CARGO_NET_OFFLINE", "true");
    }
}

/// Runs a command that shows its own progress.
fn show(command: &mut Command) -> Result<()> {
    let name = format!("{command:?}").replace('"', "");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("`{name}` failed");
    }
    Ok(())
}
