//! What to run: the machine file and the files that it names, from the bundle.

use alloc::format;
use alloc::string::String;

use dragonfly_archive::Archive;
use dragonfly_console::protocol::MAX_GUESTS;
use dragonfly_machine_file::MachineFile;

use crate::problem::Problem;

/// A guest's description.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'b> {
    /// What the machine file says.
    pub(crate) file: MachineFile,
    /// The kernel's file.
    pub(crate) kernel: &'b [u8],
    /// The initial RAM disk's file.
    pub(crate) initrd: Option<&'b [u8]>,
}

/// The guest's number, from the value of the VMM's argument `machine`.
pub(crate) fn number(argument: Option<&str>) -> Result<u32, Problem> {
    let number = argument.and_then(|argument| argument.parse().ok()).ok_or(Problem::NoNumber)?;
    if (number as usize) < MAX_GUESTS { Ok(number) } else { Err(Problem::NoNumber) }
}

impl<'b> Plan<'b> {
    /// Reads the description of guest `number` from the bundle.
    pub(crate) fn read(bundle: &'b [u8], number: u32) -> Result<Self, Problem> {
        let archive = Archive::new(bundle);
        let name = format!("machines/{number}.toml");
        let text = find(archive, &name).ok_or_else(|| Problem::NoMachineFile(name.clone()))?;
        // What is no UTF-8 becomes a character that no key and no number has: the parser names the line.
        let file = MachineFile::parse(&name, &String::from_utf8_lossy(text))?;
        let kernel = find_named(archive, &file, number, "kernel", &file.kernel)?;
        let initrd = match &file.initrd {
            Some(path) => Some(find_named(archive, &file, number, "initrd", path)?),
            None => None,
        };
        Ok(Self { file, kernel, initrd })
    }

    /// Checks what the machine file asks of the host: it has so many CPUs and so much memory left for the guest.
    pub(crate) fn check(&self, cpus: u32, memory_left: u64) -> Result<(), Problem> {
        let file = &self.file;
        if let Some(cpu) = file.cpus.iter().find(|cpu| **cpu >= cpus) {
            let message = format!("names CPU {cpu}, but the machine has {cpus}: they are counted from 0");
            return Err(file.error("cpus", message).into());
        }
        // Beside the RAM there are page tables and what the machine itself needs.
        let devices = u64::from(file.card_devices().map_or(0, |(_, count)| count)).saturating_mul(DEVICE_MEMORY);
        let own = OWN_MEMORY.saturating_add(devices);
        let wanted = file.memory.saturating_add(file.memory / TABLES_PART).saturating_add(own);
        if wanted > memory_left {
            let (wanted, left) = (wanted.div_ceil(MIB), memory_left / MIB);
            let message = format!(
                "and the machine around it need {wanted} MiB, but the VMM has {left} MiB left: give the guest less, \
                 or the VMM more by `memory` in bundle.toml"
            );
            return Err(file.error("memory", message).into());
        }
        Ok(())
    }
}

const MIB: u64 = 1 << 20;

/// Page tables for 4 KiB pages, of the guest and of the own mapping, take this part of the memory: 16 of 4096 bytes,
/// and a little more for the upper levels.
const TABLES_PART: u64 = 4096 / 20;

/// Heap, threads and vCPUs.
const OWN_MEMORY: u64 = 2 * MIB;

/// Notifications, and memory for requests under way, of a device of the card: as much as of one with a few queues.
const DEVICE_MEMORY: u64 = 128 << 10;

fn find<'b>(archive: Archive<'b>, name: &str) -> Option<&'b [u8]> {
    archive.find(name).ok().flatten().map(|entry| entry.data)
}

fn find_named<'b>(
    archive: Archive<'b>,
    file: &MachineFile,
    number: u32,
    key: &str,
    path: &str,
) -> Result<&'b [u8], Problem> {
    let name = format!("machines/{number}/{path}");
    find(archive, &name)
        .ok_or_else(|| file.error(key, format!("is \"{path}\", but the bundle has no {name}: add the file")).into())
}

#[cfg(test)]
mod tests {
    use std::format;

    use super::{Plan, number};

    /// An archive of these files, in the "newc" format.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, data) in files.iter().chain([&("TRAILER!!!", &[][..])]) {
            let fields = [0, 0, 0, 0, 0, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
            let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
            bytes.extend(format!("070701{header}{name}\0").bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend(*data);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    const MACHINE: &[u8] = b"name = \"one\"\nvcpus = 2\nmemory = \"64MiB\"\nkernel = \"k\"\ninitrd = \"i\"\n";

    fn error(files: &[(&str, &[u8])]) -> String {
        Plan::read(&archive(files), 3).unwrap_err().to_string()
    }

    #[test]
    fn the_files_are_found_by_the_names_in_the_machine_file() {
        let bundle = archive(&[("machines/3.toml", MACHINE), ("machines/3/k", b"kernel"), ("machines/3/i", b"disk")]);
        let plan = Plan::read(&bundle, 3).unwrap();
        assert_eq!((plan.file.name.as_str(), plan.kernel, plan.initrd), ("one", &b"kernel"[..], Some(&b"disk"[..])));
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        assert!(error(&[]).starts_with("machines/3.toml: is not in the bundle"));
        let told = error(&[("machines/3.toml", MACHINE)]);
        assert_eq!(told, "machines/3.toml:4: `kernel` is \"k\", but the bundle has no machines/3/k: add the file");
        let told = error(&[("machines/3.toml", MACHINE), ("machines/3/k", b"")]);
        assert!(told.starts_with("machines/3.toml:5: `initrd`"), "{told}");
        let told = error(&[("machines/3.toml", b"name = \"a\"\nkernal = \"k\"\n")]);
        assert!(told.starts_with("machines/3.toml:2: `kernal`"), "{told}");
        let told = error(&[("machines/3.toml", b"name = \"a\xff\"\nkernel = \"k\"\n")]);
        assert!(told.starts_with("machines/3.toml:1: "), "{told}");
    }

    #[test]
    fn what_the_host_does_not_have_is_told_with_the_key() {
        let machine: &[u8] = b"name = \"one\"\nmemory = \"64MiB\"\nkernel = \"k\"\ncpus = [0, 2]\n";
        let bundle = archive(&[("machines/0.toml", machine), ("machines/0/k", b"kernel")]);
        let plan = Plan::read(&bundle, 0).unwrap();
        assert!(plan.check(3, 80 << 20).is_ok());
        let told = plan.check(2, 80 << 20).unwrap_err().to_string();
        assert!(told.starts_with("machines/0.toml:4: `cpus` names CPU 2"), "{told}");
        let told = plan.check(3, 65 << 20).unwrap_err().to_string();
        assert!(told.starts_with("machines/0.toml:2: `memory`") && told.contains("67 MiB"), "{told}");
    }

    #[test]
    fn the_number_is_that_of_a_console() {
        assert_eq!(number(Some("31")).unwrap(), 31);
        for bad in [None, Some("32"), Some(""), Some("-1"), Some("x")] {
            assert!(number(bad).is_err(), "{bad:?}");
        }
    }
}
