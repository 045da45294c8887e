//! The bundle that runs guests: a VMM for each, the console server, and the offload card if any guest has disks or networks.

use std::{borrow::Cow, path::PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{description::Guest, devices};
use crate::build::{cpio::Archive, strip};

const SUPERVISOR: &str = "supervisor";
const CONSOLE: &str = "console";
const VMM: &str = "vmm";
const CARD: &str = "card";
const RESTARTER: &str = "card-restarter";

/// What the card may use beside its disks in memory.
const CARD_MEMORY: u64 = 32 << 20;
/// What the card may keep for its successor, for each guest: the longest order, twice.
const KEPT_BY_CARD: u64 = 128 << 10;
/// Above the VMMs' by default. It has a CPU of its own, so this decides only between its own threads and the supervisor's.
const CARD_PRIORITY: u8 = 24;
/// How often it is started anew.
const CARD_RESTARTS: u32 = 1000;

/// The PCI functions that are the card's: virtio's disks and network devices of the emulator (virtio 1.2 4.1.2).
const CARD_FUNCTIONS: [Functions; 2] = [
    Functions { name: "disk", vendor: 0x1af4, device: 0x1042 },
    Functions { name: "uplink", vendor: 0x1af4, device: 0x1041 },
];

/// What a VMM may use beside the guest's memory: its program's heap, vCPUs, and the second-stage tables, which take
/// 1/512 of the memory where pages are small.
const VMM_MEMORY: u64 = 16 << 20;
const TABLES_PART: u64 = 128;
const PAGE_SIZE: u64 = 4096;

const CONSOLE_PRIORITY: u8 = 20;
/// So that guests at work do not keep it from its work.
const RESTARTER_PRIORITY: u8 = 32;
const HIGHEST_PRIORITY: u8 = 63;

/// The machine that guests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Number of CPUs, the last of which is the card's if there is one.
    pub cpus: u32,
    /// How often the card is started anew under the guests, for tests.
    pub card_restarts: u32,
    /// For how many microseconds after the last work the card looks at all rings.
    pub card_poll_us: u32,
}

impl From<u32> for Host {
    fn from(cpus: u32) -> Self {
        Self { cpus, card_restarts: 0, card_poll_us: 0 }
    }
}

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
    #[serde(skip_serializing_if = "is_empty")]
    cpus: Cow<'a, [u32]>,
    grants: &'a [&'a str],
    provide: &'a [&'a str],
    #[serde(rename = "use")]
    use_gates: &'a [&'a str],
    essential: bool,
    #[serde(skip_serializing_if = "is_none")]
    restarts: u32,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    restart: &'a [&'a str],
    #[serde(skip_serializing_if = "String::is_empty")]
    keep: String,
    ports: &'a [Ports],
    interrupts: &'a [Interrupt],
    #[serde(skip_serializing_if = "<[Functions]>::is_empty")]
    pci: &'a [Functions],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

fn is_empty(list: &[u32]) -> bool {
    list.is_empty()
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

#[derive(Serialize)]
struct Functions {
    name: &'static str,
    vendor: u16,
    device: u16,
}

/// The second serial port, and the real-time clock, which the console server reads for the guests.
const CONSOLE_PORTS: [Ports; 2] =
    [Ports { name: "com2", first: 0x2f8, count: 8 }, Ports { name: "rtc", first: 0x70, count: 2 }];
const CONSOLE_INTERRUPTS: [Interrupt; 1] = [Interrupt { name: "com2-irq", number: 3 }];

/// The programs that these guests need, the supervisor first.
#[must_use]
pub fn programs(guests: &[Guest], host: Host) -> Vec<&'static str> {
    let card = devices::any(guests).then_some(CARD);
    let restarter = (host.card_restarts > 0).then_some(RESTARTER);
    [SUPERVISOR, CONSOLE, VMM].into_iter().chain(card).chain(restarter).collect()
}

