//! The disk of the default guest: a file system with Debian's own programs and the few files that make a system of them.
//!
//! [`tree`] collects the files, [`keys`] lets the user in, and `mke2fs` makes the file system: no root, no mounting. The image
//! stays in the cache under a name that is made of everything that it is made of; nothing ever writes to it again.

pub mod keys;
pub mod tree;

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::{keys::Keys, tree::Tree};
use super::initramfs;
use crate::{
    process::run,
    tools::{DebianSystem, DiskTools, Tools, cache::sha256, guests::Busybox, progress::Progress},
};

/// The size of the disk in bytes. What is not used takes no space on the host.
pub const SIZE: u64 = 512 << 20;
/// The file system's identity: any, but always the same, so that images of the same contents are.
const IDENTITY: &str = "64726167-6f6e-466c-b979-000000000001";

/// Path, permissions and contents of the files that are in no package.
const FILES: [(&str, u32, &str); 15] = [
    ("etc/fstab", 0o644, "/dev/vda / ext4 errors=remount-ro 0 1\n"),
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/hostname", 0o644, "debian\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n"),
    ("etc/init.d/boot", 0o755, include_str!("files/boot.sh")),
    // Its escape sequences are of no use on a serial console, and in the way of whoever reads it by a program.
    ("etc/inputrc", 0o644, "set enable-bracketed-paste off\n"),
    ("etc/inittab", 0o644, include_str!("files/inittab")),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("etc/profile", 0o644, include_str!("files/profile")),
    ("etc/resolv.conf", 0o644, ""),
    // No password opens it: only the console, and the user's key.
    ("etc/shadow", 0o600, "root:*:19700:0:99999:7:::\nnobody:*:19700:0:99999:7:::\n"),
    ("etc/shells", 0o644, "/bin/sh\n/bin/bash\n"),
    ("usr/sbin/console", 0o755, include_str!("files/console.sh")),
    ("usr/sbin/dhcp-event", 0o755, include_str!("files/dhcp.sh")),
];

/// The image of the default guest's disk, and the keys to its guests.
#[derive(Clone, Debug)]
pub struct SystemDisk {
    /// A raw disk image with nothing but the file system, to be read only.
    pub image: PathBuf,
    /// The keys.
    pub keys: Keys,
}

/// The image in the cache, made there if it is not.
///
/// # Errors
/// Fails when the packages cannot be had, or the image cannot be made.
pub fn ensure(tools: &Tools) -> Result<SystemDisk> {
    let system = tools.debian_system()?;
    let disk_tools = tools.disk_tools()?;
    let _lock = tools.cache().lock()?;
    let keys = Keys::ensure(&tools.cache().root().join("ssh"), &disk_tools)?;
    let images = tools.cache().root().join("images");
    let image = images.join(format!("debian-{}.img", version(&system, &disk_tools, &keys)?));
    if !image.exists() {
        fs::create_dir_all(&images).with_context(|| format!("cannot create {}", images.display()))?;
        remove_old(&images)?;
        build(&system, &disk_tools, &keys, &image)?;
    }
    Ok(SystemDisk { image, keys })
}

/// A name for everything that goes into the image.
fn version(system: &DebianSystem, tools: &DiskTools, keys: &Keys) -> Result<String> {
    const DIGITS: usize = 12;
    let mut text = format!("{SIZE} {IDENTITY} {FILES:?} {} {}", system.version, tools.version);
    text.push_str(&fs::read_to_string(keys.authorized_keys())?);
    // How files are put together is part of it too.
    text.push_str(include_str!("mod.rs"));
    text.push_str(include_str!("tree.rs"));
    let mut digits = sha256(text.as_bytes());
    digits.truncate(DIGITS);
    Ok(digits)
}

