//! The bundle that runs guests: a VMM for each, and the console server.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::description::Guest;
use crate::build::{cpio::Archive, strip};

/// The programs of the bundle, the supervisor first.
pub const PROGRAMS: [&str; 3] = ["supervisor", CONSOLE, VMM];
const CONSOLE: &str = "console";
const VMM: &str = "vmm";

/// What a VMM may use beside the guest's memory: its program's heap, vCPUs, and the second-stage tables, which take
/// 1/512 of the memory where pages are small.
const VMM_MEMORY: u64 = 16 << 20;
const TABLES_PART: u64 = 128;
const PAGE_SIZE: u64 = 4096;

const CONSOLE_PRIORITY: u8 = 20;
const HIGHEST_PRIORITY: u8 = 63;

/// `bundle.toml`; `docs/bundle.md` describes it.
#[derive(Serialize)]
struct Plan<'a> {
    domain: Vec<Domain<'a>>,
}

#[derive(Serialize)]
struct Domain<'a> {
    name: &'a str,
    program: &'a str,
    arguments: String,
    memory: String,
    priority: u8,
    max_priority: u8,
    #[serde(skip_serializing_if = "<[u32]>::is_empty")]
    cpus: &'a [u32],
    grants: &'a [&'a str],
    provide: &'a [&'a str],
    #[serde(rename = "use")]
    use_gates: &'a [&'a str],
    essential: bool,
    ports: &'a [Ports],
    interrupts: &'a [Interrupt],
}

#[derive(Serialize)]
struct Ports {
    name: &'static str,
    first: u16,
    count: u16,
}

#[derive(Serialize)]
struct Interrupt {
    name: &'static str,
    number: u32,
}

/// The second serial port, and the real-time clock, which the console server reads for the guests.
const CONSOLE_PORTS: [Ports; 2] =
    [Ports { name: "com2", first: 0x2f8, count: 8 }, Ports { name: "rtc", first: 0x70, count: 2 }];
const CONSOLE_INTERRUPTS: [Interrupt; 1] = [Interrupt { name: "com2-irq", number: 3 }];

/// The text of `bundle.toml` for these guests.
///
/// # Errors
/// Never in practice.
pub fn plan(guests: &[Guest]) -> Result<String> {
    let console = Domain {
        name: CONSOLE,
        program: CONSOLE,
        arguments: String::new(),
        memory: "4MiB".into(),
        priority: CONSOLE_PRIORITY,
        max_priority: CONSOLE_PRIORITY,
        cpus: &[],
        grants: &["log"],
        provide: &[CONSOLE],
        use_gates: &[],
        essential: false,
        ports: &CONSOLE_PORTS,
        interrupts: &CONSOLE_INTERRUPTS,
    };
    let vmms = guests.iter().enumerate().map(|(number, Guest { machine, .. })| Domain {
        name: &machine.name,
        program: VMM,
        arguments: format!("machine={number}"),
        memory: format!("{}KiB", memory_of_vmm(machine.memory) / 1024),
        priority: machine.priority,
        max_priority: machine.priority.saturating_add(1).min(HIGHEST_PRIORITY),
        cpus: &machine.cpus,
        grants: &["log", "figures", "bundle"],
        provide: &[],
        use_gates: &[CONSOLE],
        essential: true,
        ports: &[],
        interrupts: &[],
    });
    toml::to_string(&Plan { domain: std::iter::once(console).chain(vmms).collect() })
        .context("cannot write bundle.toml")
}

/// Memory of a VMM whose guest has so much, in bytes.
#[must_use]
pub fn memory_of_vmm(guest: u64) -> u64 {
    (guest + guest / TABLES_PART + VMM_MEMORY).next_multiple_of(PAGE_SIZE)
}

/// Packs the archive; `programs` are pairs of name and ELF file.
///
/// # Errors
/// Fails when a program cannot be read, or a file is too large for the archive.
pub fn archive(guests: &[Guest], programs: &[(String, PathBuf)]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.file("bundle.toml", plan(guests)?.as_bytes())?;
    for (name, path) in programs {
        archive.file(name, &strip::read_stripped(path)?)?;
    }
    for (number, guest) in guests.iter().enumerate() {
        archive.file(&format!("machines/{number}.toml"), guest.text.as_bytes())?;
        for (name, contents) in &guest.files {
            archive.file(&format!("machines/{number}/{name}"), contents)?;
        }
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use dragonfly_bundle::{Bundle, Grants};
    use dragonfly_machine_file::MachineFile;

    use super::*;
    use crate::build::cpio::entries;

    fn guest(name: &str, more: &str) -> Guest {
        let text = format!("name = \"{name}\"\nkernel = \"k\"\n{more}\n");
        let machine = MachineFile::parse("m.toml", &text).unwrap();
        Guest { machine, text, files: vec![("k".into(), b"kernel".to_vec())], source: None }
    }

    /// As `archive` makes it, with programs that are no ELF files.
    fn bundle(guests: &[Guest]) -> Vec<u8> {
        let mut whole = Archive::new();
        for (name, _, contents) in entries(&archive(guests, &[]).unwrap()) {
            whole.file(&name, &contents).unwrap();
        }
        PROGRAMS.iter().for_each(|name| whole.file(name, b"ELF").unwrap());
        whole.finish().unwrap()
    }

    #[test]
    fn the_supervisor_accepts_the_plan() {
        let bytes = bundle(&[guest("a", ""), guest("b", "memory = \"1GiB\"\ncpus = [3, 1]\npriority = 63")]);
        let bundle = Bundle::open(&bytes).unwrap();
        let [console, a, b] = &bundle.plan().domains[..] else { panic!("three domains") };
        assert_eq!((console.program.as_str(), console.essential, console.ports.len()), ("console", false, 2));
        assert_eq!((a.program.as_str(), a.arguments.as_str(), a.essential), ("vmm", "machine=0", true));
        assert_eq!((b.arguments.as_str(), b.cpu, b.cpus), ("machine=1", 3, 0b1010));
        assert_eq!((b.priority, b.max_priority), (63, 63));
        assert!(b.memory > 1 << 30 && a.grants == Grants::LOG | Grants::FIGURES | Grants::BUNDLE);
    }

    #[test]
    fn each_guest_has_its_machine_file_and_what_that_names() {
        let bytes = bundle(&[guest("a", ""), guest("b", "")]);
        let bundle = Bundle::open(&bytes).unwrap();
        for number in 0..2 {
            assert!(bundle.file(&format!("machines/{number}.toml")).is_some());
            assert_eq!(bundle.file(&format!("machines/{number}/k")), Some(&b"kernel"[..]));
        }
    }

    #[test]
    fn a_vmm_has_room_beside_its_guest() {
        for guest in [64 << 20, (64 << 20) + 4096, 6 << 30] {
            let memory = memory_of_vmm(guest);
            assert!(memory >= guest + guest / 512 + (8 << 20) && memory.is_multiple_of(PAGE_SIZE));
        }
    }
}
