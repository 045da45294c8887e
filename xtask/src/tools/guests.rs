//! What guests are made of: Debian's kernels and busybox.

use std::{fs, path::PathBuf};

use anyhow::Result;
use clap::ValueEnum;

use super::{
    Tools, existing,
    sets::{self, PackageSet},
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
    /// The modules for KVM and virtio, `.ko` or `.ko.xz`.
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
    /// The file of a module of KVM's: `irqbypass`, `kvm`, `kvm-amd` or `kvm-intel`.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<&PathBuf> {
        let is_it = |path: &&PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.strip_prefix(name).is_some_and(|rest| [".ko", ".ko.xz"].contains(&rest))
        };
        self.modules.iter().find(is_it)
    }

    /// The modules of the driver of virtio disks. Some may be part of the kernel's image instead.
    pub fn virtio_modules(&self) -> impl Iterator<Item = &PathBuf> {
        let is_virtio =
            |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("virtio"));
        self.modules.iter().filter(is_virtio)
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

    /// busybox for guests, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn busybox(&self) -> Result<Busybox> {
        self.find_or_fetch(&sets::BUSYBOX, Self::find_busybox)
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
        let (root, manifest) = self.private(linux.set())?;
        let image = fs::read_dir(root.join("boot")).ok()?.flatten().next()?.path();
        let release = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_string();
        let package = manifest.packages.iter().find(|package| package.name.ends_with(&release))?;
        let version = package.version.clone();
        // Where `/lib` is a link to `/usr/lib`, packages name the latter.
        let folders = ["lib", "usr/lib"].map(|lib| root.join(lib).join("modules").join(&release).join("kernel"));
        let modules = folders
            .iter()
            .flat_map(|folder| {
                ["arch/x86/kvm", "virt/lib", "drivers/block", "drivers/virtio"].map(|part| folder.join(part))
            })
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
}
