//! The files of Debian's QEMU: the smallest, which starts Linux guests on KVM fastest, and the whole, which has virtio's devices
//! on PCI.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    path::{Path, PathBuf},
};

use elf::{ElfBytes, abi::DT_NEEDED, endian::LittleEndian};

/// The programs, and their guests' firmware, below the root folder of their packages' files.
const PROGRAMS: &str = "usr/bin";
const FIRMWARE: [&str; 3] =
    ["usr/share/seabios/bios-microvm.bin", "usr/share/qemu/linuxboot_dma.bin", "usr/share/qemu/pvh.bin"];
/// Where its libraries are, and the one that loads them.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// A build of QEMU with its libraries and its microvm machine's firmware: contents by file name, all to be put into one folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Qemu {
    files: BTreeMap<String, Vec<u8>>,
}

/// Which build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QemuBuild {
    /// Of the microvm machine only, without PCI devices of virtio's.
    Microvm,
    /// Of all machines and devices.
    Whole,
}

impl QemuBuild {
    /// Name of the program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Microvm => "qemu-system-x86_64-microvm",
            Self::Whole => "qemu-system-x86_64",
        }
    }
}

impl Qemu {
    /// Reads the files from below `root`, where Debian's packages are unpacked or installed.
    ///
    /// # Errors
    /// Names the file that is missing or is not what it should be.
    pub fn read(root: &Path, build: QemuBuild) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for path in FIRMWARE {
            let path = root.join(path);
            files.insert(name(&path), read(&path)?);
        }
        let mut wanted = vec![root.join(PROGRAMS).join(build.program()), root.join(LIBRARIES).join(LOADER)];
        while let Some(path) = wanted.pop() {
            if let Entry::Vacant(entry) = files.entry(name(&path)) {
                let contents = read(&path)?;
                let needed = needed(&contents).ok_or_else(|| explain(&path, "has no dynamic section"))?;
                wanted.extend(needed.iter().map(|library| root.join(LIBRARIES).join(library)));
                entry.insert(contents);
            }
        }
        Ok(Self { files })
    }

    /// Names and contents.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, contents)| (name.as_str(), contents.as_slice()))
    }
}

/// Names of the libraries that a program or library names; none if the file is neither.
fn needed(file: &[u8]) -> Option<Vec<String>> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).ok()?;
    let common = elf.find_common_data().ok()?;
    let (dynamic, names) = (common.dynamic?, common.dynsyms_strs?);
    let needed = dynamic.iter().filter(|entry| entry.d_tag == DT_NEEDED);
    needed.map(|entry| names.get(entry.d_val() as usize).ok().map(str::to_string)).collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| explain(path, &error.to_string()))
}

fn explain(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_the_libraries_that_it_needs() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&this).unwrap().iter().any(|library| library.starts_with("libc.so")));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert_eq!(needed(b"#!/bin/sh"), None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Qemu::read(Path::new("/nowhere"), QemuBuild::Microvm).unwrap_err().to_string();
        assert!(error.contains("/nowhere/usr/share/seabios/bios-microvm.bin"), "{error}");
    }
}