/// Images that another version of this tool may still want are kept for a day.
fn remove_old(images: &Path) -> Result<()> {
    const KEPT: Duration = Duration::from_secs(24 * 3600);
    for entry in fs::read_dir(images)?.flatten() {
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if age > KEPT {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn build(system: &DebianSystem, tools: &DiskTools, keys: &Keys, image: &Path) -> Result<()> {
    let progress = Progress::new();
    progress.step("debian disk: collecting files".into());
    let tree = files(system, keys)?;
    let bytes = tree.size()?;
    if bytes > SIZE / 2 {
        bail!("the files of the default guest's disk take {} MiB of its {} MiB", bytes >> 20, SIZE >> 20);
    }
    let folder = image.parent().context("an image lies in a folder")?;
    let mut archive = tempfile::Builder::new().prefix(".half-done-").tempfile_in(folder)?;
    tree.write(archive.as_file_mut())?;
    let half_done = tempfile::Builder::new().prefix(".half-done-").tempfile_in(folder)?;
    half_done.as_file().set_len(SIZE)?;
    progress.step(format!("debian disk: making a file system of {} MB", bytes / 1_000_000));
    let mut mke2fs = Command::new(&tools.mke2fs);
    mke2fs.args(["-q", "-F", "-t", "ext4", "-L", "debian", "-m", "0", "-U", IDENTITY, "-E"]);
    mke2fs.arg(format!("hash_seed={IDENTITY},lazy_itable_init=1,lazy_journal_init=1,nodiscard"));
    mke2fs.arg("-d").arg(archive.path()).arg(half_done.path());
    // For the times in the file system.
    run(mke2fs.env("SOURCE_DATE_EPOCH", "1700000000"))?;
    half_done.persist(image).with_context(|| format!("cannot create {}", image.display()))?;
    progress.finish(format!("debian disk: {} MB in {}", bytes / 1_000_000, image.display()));
    Ok(())
}

/// What is on the disk.
fn files(system: &DebianSystem, keys: &Keys) -> Result<Tree> {
    let mut tree = Tree::of(&system.root)?;
    for (path, mode) in [
        ("dev", 0o755),
        ("etc/dropbear", 0o700),
        ("mnt", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("root/.ssh", 0o700),
        ("run", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
    ] {
        tree.folder(path, mode);
    }
    for (path, mode, contents) in FILES {
        tree.file(path, mode, contents.as_bytes());
    }
    tree.file("etc/dropbear/host_key", 0o600, &fs::read(keys.host_key())?);
    tree.file("root/.ssh/authorized_keys", 0o600, &fs::read(keys.authorized_keys())?);
    // What the packages' own scripts do on a real system.
    let certificates = tree.joined("usr/share/ca-certificates", "crt")?;
    tree.file("etc/ssl/certs/ca-certificates.crt", 0o644, &certificates);
    let busybox = system.root.join("bin/busybox");
    for applet in initramfs::applets(&Busybox { program: busybox, version: system.version.clone() })? {
        let places = ["usr/bin", "usr/sbin"].map(|folder| format!("{folder}/{applet}"));
        if !places.iter().any(|place| tree.has(place)) {
            tree.link(&places[0], "busybox");
        }
    }
    tree.link("usr/sbin/init", "../bin/busybox");
    Ok(tree)
}

/// Copies an image to `target`, without space for what is zero.
///
/// # Errors
/// Fails when a file cannot be read or written.
pub fn copy(image: &Path, target: &Path) -> Result<()> {
    const PIECE: usize = 64 << 10;
    let context = || format!("cannot copy {} to {}", image.display(), target.display());
    let mut from = File::open(image).with_context(context)?;
    let mut to = File::create_new(target).with_context(context)?;
    to.set_len(from.metadata()?.len()).with_context(context)?;
    let mut piece = vec![0; PIECE];
    let mut place = 0;
    loop {
        let length = from.read(&mut piece).with_context(context)?;
        if length == 0 {
            return Ok(());
        }
        let bytes = &piece[..length];
        if bytes.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(place)).and_then(|_| to.write_all(bytes)).with_context(context)?;
        }
        place += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (image, target) = (folder.path().join("image"), folder.path().join("target"));
        let mut bytes = vec![0; 300_000];
        bytes[150_000] = 7;
        fs::write(&image, &bytes).unwrap();
        copy(&image, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), bytes);
        assert!(copy(&image, &target).is_err());
    }

    #[test]
    fn programs_among_the_own_files_can_be_executed() {
        for (path, mode, contents) in FILES {
            assert_eq!(mode & 0o111 != 0, contents.starts_with("#!"), "{path}");
        }
    }
}
