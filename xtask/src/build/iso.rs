//! The ISO image: GRUB for BIOS and UEFI, loader, kernel and bundle.
//!
//! This is what `grub-mkrescue` does, step by step: that program has the path of GRUB's modules compiled in, takes only
//! one platform elsewhere, and copies all of GRUB where one small image with the few modules needed boots faster.

use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context, Result, bail};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use super::{Parts, Project, strip};
use crate::{
    process::run,
    tools::{IsoTools, cache::sha256},
};

/// Images kept for the next run with the same contents.
const KEPT_IMAGES: usize = 16;

/// Finds the boot medium and runs its configuration file.
const EMBEDDED_CONFIG: &str = "search.file /boot/dragonfly root\nset prefix=($root)/boot/grub\nnormal\n";

const BIOS_MODULES: &[&str] = &[
    "biosdisk",
    "halt",
    "iso9660",
    "linux",
    "multiboot2",
    "normal",
    "part_msdos",
    "search_fs_file",
    "serial",
    "terminfo",
    "terminal",
    "test",
];
const UEFI_MODULES: &[&str] =
    &["efi_gop", "halt", "iso9660", "multiboot2", "normal", "part_gpt", "part_msdos", "search_fs_file", "test"];

/// Makes the ISO for `parts` with the kernel command line `command_line`, or finds it made already.
///
/// # Errors
/// Fails when the command line holds characters that GRUB would interpret, or a tool fails.
pub fn make(project: &Project, tools: &IsoTools, parts: &Parts, command_line: &str) -> Result<PathBuf> {
    check_command_line(command_line)?;
    let config = grub_config(&format!(
        "multiboot2 /boot/loader {command_line}\nmodule2 /boot/kernel kernel\nmodule2 /boot/bundle bundle\n"
    ));
    let files = [
        ("boot/loader", strip::read_stripped(&parts.loader)?),
        ("boot/kernel", strip::read_stripped(&parts.kernel)?),
        ("boot/bundle", parts.bundle.clone()),
    ];
    make_of(project, tools, &config, files.into())
}

/// Makes an ISO that boots a Linux kernel by BIOS, with nothing under it, or finds it made already.
///
/// # Errors
/// As [`make`].
pub fn make_linux(
    project: &Project,
    tools: &IsoTools,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    command_line: &str,
) -> Result<PathBuf> {
    check_command_line(command_line)?;
    let config = grub_config(&format!("linux /boot/kernel {command_line}\ninitrd /boot/initrd\n"));
    make_of(project, tools, &config, vec![("boot/kernel", kernel), ("boot/initrd", initrd)])
}

