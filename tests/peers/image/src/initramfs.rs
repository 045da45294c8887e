//! The root file system of the machine that measures KVM.

use std::io::{self, Write};

use cpio::newc;

use crate::Qemu;

/// The kernel's command line: quiet, and laid out alike in each boot, so that figures repeat.
pub const COMMAND_LINE: &str = "console=ttyS0,115200 quiet nokaslr norandmaps panic=-1";

/// Kernel modules that [`Initramfs::modules`] holds, as their files are called, in the order in which they load. The last
/// two are for one maker's processors each.
pub const MODULES: [&str; 4] = ["irqbypass.ko", "kvm.ko", "kvm-amd.ko", "kvm-intel.ko"];

/// The first process. Where something fails, a line that says what takes the place of figures.
const INIT: &str = include_str!("init.sh");

/// The bytes that go into the file system.
#[derive(Clone, Copy, Debug)]
pub struct Initramfs<'a> {
    /// busybox, linked statically.
    pub busybox: &'a [u8],
    /// The files of [`MODULES`], in that order, from the kernel's own package and not compressed.
    pub modules: [&'a [u8]; MODULES.len()],
    /// `kvm-peer`, linked statically.
    pub vmm: &'a [u8],
    /// `guest-bench`.
    pub guest: &'a [u8],
    /// A Linux guest to start, if that is to be measured too.
    pub linux: Option<LinuxGuest<'a>>,
}

/// A Linux guest whose start is measured, up to the first line on its first serial port that holds `marker`.
#[derive(Clone, Copy, Debug)]
pub struct LinuxGuest<'a> {
    /// What runs it.
    pub qemu: &'a Qemu,
    /// Its bzImage.
    pub kernel: &'a [u8],
    /// Its initial RAM disk.
    pub initrd: &'a [u8],
    /// Its kernel's command line.
    pub command_line: &'a str,
    /// What its first process prints.
    pub marker: &'a str,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Bytes of memory, in MiB.
    pub memory_mib: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Initramfs<'_> {
    /// The file system as a cpio archive, as the kernel takes it (Linux, driver-api/early-userspace/buffer-format).
    ///
    /// # Errors
    /// Fails when a file has 4 GiB or more.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let mut archive = base(INIT, self.busybox, self.vmm)?;
        for (name, contents) in MODULES.into_iter().zip(self.modules) {
            archive = add_file(archive, &format!("modules/{name}"), contents)?;
        }
        archive = add_file(archive, "guest", self.guest)?;
        if let Some(linux) = &self.linux {
            archive = linux.add_to(archive)?;
        }
        newc::trailer(archive)
    }
}

impl LinuxGuest<'_> {
    fn add_to(&self, mut archive: Vec<u8>) -> io::Result<Vec<u8>> {
        for folder in ["linux", "qemu"] {
            archive = add_folder(archive, folder)?;
        }
        let parameters = [("command-line", self.command_line), ("marker", self.marker)];
        let numbers = [("vcpus", self.vcpus), ("memory-mib", self.memory_mib)];
        let texts = parameters.into_iter().map(|(name, text)| (name, text.to_string()));
        for (name, text) in texts.chain(numbers.into_iter().map(|(name, number)| (name, number.to_string()))) {
            archive = add_file(archive, &format!("linux/{name}"), text.as_bytes())?;
        }
        for (name, contents) in [("kernel", self.kernel), ("initrd", self.initrd)] {
            archive = add_file(archive, &format!("linux/{name}"), contents)?;
        }
        for (name, contents) in self.qemu.files() {
            archive = add_program(archive, &format!("qemu/{name}"), contents)?;
        }
        Ok(archive)
    }
}

/// The file system's beginning: the first process, and the programs that all have.
pub(crate) fn base(init: &str, busybox: &[u8], vmm: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for folder in ["bin", "dev", "modules", "proc"] {
        archive = add_folder(archive, folder)?;
    }
    // Where the first process's output goes.
    let console = newc::Builder::new("dev/console").mode(CHARACTER_DEVICE).rdev_major(5).rdev_minor(1);
    archive = add(archive, console, &[])?;
    for (name, contents) in [("init", init.as_bytes()), ("bin/busybox", busybox), ("bin/kvm-peer", vmm)] {
        archive = add_program(archive, name, contents)?;
    }
    Ok(archive)
}

