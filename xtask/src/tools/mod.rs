//! The programs that xtask starts: found on PATH where they are new enough, else from a private, signature-checked set.
//!
//! [`Tools`] answers "where is QEMU?" and fetches it when the answer is "nowhere". [`sets`] is the table of what can be
//! fetched, [`apt`] fetches it, [`cache`] says where it lies, [`guests`] are the kernels and programs of guests, [`rust`]
//! does the same for Rust's own parts and [`doctor`] shows all of it.

pub mod apt;
pub mod cache;
pub mod doctor;
mod fetch;
pub mod guests;
pub mod kernel_size;
pub mod peers;
mod place;
pub mod progress;
pub mod rust;
pub mod sets;
pub mod sources;
pub mod version;

use std::{env, fmt, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

pub use self::guests::{DebianSystem, DiskTools};
use self::{
    cache::{Cache, Manifest},
    guests::GuestLinux,
    place::Place,
    sets::PackageSet,
    version::Version,
};

/// Where a program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Found on the user's PATH.
    Path,
    /// From the private set in the cache folder.
    Private,
}

/// A program, checked by running it.
#[derive(Clone, Debug)]
pub struct Program {
    /// What to start.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
    /// Where it comes from.
    pub origin: Origin,
}

/// QEMU and the firmware for its UEFI machines.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// `qemu-system-x86_64`.
    pub program: Program,
    /// OVMF's code, mapped read-only.
    pub ovmf_code: PathBuf,
    /// OVMF's variables, to be copied for each boot.
    pub ovmf_variables: PathBuf,
}

/// Bochs and its BIOS images.
#[derive(Clone, Debug)]
pub struct Bochs {
    /// `bochs`.
    pub program: Program,
    /// System BIOS.
    pub bios: PathBuf,
    /// VGA BIOS.
    pub vga_bios: PathBuf,
}

/// What makes an ISO.
#[derive(Clone, Debug)]
pub struct IsoTools {
    /// `grub-mkimage`.
    pub mkimage: Program,
    /// `xorriso`.
    pub xorriso: Program,
    /// Folder with GRUB's modules, one folder per platform.
    pub grub_modules: PathBuf,
}

/// Finds programs and fetches those that are missing.
#[derive(Clone, Debug)]
pub struct Tools {
    cache: Cache,
    offline: bool,
}

const QEMU_AT_LEAST: Version = Version(10, 0, 0);
const BOCHS_AT_LEAST: Version = Version(3, 0, 0);
const QEMU_NBD_AT_LEAST: Version = Version(5, 2, 0);
const GRUB_AT_LEAST: Version = Version(2, 6, 0);
const XORRISO_AT_LEAST: Version = Version(1, 4, 0);

impl Tools {
    /// Tools of this user; with `offline` nothing is ever fetched.
    ///
    /// # Errors
    /// Fails when there is no place for a cache folder.
    pub fn new(offline: bool) -> Result<Self> {
        Ok(Self { cache: Cache::find()?, offline })
    }

    /// The cache folder in use.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Whether the network must not be touched.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// Fetches whatever set is neither on PATH nor in the cache.
    ///
    /// # Errors
    /// Fails when a tool is missing and cannot be fetched; the message says how to get it.
    pub fn ensure_all(&self) -> Result<()> {
        self.qemu()?;
        self.bochs()?;
        self.iso()?;
        self.busybox()?;
        self.disk_tools()?;
        self.debian_system()?;
        self.peers()?;
        self.qemu_nbd()?;
        for linux in GuestLinux::value_variants() {
            self.guest_kernel(*linux)?;
        }
        self.vhost_kernel()?;
        Ok(())
    }

