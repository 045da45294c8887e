//! Brings a package set into the cache.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, bail};

use super::{
    apt,
    cache::{Cache, Manifest, Package, sha256_of},
    progress::Progress,
    sets::{Keep, PackageSet, Program},
};

/// Downloads a set, unpacks it beside its final place, and moves it there in one step.
///
/// The caller holds the cache's lock.
///
/// # Errors
/// Fails when a package cannot be had or unpacked; nothing is left in the set's place then.
pub fn fetch(cache: &Cache, set: &PackageSet) -> Result<()> {
    const HALF_DONE: &str = ".half-done-";
    let progress = Progress::new();
    let sets = cache.sets();
    fs::create_dir_all(&sets).with_context(|| format!("cannot create {}", sets.display()))?;
    // What an interrupted run left; the cache lock says that nobody works on it now.
    for entry in fs::read_dir(&sets)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(HALF_DONE) {
            fs::remove_dir_all(entry.path())?;
        }
    }

    let (server, downloads) = apt::download(cache, set, &progress)?;
    let half_done = tempfile::Builder::new().prefix(HALF_DONE).tempdir_in(&sets)?;
    fs::set_permissions(half_done.path(), fs::Permissions::from_mode(0o755))?;
    let root = half_done.path().join("root");
    let mut packages = Vec::new();
    progress.step(format!("{}: unpacking {} packages", set.name, downloads.len()));
    for (done, download) in downloads.iter().enumerate() {
        let percent = done as f64 * 100.0 / downloads.len() as f64;
        progress.percent(percent, format!("{}: unpacking {}", set.name, download.name));
        apt::unpack(&download.file, &root, set.keep)?;
        packages.push(Package {
            name: download.name.clone(),
            version: download.version.clone(),
            sha256: sha256_of(&download.file)?,
            size_bytes: fs::metadata(&download.file)?.len(),
        });
    }
    if !root.join(set.proof).exists() {
        bail!("the packages of the set `{}` lack {}", set.name, set.proof);
    }
    let manifest = Manifest { definition: set.definition(), server, packages };
    manifest.write(half_done.path())?;

    let folder = sets.join(set.name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::rename(half_done.keep(), &folder).with_context(|| format!("cannot create {}", folder.display()))?;
    if set.keep != Keep::Everything {
        // Large, and no other set shares them.
        downloads.iter().try_for_each(|download| fs::remove_file(&download.file))?;
    }
    write_start_scripts(cache, set, &folder.join("root"))?;
    progress.finish(format!(
        "{}: {} packages, {:.1} MB, from {} to {}",
        set.name,
        manifest.packages.len(),
        manifest.size_bytes() as f64 / 1e6,
        manifest.server,
        folder.display()
    ));
    Ok(())
}

/// Writes the start scripts of a set that is in the cache, if they are not what this xtask would write: another version did,
/// or was interrupted before it could.
///
/// # Errors
/// Fails when they cannot be written.
pub fn renew_start_scripts(cache: &Cache, set: &PackageSet, root: &Path) -> Result<()> {
    let is_current = |program: &Program| {
        fs::read_to_string(cache.bin().join(program.name)).is_ok_and(|script| script == program.start_script(root))
    };
    if set.programs.iter().all(is_current) {
        return Ok(());
    }
    let _lock = cache.lock()?;
    write_start_scripts(cache, set, root)
}

fn write_start_scripts(cache: &Cache, set: &PackageSet, root: &Path) -> Result<()> {
    let bin = cache.bin();
    fs::create_dir_all(&bin)?;
    for program in set.programs {
        let mut script = tempfile::NamedTempFile::new_in(&bin)?;
        std::io::Write::write_all(&mut script, program.start_script(root).as_bytes())?;
        fs::set_permissions(script.path(), fs::Permissions::from_mode(0o755))?;
        script.persist(bin.join(program.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::sets::NBD;

    #[test]
    fn a_start_script_that_is_missing_or_of_another_version_is_written_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().into());
        let (root, script) = (folder.path().join("root"), cache.bin().join("qemu-nbd"));
        for before in [None, Some("#!/bin/sh\n")] {
            if let Some(text) = before {
                fs::write(&script, text).unwrap();
            }
            renew_start_scripts(&cache, &NBD, &root).unwrap();
            assert_eq!(fs::read_to_string(&script).unwrap(), NBD.programs[0].start_script(&root));
            assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
        }
        // What is as it should be needs no right to change anything.
        fs::remove_file(folder.path().join("lock")).unwrap();
        renew_start_scripts(&cache, &NBD, &root).unwrap();
        assert!(!folder.path().join("lock").exists());
    }
}
