//! The table of package sets: what is fetched, and which programs of it are made callable.
//!
//! A set is resolved and unpacked as a whole into a folder of its own, so adding one is adding a row here.

use std::path::Path;

use dragonfly_peer_image::REQUESTS_MODULES;

/// Debian 13: the first release with QEMU 10 and Bochs 3.0.
const TRIXIE: &str = "trixie";
/// Debian 12.
const BOOKWORM: &str = "bookworm";

/// One private package set.
#[derive(Debug)]
pub struct PackageSet {
    /// Folder name in the cache and the name users see.
    pub name: &'static str,
    /// Debian suite that the packages come from.
    pub suite: &'static str,
    /// Debian packages asked for; what they depend on follows by itself.
    pub packages: &'static [&'static str],
    /// Programs that get a start script in the cache's `bin` folder.
    pub programs: &'static [Program],
    /// What of the packages is unpacked.
    pub keep: Keep,
    /// A file of the unpacked tree without which the set is of no use.
    pub proof: &'static str,
    /// What to do on a system without apt.
    pub elsewhere: &'static str,
}

/// What of a set's packages is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All but documentation and translations.
    Everything,
    /// A Linux kernel with its modules for KVM and for virtio's devices; thousands of other modules are not.
    Kernel,
    /// A Linux kernel with its modules for KVM and vhost-net.
    VhostKernel,
}

/// A program of a set and how it is started from outside its own root folder.
#[derive(Debug)]
pub struct Program {
    /// Name of the start script.
    pub name: &'static str,
    /// Path below the set's root folder.
    pub path: &'static str,
    /// Environment variables that point into the set's root folder.
    pub environment: &'static [(&'static str, &'static str)],
    /// Options whose values are paths below the set's root folder, given before the caller's arguments.
    pub options: &'static [(&'static str, &'static str)],
}

/// QEMU with its ROMs, SeaBIOS and OVMF.
pub const QEMU: PackageSet = PackageSet {
    name: "qemu",
    suite: TRIXIE,
    packages: &["qemu-system-x86", "qemu-system-data", "seabios", "ovmf"],
    programs: &[Program {
        name: "qemu-system-x86_64",
        path: "usr/bin/qemu-system-x86_64",
        environment: &[("QEMU_MODULE_DIR", "usr/lib/x86_64-linux-gnu/qemu")],
        options: &[("-L", "usr/share/qemu"), ("-L", "usr/share/seabios"), ("-L", "usr/lib/ipxe/qemu")],
    }],
    keep: Keep::Everything,
    proof: "usr/share/OVMF/OVMF_CODE_4M.fd",
    elsewhere: "install QEMU 10 or newer for x86-64 (`qemu-system-x86_64`) with OVMF in /usr/share/OVMF",
};

/// Bochs with its BIOS images.
pub const BOCHS: PackageSet = PackageSet {
    name: "bochs",
    suite: TRIXIE,
    packages: &["bochs", "bochs-term", "bochsbios", "vgabios"],
    programs: &[Program {
        name: "bochs",
        path: "usr/bin/bochs-bin",
        environment: &[("LTDL_LIBRARY_PATH", "usr/lib/x86_64-linux-gnu/bochs/plugins"), ("BXSHARE", "usr/share/bochs")],
        options: &[],
    }],
    keep: Keep::Everything,
    proof: "usr/share/bochs/BIOS-bochs-latest",
    elsewhere: "install Bochs 3.0 or newer (`bochs`), built with SMP, the debugger and the `rfb` or `term` display, \
                with its BIOS images in /usr/share/bochs",
};

