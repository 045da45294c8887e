//! What guests run together, and what they must do.

use std::path::Path;

use self::Script::{
    Beside, Caller, Crash, Devices, Exhaust, Guarded, Journal, Load, Peers, Queues, Reboot, SmallDevices, Work,
};
use super::{
    bare::{self, BareGuest},
    outside::Ports,
    tables,
};
use crate::{
    cli::Emulator,
    guest::stream::GuestEnd,
    tools::guests::GuestLinux::{self, Debian12, Debian12Cloud, Debian13, Debian13Cloud},
};

/// One boot of an emulator with guests in it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Emulator.
    pub emulator: Emulator,
    /// Number of the host's CPUs.
    pub cpus: u32,
    /// The guests.
    pub guests: &'static [LinuxGuest],
    /// Guests without an operating system beside them.
    pub bare: &'static [BareGuest],
    /// Seconds of wall time after which it is given up; sooner, after a quarter of them, if nobody says anything.
    pub at_most_s: u64,
    /// How often the card is started anew meanwhile.
    pub card_restarts: u32,
    /// Whether there are servers behind the uplink: one that sends back what it is sent, and iperf3.
    pub has_echo: bool,
    /// Whether the guests' disks are in [`media`](super::media).
    pub has_media: bool,
}

/// A Linux guest with Debian's kernel.
#[derive(Clone, Copy, Debug)]
pub struct LinuxGuest {
    /// Its name, and that of its console's lines.
    pub name: &'static str,
    /// Its kernel.
    pub linux: GuestLinux,
    /// Where its programs are.
    pub system: System,
    /// Tables of its machine file: devices of the card's.
    pub tables: &'static str,
    /// Whether it is under rules that the host changes when it is asked to.
    pub has_rules: bool,
    /// Seconds that it is to be at work, for the script that asks.
    pub seconds: u32,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// What its first program runs.
    pub script: Script,
    /// How often it starts, by rebooting itself.
    pub boots: usize,
}

/// Where a guest's programs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// In the initial RAM disk.
    Memory,
    /// On the disk that guests of `run` have.
    Disk,
}

/// A script in `tests/guests/linux`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// Makes each part of the machine work.
    Work,
    /// Asks whether to reboot.
    Reboot,
    /// Crashes the kernel.
    Crash,
    /// Uses up the memory.
    Exhaust,
    /// Uses disks and networks of the card's.
    Devices,
    /// The same in the small system in memory.
    SmallDevices,
    /// Talks with another guest.
    Peers,
    /// Keeps disk and network of the card's busy for the seconds that the word `df.seconds` says.
    Load,
    /// Is guarded by security groups, and holds the limits of its disks to what they are.
    Guarded,
    /// Tries what security groups, its own identity and limits allow.
    Caller,
    /// Keeps all queues of a network device and a disk busy.
    Queues,
    /// Uses disk and network beside a guest whose driver lies.
    Beside,
    /// Keeps a journal, whose records it reports as safe.
    Journal,
}