/// Makes the ISO of GRUB's configuration and what that names.
fn make_of(
    project: &Project,
    tools: &IsoTools,
    config: &str,
    contents: Vec<(&'static str, Vec<u8>)>,
) -> Result<PathBuf> {
    let folder = project.build_folder("iso")?;
    let bios = platform_image(tools, &folder, "i386-pc-eltorito", "i386-pc", BIOS_MODULES)?;
    let uefi = platform_image(tools, &folder, "x86_64-efi", "x86_64-efi", UEFI_MODULES)?;
    let last = contents.last().map_or("boot/dragonfly", |(name, _)| *name);
    let mut files = vec![
        ("boot/dragonfly", b"Dragonfly boot medium\n".to_vec()),
        ("boot/grub/grub.cfg", config.as_bytes().to_vec()),
        ("boot/grub/bios.img", bios),
        ("boot/grub/efi.img", efi_partition(&uefi)?),
    ];
    files.extend(contents);
    let hashes: Vec<_> = files.iter().map(|(name, contents)| format!("{name} {}\n", sha256(contents))).collect();
    let image = folder.join(format!("{}.iso", &sha256(format!("{}{last} last", hashes.concat()).as_bytes())[..16]));
    if image.exists() {
        // Marks it as in use, for `remove_old_images`.
        fs::File::options().append(true).open(&image)?.set_modified(SystemTime::now())?;
        return Ok(image);
    }

    let tree = tempfile::tempdir_in(&folder)?;
    for (name, contents) in &files {
        let path = tree.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(tree.path()))?;
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let unfinished = tempfile::NamedTempFile::new_in(&folder)?;
    let mut xorriso = Command::new(&tools.xorriso.path);
    xorriso.args(["-as", "mkisofs", "-quiet", "-rational-rock", "-volid", "DRAGONFLY"]);
    // BIOS: El Torito from CD, GRUB's boot sector from USB. UEFI: the FAT image as El Torito and as a partition.
    xorriso.args(["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    xorriso.arg("--grub2-boot-info").arg("--grub2-mbr").arg(tools.grub_modules.join("i386-pc/boot_hybrid.img"));
    xorriso.args(["--efi-boot", "boot/grub/efi.img", "-efi-boot-part", "--efi-boot-image"]);
    // What changes in size comes last. On UEFI, GRUB 2.06 fails ("failure reading sector") without a command to the drive when
    // the first large file that it reads, the kernel, begins at a multiple of 16 sectors; so its place is always the same.
    xorriso.args(["--sort-weight", "-1"]).arg(format!("/{last}"));
    xorriso.arg("--protective-msdos-label").arg("-o").arg(unfinished.path()).arg(tree.path());
    run(&mut xorriso)?;
    unfinished.persist(&image).with_context(|| format!("cannot create {}", image.display()))?;
    remove_old_images(&folder)?;
    Ok(image)
}

/// GRUB's menu-less configuration, around the lines that load something.
///
/// Its own errors go to the serial line, as UEFI firmware does by itself, and then the machine is switched off: nobody
/// may be at its screen.
fn grub_config(load: &str) -> String {
    format!(
        "if [ $grub_platform = pc ]; then serial --unit=0 --speed=115200; terminfo serial dumb; terminal_output serial; fi\n\
         {load}\
         boot\n\
         halt\n"
    )
}

/// Accepts only characters that mean themselves to GRUB.
///
/// # Errors
/// Names the first character that does not.
pub fn check_command_line(command_line: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || " _-.,=:/@+%".contains(c);
    match command_line.chars().find(|&c| !plain(c)) {
        None => Ok(()),
        Some(c) => bail!("the kernel command line holds {c:?}; use letters, digits, spaces and _-.,=:/@+%"),
    }
}

/// GRUB itself for one platform, made once per version of GRUB.
fn platform_image(tools: &IsoTools, folder: &Path, format: &str, platform: &str, modules: &[&str]) -> Result<Vec<u8>> {
    let recipe = format!("{} {format} {modules:?} {EMBEDDED_CONFIG}", tools.mkimage.version);
    let image = folder.join(format!("{format}-{}.img", &sha256(recipe.as_bytes())[..16]));
    if !image.exists() {
        let config = tempfile::NamedTempFile::new_in(folder)?;
        fs::write(config.path(), EMBEDDED_CONFIG)?;
        let unfinished = tempfile::NamedTempFile::new_in(folder)?;
        let mut mkimage = Command::new(&tools.mkimage.path);
        mkimage.args(["--format", format, "--prefix", "/boot/grub", "--config"]).arg(config.path());
        mkimage.arg("--directory").arg(tools.grub_modules.join(platform));
        mkimage.arg("--output").arg(unfinished.path()).args(modules);
        run(&mut mkimage)?;
        unfinished.persist(&image).with_context(|| format!("cannot create {}", image.display()))?;
    }
    fs::read(&image).with_context(|| format!("cannot read {}", image.display()))
}

/// A FAT file system with GRUB where UEFI firmware looks for removable media (UEFI 2.10, 3.5.1.1).
fn efi_partition(grub: &[u8]) -> Result<Vec<u8>> {
    const SLACK: usize = 128 * 1024;
    const SECTOR: usize = 512;
    let size = (grub.len() + SLACK).next_multiple_of(SECTOR);
    let mut disk = Cursor::new(vec![0; size]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new())?;
    {
        let file_system = FileSystem::new(&mut disk, FsOptions::new())?;
        let folder = file_system.root_dir().create_dir("EFI")?.create_dir("BOOT")?;
        let mut file = folder.create_file("BOOTX64.EFI")?;
        file.write_all(grub)?;
        file.flush()?;
    }
    Ok(disk.into_inner())
}

fn remove_old_images(folder: &Path) -> Result<()> {
    let mut images: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "iso"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    images.sort();
    for (_, path) in images.iter().rev().skip(KEPT_IMAGES) {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_of_plain_words_passes() {
        check_command_line("log=debug exit=qemu test.filter=ipc,budget/one test.level=quick").unwrap();
    }

    #[test]
    fn what_grub_would_interpret_is_refused() {
        for line in ["a;reboot", "a\nboot", "$root", "a b \"c\"", "x{y}", "a#b", "ü"] {
            assert!(check_command_line(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_efi_partition_holds_grub_under_its_standard_name() {
        let grub = vec![0x5a; 300_000];
        let mut disk = Cursor::new(efi_partition(&grub).unwrap());
        let file_system = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
        let mut file = file_system.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap();
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut read).unwrap();
        assert!(read == grub);
    }

    #[test]
    fn only_the_newest_images_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for age in 0..KEPT_IMAGES + 3 {
            let file = fs::File::create(folder.path().join(format!("{age:02}.iso"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age as u64)).unwrap();
        }
        remove_old_images(folder.path()).unwrap();
        assert!(!folder.path().join("02.iso").exists());
        assert!(folder.path().join("03.iso").exists());
    }
}