/// GRUB for BIOS and UEFI, and xorriso: what an ISO is made of.
pub const ISO: PackageSet = PackageSet {
    name: "iso",
    suite: TRIXIE,
    packages: &["grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "xorriso"],
    programs: &[
        Program { name: "grub-mkimage", path: "usr/bin/grub-mkimage", environment: &[], options: &[] },
        Program { name: "xorriso", path: "usr/bin/xorriso", environment: &[], options: &[] },
    ],
    keep: Keep::Everything,
    proof: "usr/lib/grub/x86_64-efi/multiboot2.mod",
    elsewhere: "install GRUB 2.06 or newer (`grub-mkimage`, modules in /usr/lib/grub/i386-pc and /usr/lib/grub/x86_64-efi) \
                and `xorriso`",
};

/// Peers of the card's network: DPDK's testpmd, and Open vSwitch on DPDK.
pub const DPDK: PackageSet = PackageSet {
    name: "dpdk",
    suite: TRIXIE,
    packages: &[
        "dpdk",
        "dpdk-dev",
        "librte-mempool-ring25",
        "librte-net-vhost25",
        "librte-net-virtio25",
        "openvswitch-switch-dpdk",
        "openvswitch-switch",
    ],
    programs: &[
        plain("dpdk-testpmd", "usr/bin/dpdk-testpmd"),
        plain("ovsdb-server", "usr/sbin/ovsdb-server"),
        plain("ovsdb-tool", "usr/bin/ovsdb-tool"),
        plain("ovs-vsctl", "usr/bin/ovs-vsctl"),
        plain("ovs-ofctl", "usr/bin/ovs-ofctl"),
        plain("ovs-vswitchd-dpdk", "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"),
    ],
    keep: Keep::Everything,
    proof: "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk",
    elsewhere: "measure without peers (`bench card --alone`)",
};

/// A server of disks over NBD, of which the card's process is a client.
pub const NBD: PackageSet = PackageSet {
    name: "nbd",
    suite: TRIXIE,
    packages: &["qemu-utils"],
    programs: &[plain("qemu-nbd", "usr/bin/qemu-nbd")],
    keep: Keep::Everything,
    proof: "usr/bin/qemu-nbd",
    elsewhere: "install `qemu-nbd` of QEMU 5.2 or newer",
};

const fn plain(name: &'static str, path: &'static str) -> Program {
    Program { name, path, environment: &[], options: &[] }
}

/// What Linux guests find in their initial RAM disk.
pub const BUSYBOX: PackageSet = PackageSet {
    name: "busybox",
    suite: TRIXIE,
    packages: &["busybox-static"],
    programs: &[],
    keep: Keep::Everything,
    proof: "usr/bin/busybox",
    elsewhere: "give a guest of your own with `run --kernel FILE --initrd FILE`",
};

/// What makes a guest's disk, and the keys that open the guest.
pub const DISK_TOOLS: PackageSet = PackageSet {
    name: "disk-tools",
    suite: TRIXIE,
    // mke2fs fills a file system from a tar archive, owners and devices included, since 1.47.1, and by this library.
    packages: &["e2fsprogs", "libarchive13t64", "dropbear-bin"],
    programs: &[
        Program { name: "mke2fs", path: "usr/sbin/mke2fs", environment: &[], options: &[] },
        Program { name: "dropbearkey", path: "usr/bin/dropbearkey", environment: &[], options: &[] },
        Program { name: "dropbearconvert", path: "usr/bin/dropbearconvert", environment: &[], options: &[] },
        Program { name: "dbclient", path: "usr/bin/dbclient", environment: &[], options: &[] },
    ],
    keep: Keep::Everything,
    proof: "usr/sbin/mke2fs",
    elsewhere: "give a disk of your own with `run --disk FILE`",
};

/// Debian 12's programs: what is on the disk of the default guest.
pub const DEBIAN_SYSTEM: PackageSet = PackageSet {
    name: "debian-12-system",
    suite: BOOKWORM,
    packages: &[
        "base-files",
        "bash",
        "busybox-static",
        "ca-certificates",
        "coreutils",
        "dash",
        "debianutils",
        "diffutils",
        "dropbear-bin",
        "e2fsprogs",
        "ethtool",
        "findutils",
        "fio",
        "grep",
        "gzip",
        "hostname",
        "iperf3",
        "iproute2",
        "iputils-ping",
        "less",
        "libc-bin",
        "mawk",
        "mount",
        "ncurses-base",
        "perl-base",
        "procps",
        "sed",
        "socat",
        "tar",
        "util-linux",
        "wget",
    ],
    programs: &[],
    keep: Keep::Everything,
    proof: "bin/busybox",
    elsewhere: "give a disk of your own with `run --disk FILE`",
};

/// Debian 12's kernel for virtual machines: Linux 6.1.
pub const DEBIAN_12_CLOUD: PackageSet = kernel("linux-12-cloud", BOOKWORM, &["linux-image-cloud-amd64"]);
/// The same with what a host of virtual machines needs: what requests to the card are compared with.
pub const DEBIAN_12_CLOUD_VHOST: PackageSet =
    PackageSet { name: "linux-12-cloud-vhost", keep: Keep::VhostKernel, ..DEBIAN_12_CLOUD };
/// Debian 12's kernel for all machines: Linux 6.1.
pub const DEBIAN_12: PackageSet = kernel("linux-12", BOOKWORM, &["linux-image-amd64"]);
/// Debian 13's kernel for virtual machines: Linux 6.12.
pub const DEBIAN_13_CLOUD: PackageSet = kernel("linux-13-cloud", TRIXIE, &["linux-image-cloud-amd64"]);
/// Debian 13's kernel for all machines: Linux 6.12.
pub const DEBIAN_13: PackageSet = kernel("linux-13", TRIXIE, &["linux-image-amd64"]);

const fn kernel(name: &'static str, suite: &'static str, packages: &'static [&'static str]) -> PackageSet {
    PackageSet {
        name,
        suite,
        packages,
        programs: &[],
        keep: Keep::Kernel,
        proof: "boot",
        elsewhere: "give a kernel of your own with `run --kernel FILE`",
    }
}