pub(crate) fn add_folder(archive: Vec<u8>, name: &str) -> io::Result<Vec<u8>> {
    add(archive, newc::Builder::new(name).mode(FOLDER), &[])
}

pub(crate) fn add_program(archive: Vec<u8>, name: &str, contents: &[u8]) -> io::Result<Vec<u8>> {
    add(archive, newc::Builder::new(name).mode(PROGRAM), contents)
}

pub(crate) fn add_file(archive: Vec<u8>, name: &str, contents: &[u8]) -> io::Result<Vec<u8>> {
    add(archive, newc::Builder::new(name).mode(FILE), contents)
}

fn add(archive: Vec<u8>, entry: newc::Builder, contents: &[u8]) -> io::Result<Vec<u8>> {
    let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
    let mut writer = entry.write(archive, size);
    writer.write_all(contents)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const PARTS: Initramfs<'_> = Initramfs {
        busybox: b"busybox",
        modules: [b"irqbypass", b"kvm", b"amd", b"intel"],
        vmm: b"vmm",
        guest: b"guest image",
        linux: None,
    };

    /// Name, mode and contents of each entry.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let mut reader = newc::Reader::new(archive).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let (name, mode) = (reader.entry().name().to_string(), reader.entry().mode());
            let mut contents = Vec::new();
            reader.read_to_end(&mut contents).unwrap();
            entries.push((name, mode, contents));
            archive = reader.finish().unwrap();
        }
    }

    #[test]
    fn each_part_is_where_the_first_process_looks_for_it() {
        let entries = entries(&PARTS.archive().unwrap());
        let contents = |name: &str| {
            let entry = entries.iter().find(|(entry, ..)| entry == name);
            entry.map(|(_, _, contents)| contents.as_slice()).unwrap_or_default()
        };
        assert_eq!(contents("bin/busybox"), b"busybox");
        assert_eq!(contents("bin/kvm-peer"), b"vmm");
        assert_eq!(contents("guest"), b"guest image");
        assert_eq!(contents("modules/kvm-intel.ko"), b"intel");
        assert_eq!(contents("init"), INIT.as_bytes());
    }

    #[test]
    fn a_linux_guest_is_there_with_what_starts_it_if_it_is_to_be_started() {
        let qemu = Qemu::default();
        let linux = LinuxGuest {
            qemu: &qemu,
            kernel: b"bzImage",
            initrd: b"disk",
            command_line: "quiet",
            marker: "[bench] init",
            vcpus: 2,
            memory_mib: 256,
        };
        let with = entries(&Initramfs { linux: Some(linux), ..PARTS }.archive().unwrap());
        let expected = [("kernel", "bzImage"), ("initrd", "disk"), ("command-line", "quiet"), ("vcpus", "2")];
        for (name, contents) in expected.into_iter().chain([("marker", "[bench] init"), ("memory-mib", "256")]) {
            let name = format!("linux/{name}");
            assert!(with.contains(&(name.clone(), FILE, contents.into())), "{name}");
        }
        assert!(entries(&PARTS.archive().unwrap()).iter().all(|(name, ..)| !name.starts_with("linux")));
    }

    #[test]
    fn folders_come_before_what_they_hold() {
        let mut folders = Vec::new();
        for (name, mode, _) in entries(&PARTS.archive().unwrap()) {
            if let Some((folder, _)) = name.rsplit_once('/') {
                assert!(folders.iter().any(|known| known == folder), "{name}");
            }
            if mode == FOLDER {
                folders.push(name);
            }
        }
    }

    #[test]
    fn programs_can_be_executed() {
        for (name, mode, _) in entries(&PARTS.archive().unwrap()) {
            let is_program = name == "init" || name.starts_with("bin/");
            assert_eq!(mode == PROGRAM, is_program, "{name}");
        }
    }
}
