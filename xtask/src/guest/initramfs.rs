//! The initial RAM disk of Linux guests: busybox, a first program, and the scripts that the tests run.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    build::cpio::Archive,
    process::first_lines,
    tools::guests::{Busybox, GuestKernel},
};

/// The first program: loads modules, sets up the system and goes on with that on a disk (`root=DEVICE`), a shell, or the
/// script that `df.run=NAME` names.
const INIT: &str = include_str!("init.sh");

const PROFILE: &str = "PS1='\\h:\\w\\$ '\nalias ll='ls -l'\n";

/// Folder of the scripts, below the workspace's root.
const SCRIPTS: &str = "tests/guests/linux";

/// Builds the archive; `root` is the workspace's folder, whose scripts go into `/tests`.
///
/// # Errors
/// Fails when busybox or a script cannot be read, or busybox does not run here.
pub fn build(busybox: &Busybox, root: &Path) -> Result<Vec<u8>> {
    let scripts = scripts(&root.join(SCRIPTS))?;
    let program = fs::read(&busybox.program).with_context(|| format!("cannot read {}", busybox.program.display()))?;
    pack(&program, &applets(busybox)?, &scripts)
}

/// Builds the archive for a guest with devices: with the modules of its kernel that drive them.
///
/// # Errors
/// As [`build`], and when a module cannot be read.
pub fn build_with_devices(busybox: &Busybox, kernel: &GuestKernel, root: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.folder("modules")?;
    for (number, path) in kernel.device_modules().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        archive.file_from(&format!("modules/{number:02}-{name}"), path)?;
    }
    let mut bytes = build(busybox, root)?;
    // Linux unpacks one archive after the other.
    bytes.extend(archive.finish()?);
    Ok(bytes)
}

/// Names of busybox' programs.
///
/// # Errors
/// Fails when busybox does not run here.
pub fn applets(busybox: &Busybox) -> Result<Vec<String>> {
    let output = Command::new(&busybox.program).arg("--list").output();
    let output = output.with_context(|| format!("cannot start {}", busybox.program.display()))?;
    if !output.status.success() {
        bail!("{} failed: {}", busybox.program.display(), first_lines(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_string).collect())
}

/// Names and contents of the scripts in a folder, the shell's and Perl's.
fn scripts(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut scripts = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    // In an order of our own, so that the archive is the same each time.
    paths.sort();
    for path in paths {
        if path.extension().is_some_and(|extension| extension == "sh" || extension == "pl") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            scripts.push((name, fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?));
        }
    }
    Ok(scripts)
}

fn pack(busybox: &[u8], applets: &[String], scripts: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "etc", "mnt", "proc", "root", "sys", "tests", "tmp"] {
        archive.folder(folder)?;
    }
    // The kernel opens it as the first program's input and output, before that can mount anything.
    archive.character_device("dev/console", 5, 1)?;
    archive.program("init", INIT.as_bytes())?;
    archive.file("etc/profile", PROFILE.as_bytes())?;
    archive.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", b"root:x:0:\n")?;
    archive.program("bin/busybox", busybox)?;
    for applet in applets.iter().filter(|applet| *applet != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    for (name, contents) in scripts {
        archive.program(&format!("tests/{name}"), contents)?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::cpio::entries;

    fn packed() -> Vec<(String, u32, Vec<u8>)> {
        let applets = ["busybox", "sh", "mount"].map(str::to_string);
        entries(&pack(b"ELF", &applets, &[("work.sh".into(), b"true\n".to_vec())]).unwrap())
    }

    #[test]
    fn the_first_program_can_be_executed() {
        assert!(packed().iter().any(|(name, mode, contents)| {
            name == "init" && *mode == 0o100_755 && contents.starts_with(b"#!/bin/sh\n")
        }));
    }

    #[test]
    fn each_applet_leads_to_busybox_and_busybox_to_itself() {
        let packed = packed();
        let of = |wanted: &str| packed.iter().find(|(name, ..)| name == wanted).unwrap();
        assert_eq!(of("bin/sh").2, b"busybox");
        assert_eq!(of("bin/busybox").2, b"ELF");
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it() {
        let names: Vec<_> = packed().into_iter().map(|(name, ..)| name).collect();
        for (place, name) in names.iter().enumerate() {
            if let Some((folder, _)) = name.rsplit_once('/') {
                assert!(names[..place].iter().any(|earlier| earlier == folder), "{name}");
            }
        }
    }

    #[test]
    fn the_scripts_of_this_workspace_are_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let names: Vec<_> = scripts(&root.join(SCRIPTS)).unwrap().into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"work.sh".to_string()), "{names:?}");
    }
}