/// The modules of a kernel that are kept.
const MODULES: [&str; 4] = ["irqbypass", "kvm", "kvm-amd", "kvm-intel"];

/// More of them: what Linux needs to reach a file system on a virtio disk, and virtio's networks, random numbers, sockets and
/// consoles, each after those that it needs itself.
pub const DEVICE_MODULES: [&str; 21] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "crc16",
    "crc32c_generic",
    "libcrc32c",
    "mbcache",
    "jbd2",
    "ext4",
    "rng-core",
    "virtio-rng",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
    "virtio_console",
];

/// Packages that apt is told are present already.
///
/// The sets' packages depend on them for the set-up of a real system (users, services, icons, fonts, boot); none holds
/// a library or file that is used here, so fetching them would only cost time.
///
/// A set may name some all the same.
pub const NOT_NEEDED: [&str; 44] = [
    "adduser",
    "adwaita-icon-theme",
    "at-spi2-common",
    "base-files",
    "base-passwd",
    "bochs-wx",
    "dbus",
    "dbus-user-session",
    "dconf-gsettings-backend",
    "debconf",
    "dmsetup",
    "dpkg",
    "fontconfig",
    "fontconfig-config",
    "fonts-dejavu-core",
    "gettext-base",
    "hicolor-icon-theme",
    "init-system-helpers",
    "initramfs-tools",
    "kmod",
    "libdpdk-dev",
    "libasound2-data",
    "libgdk-pixbuf2.0-common",
    "libglib2.0-data",
    "libgtk-3-common",
    "libpam-modules",
    "libpam-runtime",
    "libpam-systemd",
    "libpulse0",
    "libsasl2-modules-db",
    "libthai-data",
    "libx11-data",
    "linux-base",
    "mawk",
    "mount",
    "openssl",
    "openssl-provider-legacy",
    "passwd",
    "procps",
    "python3",
    "readline-common",
    "sensible-utils",
    "shared-mime-info",
    "xkb-data",
];

impl PackageSet {
    /// Text that changes when the set must be fetched anew; other start scripts are no reason for that.
    #[must_use]
    pub fn definition(&self) -> String {
        let definition = format!("{}: {}", self.suite, self.packages.join(" "));
        match self.keep {
            Keep::Everything => definition,
            Keep::Kernel => format!("{definition}; {} {}", MODULES.join(" "), DEVICE_MODULES.join(" ")),
            Keep::VhostKernel => format!("{definition}; {}", REQUESTS_MODULES.join(" ")),
        }
    }
}