/// The text of `bundle.toml` for these guests on such a host.
///
/// # Errors
/// Never in practice.
pub fn plan(guests: &[Guest], host: Host) -> Result<String> {
    let cpus = host.cpus;
    let card = devices::any(guests).then(|| Domain {
        name: CARD,
        program: CARD,
        arguments: if host.card_poll_us > 0 { format!("poll_us={}", host.card_poll_us) } else { String::new() },
        memory: format!("{}KiB", memory_of_card(guests) / 1024),
        priority: CARD_PRIORITY,
        max_priority: CARD_PRIORITY,
        cpus: Cow::Owned(vec![cpus.saturating_sub(1)]),
        grants: &["log", "figures", "bundle", "dma"],
        provide: &[CARD],
        use_gates: &[CONSOLE],
        essential: false,
        restarts: CARD_RESTARTS,
        restart: &[],
        keep: format!("{}KiB", guests.len() as u64 * KEPT_BY_CARD / 1024),
        ports: &[],
        interrupts: &[],
        pci: &CARD_FUNCTIONS,
    });
    let has_card = card.is_some();
    let restarter = (host.card_restarts > 0).then(|| Domain {
        name: RESTARTER,
        program: RESTARTER,
        arguments: format!("times={}", host.card_restarts),
        memory: "4MiB".into(),
        priority: RESTARTER_PRIORITY,
        max_priority: RESTARTER_PRIORITY,
        cpus: Cow::Owned(vec![0]),
        grants: &["log"],
        provide: &[],
        use_gates: &[],
        essential: false,
        restarts: 0,
        restart: &[CARD],
        keep: String::new(),
        ports: &[],
        interrupts: &[],
        pci: &[],
    });
    let console = Domain {
        name: CONSOLE,
        program: CONSOLE,
        arguments: String::new(),
        memory: "4MiB".into(),
        priority: CONSOLE_PRIORITY,
        max_priority: CONSOLE_PRIORITY,
        cpus: Cow::Borrowed(&[]),
        grants: &["log"],
        provide: &[CONSOLE],
        use_gates: &[],
        essential: false,
        restarts: 0,
        restart: &[],
        keep: String::new(),
        ports: &CONSOLE_PORTS,
        interrupts: &CONSOLE_INTERRUPTS,
        pci: &[],
    };
    let vmms = guests.iter().enumerate().map(|(number, Guest { machine, .. })| Domain {
        name: &machine.name,
        program: VMM,
        arguments: format!("machine={number}"),
        memory: format!("{}KiB", memory_of_vmm(machine.memory) / 1024),
        priority: machine.priority,
        max_priority: machine.priority.saturating_add(1).min(HIGHEST_PRIORITY),
        cpus: if has_card && machine.cpus.is_empty() {
            (0..cpus.saturating_sub(1)).collect()
        } else {
            Cow::Borrowed(&machine.cpus)
        },
        grants: &["log", "figures", "bundle"],
        provide: &[],
        use_gates: if machine.card_devices().is_some() { &[CONSOLE, CARD] } else { &[CONSOLE] },
        essential: true,
        restarts: 0,
        restart: &[],
        keep: String::new(),
        ports: &[],
        interrupts: &[],
        pci: &[],
    });
    toml::to_string(&Plan { domain: std::iter::once(console).chain(card).chain(vmms).chain(restarter).collect() })
        .context("cannot write bundle.toml")
}

/// Memory of a VMM whose guest has so much, in bytes.
#[must_use]
pub fn memory_of_vmm(guest: u64) -> u64 {
    (guest + guest / TABLES_PART + VMM_MEMORY).next_multiple_of(PAGE_SIZE)
}

/// Memory of the card that serves these guests, in bytes; none if they have no devices.
#[must_use]
pub fn memory_of_card(guests: &[Guest]) -> u64 {
    let disks: u64 = guests.iter().map(|guest| guest.devices.ram).sum();
    if devices::any(guests) { (CARD_MEMORY + disks).next_multiple_of(PAGE_SIZE) } else { 0 }
}

/// Packs the archive for such a host; `programs` are pairs of name and ELF file.
///
/// # Errors
/// Fails when a program cannot be read, or a file is too large for the archive.
pub fn archive(guests: &[Guest], host: Host, programs: &[(String, PathBuf)]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.file("bundle.toml", plan(guests, host)?.as_bytes())?;
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
    use crate::{build::cpio::entries, guest::devices::Devices};

    fn guest(name: &str, more: &str) -> Guest {
        let text = format!("name = \"{name}\"\nkernel = \"k\"\n{more}\n");
        let machine = MachineFile::parse("m.toml", &text).unwrap();
        Guest {
            machine,
            text,
            files: vec![("k".into(), b"kernel".to_vec())],
            source: None,
            devices: Devices { ram: if more.contains("size") { 64 << 20 } else { 0 }, ..Devices::default() },
        }
    }

    /// As `archive` makes it, with programs that are no ELF files.
    fn bundle(guests: &[Guest]) -> Vec<u8> {
        let mut whole = Archive::new();
        for (name, _, contents) in entries(&archive(guests, 4.into(), &[]).unwrap()) {
            whole.file(&name, &contents).unwrap();
        }
        programs(guests, 4.into()).iter().for_each(|name| whole.file(name, b"ELF").unwrap());
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
    fn guests_with_devices_have_a_card_with_a_cpu_of_its_own() {
        let bytes = bundle(&[guest("a", "[[disk]]\nname = \"d\"\nsize = \"64MiB\""), guest("b", "cpus = [1]")]);
        let bundle = Bundle::open(&bytes).unwrap();
        let [_, card, a, b] = &bundle.plan().domains[..] else { panic!("four domains") };
        assert_eq!((card.program.as_str(), card.essential, card.memory), ("card", false, (64 << 20) + CARD_MEMORY));
        assert_eq!((card.cpus, a.cpus, b.cpus, card.arguments.as_str()), (0b1000, 0b0111, 0b0010, ""));
        assert_eq!((&card.provide[..], card.pci.len()), (&["card".to_string()][..], 2));
        assert!(a.use_gates.contains(&"card".to_string()) && !b.use_gates.contains(&"card".to_string()));
    }

    #[test]
    fn a_card_that_is_to_look_at_rings_is_told_for_how_long() {
        let guests = [guest("a", "[[net]]\nname = \"n\"")];
        let plan = plan(&guests, Host { card_poll_us: 50, ..4.into() }).unwrap();
        assert!(plan.contains("arguments = \"poll_us=50\""), "{plan}");
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