impl Script {
    /// Its file's name without `.sh`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Reboot => "reboot",
            Self::Crash => "crash",
            Self::Exhaust => "exhaust",
            Self::Devices => "devices",
            Self::SmallDevices => "small-devices",
            Self::Peers => "peers",
            Self::Load => "load",
            Self::Guarded => "guarded",
            Self::Caller => "caller",
            Self::Queues => "queues",
            Self::Beside => "beside",
            Self::Journal => "journal",
        }
    }

    /// The checks that it makes in each boot.
    #[must_use]
    pub fn checks(self) -> &'static [&'static str] {
        match self {
            Self::Work => &[
                "forks and pipes",
                "sort",
                "files",
                "all CPUs",
                "stolen time",
                "clock across CPUs",
                "sleep",
                "interrupts",
                "clock source",
                "kernel messages",
            ],
            Self::Reboot => &["clock source", "kernel messages"],
            Self::Crash => &["crash"],
            Self::Exhaust => &["exhaust"],
            Self::Devices => &[
                "root is on the disk",
                "address",
                "name",
                "gateway",
                "names",
                "fio on a disk in memory",
                "fio on a disk of the machine",
                "fio on an encrypted disk",
                "fio on a volume",
                "contents of a snapshot",
                "fio on a disk with snapshots",
                "fio on a limited disk",
                "new file systems",
                "a snapshot stays as it was",
                "a limited disk",
                "a slow disk keeps nobody waiting",
                "discard",
                "random numbers",
                "clock source",
                "kernel messages",
                "a read-only disk",
            ],
            Self::SmallDevices => &[
                "the disk is found",
                "it is as described",
                "what is written is read",
                "each round is whole",
                "what is discarded is gone",
                "address",
            ],
            Self::Peers => &[
                "the other answers",
                "iperf3",
                "sockets",
                "ports",
                "console",
                "a change of rules under traffic",
                "kernel messages",
            ],
            Self::Load => &[
                "each round is whole",
                "connections outlive the card",
                "the gateway answers in the end",
                "rules stay as they were changed",
                "a pair receives what is steered to it",
                "the next card has the driver announce itself",
                "a link that is down stays so",
                "a link goes up",
                "a card that hangs is replaced",
                "kernel messages",
            ],
            Self::Beside => &["each round is whole", "slowed down within bounds", "kernel messages"],
            Self::Journal => &["the file system is in order"],
            Self::Queues => &[
                "pairs of queues",
                "each pair sends",
                "each pair receives",
                "each pair interrupts",
                "pairs receive what is steered to them",
                "a job for each CPU",
                "each queue of the disk interrupts",
                "transfers between guests",
                "transfers through the uplink",
                "ping through the uplink",
                "iperf3 through the uplink",
            ],
            Self::Guarded => &["callers", "limits of disks", "kernel messages"],
            Self::Caller => {
                &["rules", "answers", "errors", "anti-spoofing", "limit of what is sent", "kernel messages"]
            }
        }
    }

    /// Whether it shows the kernel's messages that tell of trouble.
    #[must_use]
    pub fn shows_messages(self) -> bool {
        self.checks().contains(&"kernel messages")
    }

    /// How the guest comes to its end.
    #[must_use]
    pub fn end(self) -> GuestEnd {
        match self {
            // Its kernel resets by a triple fault.
            Self::Crash => GuestEnd::Crashed,
            // Exhaust asks for a reboot, which its machine file takes for power-off.
            _ => GuestEnd::PoweredOff,
        }
    }

    /// Whether the kernel is to be well until the end.
    #[must_use]
    pub fn ends_well(self) -> bool {
        !matches!(self, Self::Crash | Self::Exhaust)
    }

    /// Words for the kernel's command line.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Crash => " panic=-1 reboot=t",
            Self::Exhaust => " panic=-1",
            _ => "",
        }
    }
}

impl LinuxGuest {
    /// The machine file, with the image of the disk that the system is on, and the ports of the servers behind the uplink.
    #[must_use]
    pub fn machine_file(&self, image: Option<&Path>, ports: Option<Ports>) -> String {
        let Self { name, vcpus, script, tables, seconds, .. } = self;
        let mut words = if *seconds > 0 { format!(" df.seconds={seconds}") } else { String::new() };
        if let Some(Ports { echo, iperf }) = ports {
            words.push_str(&format!(" df.port={echo} df.iperf={iperf}"));
        }
        let tables = if self.has_rules { tables::under_rules(tables) } else { (*tables).into() };
        let (root, disk) = match image {
            Some(path) => (" root=/dev/vda", format!("[[disk]]\nname = \"root\"\nimage = \"{}\"\n", path.display())),
            None => ("", String::new()),
        };
        let on_reboot = if *script == Reboot { "reboot" } else { "power-off" };
        format!(
            "name = \"{name}\"\nvcpus = {vcpus}\nmemory = \"256MiB\"\nkernel = \"{KERNEL}\"\ninitrd = \"{INITRD}\"\n\
             cmdline = \"console=ttyS0 quiet hostname={name} df.run={}{}{words}{root}\"\non_reboot = \"{on_reboot}\"\n{disk}{tables}",
            script.name(),
            script.words(),
        )
    }
}

/// What machine files call the kernel.
pub const KERNEL: &str = "vmlinuz";
/// What machine files call the initial RAM disk.
pub const INITRD: &str = "initramfs";

const fn guest(name: &'static str, linux: GuestLinux, vcpus: u32, script: Script) -> LinuxGuest {
    LinuxGuest {
        name,
        linux,
        system: System::Memory,
        tables: "",
        has_rules: false,
        seconds: 0,
        vcpus,
        script,
        boots: 1,
    }
}