impl Keep {
    /// Whether a file of a package is unpacked, by its path.
    #[must_use]
    pub fn wants(self, path: &Path) -> bool {
        const UNUSED: [&str; 4] = ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian"];
        let path = path.strip_prefix(".").unwrap_or(path);
        let modules = match self {
            Self::Everything => return !UNUSED.iter().any(|unused| path.starts_with(unused)),
            Self::Kernel => [&MODULES[..], &DEVICE_MODULES],
            Self::VhostKernel => [&REQUESTS_MODULES[..], &[]],
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let module = name.strip_suffix(".xz").unwrap_or(&name).strip_suffix(".ko");
        module.is_some_and(|module| modules.iter().any(|modules| modules.contains(&module)))
            || path.starts_with("boot") && name.starts_with("vmlinuz-")
    }
}

impl Program {
    /// The start script of this program for a set unpacked below `root`.
    ///
    /// Programs of a newer suite than the machine's need that suite's own C library, hence its own loader.
    #[must_use]
    pub fn start_script(&self, root: &Path) -> String {
        let below = |path: &str| quote(&root.join(path));
        let mut script = String::from("#!/bin/sh\nunset LD_PRELOAD LD_LIBRARY_PATH\n");
        for (name, path) in self.environment {
            script.push_str(&format!("export {name}={}\n", below(path)));
        }
        script.push_str(&format!(
            "exec {} --library-path {} --argv0 {} {}",
            below("usr/lib64/ld-linux-x86-64.so.2"),
            below("usr/lib/x86_64-linux-gnu"),
            self.name,
            below(self.path),
        ));
        for (option, path) in self.options {
            script.push_str(&format!(" {option} {}", below(path)));
        }
        script.push_str(" \"$@\"\n");
        script
    }
}

/// Quotes a path for the shell.
fn quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_script_goes_through_the_sets_own_loader() {
        let script = QEMU.programs[0].start_script(Path::new("/cache/qemu"));
        assert!(script.contains("exec '/cache/qemu/usr/lib64/ld-linux-x86-64.so.2' --library-path"));
        assert!(script.contains("-L '/cache/qemu/usr/share/qemu'"));
        assert!(script.ends_with("\"$@\"\n"));
    }

    #[test]
    fn of_a_kernel_only_its_image_and_what_kvm_disks_and_networks_need_is_kept() {
        for (path, kept) in [
            ("./boot/vmlinuz-6.1.0-40-cloud-amd64", true),
            ("./boot/config-6.1.0-40-cloud-amd64", false),
            ("./lib/modules/6.1.0-40-cloud-amd64/kernel/arch/x86/kvm/kvm-amd.ko", true),
            ("./usr/lib/modules/6.12.1+deb13-amd64/kernel/virt/lib/irqbypass.ko.xz", true),
            ("./lib/modules/6.1.0-40-cloud-amd64/kernel/fs/ext4/ext4.ko", true),
            ("./lib/modules/6.1.0-40-cloud-amd64/kernel/fs/xfs/xfs.ko", false),
            ("./lib/modules/6.1.0-40-cloud-amd64/kernel/drivers/block/virtio_blk.ko", true),
            ("./usr/lib/modules/6.12.1+deb13-amd64/kernel/drivers/char/hw_random/virtio-rng.ko.xz", true),
            ("./usr/share/doc/vmlinuz-6.1", false),
        ] {
            assert_eq!(Keep::Kernel.wants(Path::new(path)), kept, "{path}");
        }
    }

    #[test]
    fn of_other_sets_all_but_documentation_and_translations_is_kept() {
        assert!(Keep::Everything.wants(Path::new("./usr/share/qemu/bios.bin")));
        assert!(!Keep::Everything.wants(Path::new("./usr/share/man/man1/qemu.1.gz")));
    }

    #[test]
    fn a_quote_in_the_cache_folders_name_does_not_end_the_quoting() {
        assert_eq!(quote(Path::new("/home/o'neill")), r"'/home/o'\''neill'");
    }
}
