//! What guests are made of: Debian's kernels and busybox.

use std::{fs, path::PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use super::{
    Tools, existing,
    sets::{self, DEVICE_MODULES, PackageSet},
};

/// A Debian kernel that guests are started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GuestLinux {
    /// Debian 12 for virtual machines, Linux 6.1.
    #[value(name = "12-cloud")]
    Debian12Cloud,
    /// Debian 12, Linux 6.1.
    #[value(name = "12")]
    Debian12,
    /// Debian 13 for virtual machines, Linux 6.12.
    #[value(name = "13-cloud")]
    Debian13Cloud,
    /// Debian 13, Linux 6.12.
    #[value(name = "13")]
    Debian13,
}

/// A guest's kernel, unpacked.
#[derive(Clone, Debug)]
pub struct GuestKernel {
    /// The bzImage.
    pub image: PathBuf,
    /// What `uname -r` says there.
    pub release: String,
    /// Version of the Debian package.
    pub version: String,
    /// The modules for KVM, virtio and file systems, `.ko` or `.ko.xz`.
    modules: Vec<PathBuf>,
}

/// busybox, statically linked.
#[derive(Clone, Debug)]
pub struct Busybox {
    /// The program.
    pub program: PathBuf,
    /// Version of the Debian package.
    pub version: String,
}

/// Programs that make a guest's disk and the keys that open the guest.
#[derive(Clone, Debug)]
pub struct DiskTools {
    /// Makes a file system from a tar archive.
    pub mke2fs: PathBuf,
    /// Makes keys.
    pub dropbearkey: PathBuf,
    /// Turns dropbear's keys into OpenSSH's.
    pub dropbearconvert: PathBuf,
    /// An SSH client.
    pub dbclient: PathBuf,
    /// Version of the Debian package that `mke2fs` is of.
    pub version: String,
}

/// Debian's programs for the default guest's disk.
#[derive(Clone, Debug)]
pub struct DebianSystem {
    /// Folder in which the packages are unpacked.
    pub root: PathBuf,
    /// Names and versions of all packages.
    pub version: String,
}

/// Where a kernel's package has the modules that are kept.
const MODULE_FOLDERS: [&str; 18] = [
    "arch/x86/kvm",
    "crypto",
    "drivers/block",
    "drivers/char",
    "drivers/char/hw_random",
    "drivers/net",
    "drivers/vhost",
    "drivers/virtio",
    "fs",
    "fs/ext4",
    "fs/jbd2",
    "lib",
    "net/802",
    "net/bridge",
    "net/core",
    "net/llc",
    "net/vmw_vsock",
    "virt/lib",
];

impl GuestLinux {
    fn set(self) -> &'static PackageSet {
        match self {
            Self::Debian12Cloud => &sets::DEBIAN_12_CLOUD,
            Self::Debian12 => &sets::DEBIAN_12,
            Self::Debian13Cloud => &sets::DEBIAN_13_CLOUD,
            Self::Debian13 => &sets::DEBIAN_13,
        }
    }

    /// What to call it in a report.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::Debian12Cloud => "guests: Debian 12 cloud",
            Self::Debian12 => "guests: Debian 12",
            Self::Debian13Cloud => "guests: Debian 13 cloud",
            Self::Debian13 => "guests: Debian 13",
        }
    }
}

impl GuestKernel {
    /// The file of a module, if it has been kept and is no part of the kernel's image.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<&PathBuf> {
        let is_it = |path: &&PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.strip_prefix(name).is_some_and(|rest| [".ko", ".ko.xz"].contains(&rest))
        };
        self.modules.iter().find(is_it)
    }

    /// The modules of virtio's devices and of ext4, in the order in which they can be loaded. Some may be part
    /// of the kernel's image instead.
    pub fn device_modules(&self) -> impl Iterator<Item = &PathBuf> {
        DEVICE_MODULES.iter().filter_map(|name| self.module(name))
    }
}

impl Tools {
    /// A guest's kernel, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn guest_kernel(&self, linux: GuestLinux) -> Result<GuestKernel> {
        self.find_or_fetch(linux.set(), |tools| tools.find_guest_kernel(linux))
    }

    /// The kernel of a host of virtual machines with vhost-net, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn vhost_kernel(&self) -> Result<GuestKernel> {
        let set = &sets::DEBIAN_12_CLOUD_VHOST;
        self.find_or_fetch(set, |tools| tools.find_kernel(set))
    }

    /// busybox for guests, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn busybox(&self) -> Result<Busybox> {
        self.find_or_fetch(&sets::BUSYBOX, Self::find_busybox)
    }

    /// What makes disks, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn disk_tools(&self) -> Result<DiskTools> {
        self.find_or_fetch(&sets::DISK_TOOLS, Self::find_disk_tools)
    }

    /// What is on the default guest's disk, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn debian_system(&self) -> Result<DebianSystem> {
        self.find_or_fetch(&sets::DEBIAN_SYSTEM, Self::find_debian_system)
    }

    /// The folder with the files of Debian's QEMU packages, fetched even if there is a QEMU on PATH.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn qemu_packages(&self) -> Result<PathBuf> {
        self.find_or_fetch(&sets::QEMU, |tools| Some(tools.private(&sets::QEMU)?.0))
    }

    /// A guest's kernel, if it has been fetched.
    #[must_use]
    pub fn find_guest_kernel(&self, linux: GuestLinux) -> Option<GuestKernel> {
        self.find_kernel(linux.set())
    }

    fn find_kernel(&self, set: &PackageSet) -> Option<GuestKernel> {
        let (root, manifest) = self.private(set)?;
        let image = fs::read_dir(root.join("boot")).ok()?.flatten().next()?.path();
        let release = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_string();
        let package = manifest.packages.iter().find(|package| package.name.ends_with(&release))?;
        let version = package.version.clone();
        // Where `/lib` is a link to `/usr/lib`, packages name the latter.
        let folders = ["lib", "usr/lib"].map(|lib| root.join(lib).join("modules").join(&release).join("kernel"));
        let modules = folders
            .iter()
            .flat_map(|folder| MODULE_FOLDERS.map(|part| folder.join(part)))
            .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
            .map(|entry| entry.path())
            .collect();
        Some(GuestKernel { image, release, version, modules })
    }

    /// busybox for guests, if it has been fetched.
    #[must_use]
    pub fn find_busybox(&self) -> Option<Busybox> {
        let (root, manifest) = self.private(&sets::BUSYBOX)?;
        let version = manifest.version_of("busybox-static")?.to_string();
        Some(Busybox { program: existing(root.join("usr/bin/busybox"))?, version })
    }
    /// What makes disks, if it has been fetched.
    #[must_use]
    pub fn find_disk_tools(&self) -> Option<DiskTools> {
        let (_, manifest) = self.private(&sets::DISK_TOOLS)?;
        let program = |name| existing(self.cache.bin().join(name));
        Some(DiskTools {
            mke2fs: program("mke2fs")?,
            dropbearkey: program("dropbearkey")?,
            dropbearconvert: program("dropbearconvert")?,
            dbclient: program("dbclient")?,
            version: manifest.packages.iter().find(|package| package.name == "e2fsprogs")?.version.clone(),
        })
    }

    /// What is on the default guest's disk, if it has been fetched.
    #[must_use]
    pub fn find_debian_system(&self) -> Option<DebianSystem> {
        let (root, manifest) = self.private(&sets::DEBIAN_SYSTEM)?;
        let names = manifest.packages.iter().map(|package| format!("{} {}", package.name, package.version));
        Some(DebianSystem { root, version: names.collect::<Vec<_>>().join(", ") })
    }
}