const fn qemu(guests: &'static [LinuxGuest]) -> Scenario {
    Scenario {
        emulator: Emulator::Qemu,
        cpus: 2,
        guests,
        bare: &[],
        at_most_s: 1200,
        card_restarts: 0,
        has_echo: false,
        has_media: false,
    }
}

const fn bochs(guests: &'static [LinuxGuest]) -> Scenario {
    Scenario {
        emulator: Emulator::Bochs,
        cpus: 1,
        guests,
        bare: &[],
        at_most_s: 1800,
        card_restarts: 0,
        has_echo: false,
        has_media: false,
    }
}

/// The default guest.
pub const DEBIAN_12: Scenario = qemu(&[guest("debian", Debian12Cloud, 2, Work)]);
/// Boots in a row.
pub const BOOTS: Scenario = qemu(&[LinuxGuest { boots: 5, ..guest("debian", Debian12Cloud, 1, Reboot) }]);
/// Neighbours that come to grief.
pub const NEIGHBOURS: Scenario = qemu(&[
    guest("worker", Debian12Cloud, 1, Work),
    guest("crasher", Debian12Cloud, 1, Crash),
    guest("glutton", Debian12Cloud, 1, Exhaust),
    LinuxGuest { boots: 2, ..guest("rebooter", Debian12Cloud, 1, Reboot) },
]);
/// More vCPUs than the host has CPUs.
pub const OVERCOMMITTED: Scenario = qemu(&[guest("debian", Debian12Cloud, 4, Work)]);
/// The newer kernel.
pub const DEBIAN_13: Scenario = qemu(&[guest("debian", Debian13Cloud, 2, Work)]);

const fn on_disk(name: &'static str, vcpus: u32, tables: &'static str, script: Script) -> LinuxGuest {
    LinuxGuest { system: System::Disk, tables, ..guest(name, Debian12Cloud, vcpus, script) }
}

/// The default guest of `run` at work on the card's devices.
pub const DEVICES: Scenario =
    Scenario { cpus: 3, has_media: true, ..qemu(&[on_disk("debian", 2, tables::ALL, Devices)]) };
/// Two of them.
pub const PEERS: Scenario = Scenario {
    cpus: 3,
    ..qemu(&[
        on_disk("one", 1, tables::PEER_WITH_CONSOLE, Peers),
        LinuxGuest { has_rules: true, ..on_disk("two", 1, tables::PEER, Peers) },
    ])
};
/// A guest that security groups guard, and two that call it.
pub const SECURITY: Scenario = Scenario {
    cpus: 4,
    ..qemu(&[
        on_disk("guarded", 1, tables::GUARDED, Guarded),
        on_disk("friend", 1, tables::FRIEND, Caller),
        on_disk("stranger", 1, tables::STRANGER, Caller),
    ])
};
/// A guest beside one whose driver lies to the card.
pub const HOSTILE_DRIVER: Scenario =
    Scenario { cpus: 3, bare: &[bare::HOSTILE_DRIVER], ..qemu(&[on_disk("debian", 1, tables::NET, Beside)]) };
/// Two guests with many queues.
pub const QUEUES: Scenario = Scenario {
    cpus: 3,
    has_echo: true,
    ..qemu(&[on_disk("one", 4, tables::QUEUES_8, Queues), on_disk("two", 2, tables::QUEUES_2, Queues)])
};
/// A guest that loses its power.
pub const POWER_CUT: Scenario = Scenario { cpus: 3, ..qemu(&[on_disk("debian", 1, tables::JOURNAL, Journal)]) };

const fn loaded(seconds: u32) -> LinuxGuest {
    LinuxGuest { seconds, has_rules: true, ..on_disk("debian", 2, tables::NET_2, Load) }
}

/// A guest whose card is started anew, five times in some 20 seconds.
pub const CARD_RESTARTS: Scenario = Scenario { cpus: 3, card_restarts: 5, has_echo: true, ..qemu(&[loaded(30)]) };
/// The same a hundred times.
pub const CARD_RESTARTS_100: Scenario =
    Scenario { cpus: 3, card_restarts: 100, has_echo: true, at_most_s: 1800, ..qemu(&[loaded(400)]) };
/// The card on VT-x.
pub const BOCHS_DEVICES: Scenario = Scenario {
    cpus: 2,
    ..bochs(&[LinuxGuest { tables: tables::SMALL, ..guest("debian", Debian12Cloud, 1, SmallDevices) }])
};