    /// QEMU, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn qemu(&self) -> Result<Qemu> {
        self.find_or_fetch(&sets::QEMU, |tools| tools.find_qemu())
    }

    /// Bochs, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn bochs(&self) -> Result<Bochs> {
        self.find_or_fetch(&sets::BOCHS, |tools| tools.find_bochs())
    }

    /// GRUB and xorriso, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn iso(&self) -> Result<IsoTools> {
        self.find_or_fetch(&sets::ISO, |tools| tools.find_iso())
    }

    /// QEMU's NBD server, fetched if need be.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn qemu_nbd(&self) -> Result<Program> {
        self.find_or_fetch(&sets::NBD, |tools| {
            let mut places = tools.places(&sets::NBD).into_iter();
            places.find_map(|place| place.program("qemu-nbd", "--version", QEMU_NBD_AT_LEAST))
        })
    }

    /// QEMU, if it is on this machine.
    #[must_use]
    pub fn find_qemu(&self) -> Option<Qemu> {
        self.places(&sets::QEMU).into_iter().find_map(|place| {
            let share = place.root.join("usr/share/OVMF");
            Some(Qemu {
                program: place.program("qemu-system-x86_64", "--version", QEMU_AT_LEAST)?,
                ovmf_code: existing(share.join("OVMF_CODE_4M.fd"))?,
                ovmf_variables: existing(share.join("OVMF_VARS_4M.fd"))?,
            })
        })
    }

    /// Bochs, if it is on this machine.
    #[must_use]
    pub fn find_bochs(&self) -> Option<Bochs> {
        self.places(&sets::BOCHS).into_iter().find_map(|place| {
            let share = place.root.join("usr/share");
            Some(Bochs {
                program: place.program("bochs", "--help", BOCHS_AT_LEAST)?,
                bios: existing(share.join("bochs/BIOS-bochs-latest"))?,
                vga_bios: existing(share.join("vgabios/vgabios.bin"))
                    .or_else(|| existing(share.join("bochs/VGABIOS-lgpl-latest")))?,
            })
        })
    }

    /// GRUB and xorriso, if they are on this machine.
    #[must_use]
    pub fn find_iso(&self) -> Option<IsoTools> {
        self.places(&sets::ISO).into_iter().find_map(|place| {
            let grub_modules = place.root.join("usr/lib/grub");
            existing(grub_modules.join("i386-pc/multiboot2.mod"))?;
            existing(grub_modules.join("x86_64-efi/multiboot2.mod"))?;
            Some(IsoTools {
                mkimage: place.program("grub-mkimage", "--version", GRUB_AT_LEAST)?,
                xorriso: place.program("xorriso", "--version", XORRISO_AT_LEAST)?,
                grub_modules,
            })
        })
    }

    /// Where the programs of `set` may be, best first.
    fn places(&self, set: &PackageSet) -> Vec<Place> {
        let mut places = vec![Place { bin: None, root: PathBuf::from("/"), origin: Origin::Path }];
        if let Some((root, _)) = self.private(set) {
            places.push(Place { bin: Some(self.cache.bin()), root, origin: Origin::Private });
        }
        places
    }

    /// Root folder and manifest of a set that has been fetched.
    fn private(&self, set: &PackageSet) -> Option<(PathBuf, Manifest)> {
        let folder = self.cache.sets().join(set.name);
        let manifest = Manifest::read(&folder).filter(|manifest| manifest.definition == set.definition())?;
        Some((folder.join("root"), manifest))
    }

    fn find_or_fetch<T>(&self, set: &PackageSet, find: impl Fn(&Self) -> Option<T>) -> Result<T> {
        if let Some((root, _)) = self.private(set) {
            fetch::renew_start_scripts(&self.cache, set, &root)?;
        }
        if let Some(found) = find(self) {
            return Ok(found);
        }
        if self.offline {
            bail!(
                "the set `{}` is missing and --offline forbids to fetch it; run `cargo xtask setup` once while \
                 online, or {}",
                set.name,
                set.elsewhere
            );
        }
        if !apt::is_available() {
            bail!("the set `{}` is missing and there is no apt here to fetch it; {}", set.name, set.elsewhere);
        }
        if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
            bail!("the private tools are x86-64 Linux programs; {}", set.elsewhere);
        }
        let _lock = self.cache.lock()?;
        // Another xtask may have fetched it while this one waited for the lock.
        if let Some(found) = find(self) {
            return Ok(found);
        }
        fetch::fetch(&self.cache, set)?;
        find(self).with_context(|| {
            format!("the set `{}` was fetched but is of no use; `cargo xtask doctor` shows what was found", set.name)
        })
    }
}

/// Finds a program on PATH.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Path => "PATH",
            Self::Private => "private set",
        })
    }
}