/// Debian 12 in Bochs.
pub const BOCHS: Scenario = bochs(&[guest("debian", Debian12Cloud, 1, Work)]);
/// The same with two vCPUs.
pub const BOCHS_2: Scenario = bochs(&[guest("debian", Debian12Cloud, 2, Work)]);
/// On two CPUs, with which Bochs at times goes on with a guest at a wrong instruction.
pub const BOCHS_2_CPUS: Scenario = Scenario { cpus: 2, ..BOCHS_2 };

/// Fifty boots in a row.
pub const BOOTS_50: Scenario =
    Scenario { at_most_s: 1800, ..qemu(&[LinuxGuest { boots: 50, ..guest("debian", Debian12Cloud, 2, Reboot) }]) };
/// Debian 12's kernel for virtual machines, alone.
pub const DEBIAN_12_1: Scenario = qemu(&[guest("debian", Debian12Cloud, 1, Work)]);
/// The newer kernel, alone.
pub const DEBIAN_13_1: Scenario = qemu(&[guest("debian", Debian13Cloud, 1, Work)]);
/// The newer kernel, more vCPUs than CPUs.
pub const DEBIAN_13_4: Scenario = qemu(&[guest("debian", Debian13Cloud, 4, Work)]);
/// Debian 12's kernel for all machines.
pub const GENERIC_12_1: Scenario = qemu(&[guest("debian", Debian12, 1, Work)]);
/// The same, two vCPUs.
pub const GENERIC_12_2: Scenario = qemu(&[guest("debian", Debian12, 2, Work)]);
/// The same, more vCPUs than CPUs.
pub const GENERIC_12_4: Scenario = qemu(&[guest("debian", Debian12, 4, Work)]);
/// Debian 13's kernel for all machines.
pub const GENERIC_13_1: Scenario = qemu(&[guest("debian", Debian13, 1, Work)]);
/// The same, two vCPUs.
pub const GENERIC_13_2: Scenario = qemu(&[guest("debian", Debian13, 2, Work)]);
/// The same, more vCPUs than CPUs.
pub const GENERIC_13_4: Scenario = qemu(&[guest("debian", Debian13, 4, Work)]);

#[cfg(test)]
mod tests {
    use std::fs;

    use dragonfly_machine_file::{MachineFile, OnReboot};

    use super::*;

    #[test]
    fn machine_files_say_what_the_table_says() {
        let crasher =
            MachineFile::parse("m.toml", &guest("a", Debian12Cloud, 3, Crash).machine_file(None, None)).unwrap();
        assert_eq!((crasher.name.as_str(), crasher.vcpus, crasher.on_reboot), ("a", 3, OnReboot::PowerOff));
        assert!(crasher.cmdline.ends_with("df.run=crash panic=-1 reboot=t"), "{}", crasher.cmdline);
        let rebooter =
            MachineFile::parse("m.toml", &guest("b", Debian12Cloud, 1, Reboot).machine_file(None, None)).unwrap();
        assert_eq!(rebooter.on_reboot, OnReboot::Reboot);
        let on_disk = MachineFile::parse(
            "m.toml",
            &DEVICES.guests[0].machine_file(Some(Path::new("/i.img")), Some(Ports { echo: 9, iperf: 5201 })),
        )
        .unwrap();
        assert_eq!((on_disk.disks, on_disk.nets), (9, 1));
        assert!(
            on_disk.cmdline.ends_with("df.run=devices df.port=9 df.iperf=5201 root=/dev/vda"),
            "{}",
            on_disk.cmdline
        );
    }

    #[test]
    fn each_script_makes_the_checks_that_the_table_expects() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/linux");
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        for script in
            [Work, Reboot, Crash, Exhaust, Devices, SmallDevices, Peers, Load, Guarded, Caller, Queues, Beside, Journal]
        {
            let own = format!("{}.sh", script.name());
            let mut text = ["check.sh", "card.sh", "random.sh", "disks.sh", &own].map(read).concat();
            // Programs that scripts call.
            text.extend(["guarded.pl", "caller.pl", "disk-limits.pl"].map(read));
            for check in script.checks() {
                let says = ["ok", "verify"].iter().any(|word| text.contains(&format!("{word} \"{check}\"")));
                assert!(says, "{check} in {}", script.name());
            }
        }
    }
}
