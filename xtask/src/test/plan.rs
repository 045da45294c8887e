//! The table of stages: what is tested, at which level, on which machine.

use std::time::Duration;

use super::{
    card::Devices,
    guests::{
        bare::{self, BareScenario},
        scenario::{self, Scenario},
    },
    work::{BootWork, Clock, HostWork, Subject, Work},
};
use crate::{
    cli::{Emulator, Emulators, Firmware},
    emulator::Limits,
};

/// How much is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// At most five minutes.
    Quick,
    /// What must pass before a change is kept.
    Whole,
    /// Everything in full length.
    Soak,
}

impl Level {
    /// The word for the kernel command line's `test.level`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Whole => "whole",
            Self::Soak => "soak",
        }
    }

    /// Seconds for each fuzz target.
    #[must_use]
    pub fn fuzz_seconds(self) -> u64 {
        match self {
            Self::Quick => 2,
            Self::Whole => 20,
            Self::Soak => 1800,
        }
    }

    /// When a boot is given up. A test that has said nothing for the time of silence hangs.
    #[must_use]
    pub fn boot_limits(self) -> Limits {
        let (total, silence) = match self {
            Self::Quick => (900, 120),
            Self::Whole => (1200, 240),
            Self::Soak => (6 * 3600, 3600),
        };
        Limits { total: Some(Duration::from_secs(total)), silence: Some(Duration::from_secs(silence)) }
    }

    /// When a host command is given up.
    #[must_use]
    pub fn command_limit(self) -> Duration {
        match self {
            Self::Quick | Self::Whole => Duration::from_secs(30 * 60),
            Self::Soak => Duration::from_secs(6 * 3600),
        }
    }
}

/// One stage.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Name, as shown and as selected by.
    pub name: &'static str,
    /// What it does, for `--list`.
    pub about: &'static str,
    /// The smallest level that it belongs to.
    pub from: Level,
    /// What it does.
    pub work: Work,
}

const fn host(name: &'static str, about: &'static str, from: Level, work: HostWork) -> Stage {
    Stage { name, about, from, work: Work::Host(work) }
}

const fn boot(name: &'static str, about: &'static str, from: Level, work: BootWork) -> Stage {
    Stage { name, about, from, work: Work::Boot(work) }
}

const fn guests(name: &'static str, about: &'static str, from: Level, scenario: &'static Scenario) -> Stage {
    Stage { name, about, from, work: Work::Guests(scenario) }
}

const fn bare(name: &'static str, about: &'static str, from: Level, scenario: &'static BareScenario) -> Stage {
    Stage { name, about, from, work: Work::BareGuests(scenario) }
}

const QEMU: BootWork = BootWork {
    emulator: Emulator::Qemu,
    cpus: 1,
    firmware: Firmware::Bios,
    clock: Clock::Exact,
    subject: Subject::Everything,
};
const BOCHS: BootWork = BootWork { emulator: Emulator::Bochs, ..QEMU };

/// All stages. Those of a kind begin in this order: commands on the host, boots of the test domain, machines whose time is
/// that of instructions, others.
pub const STAGES: &[Stage] = &[
    host("format", "cargo fmt --check", Level::Quick, HostWork::Format),
    host("host", "unit and property tests of every crate", Level::Quick, HostWork::Tests),
    host("fuzz", "mutated input for every parser of foreign bytes", Level::Quick, HostWork::Fuzz),
    host("doc", "examples in the documentation", Level::Whole, HostWork::DocTests),
    host("lint-host", "clippy, warnings denied, host", Level::Whole, HostWork::LintHost),
    host("lint-bare", "clippy, warnings denied, bare target", Level::Whole, HostWork::LintBare),
    host("loom", "every interleaving of locks and queues", Level::Whole, HostWork::Loom),
    host("miri", "undefined behaviour in unsafe code", Level::Whole, HostWork::Miri),
    host(
        "card-network",
        "the card's way out and tunnels, with Linux and Open vSwitch, in network namespaces",
        Level::Whole,
        HostWork::Network,
    ),
    boot("qemu-2cpu", "kernel tests, QEMU", Level::Quick, BootWork { cpus: 2, ..QEMU }),
    boot("bochs-1cpu", "kernel tests, Bochs", Level::Quick, BOCHS),
    boot(
        "supervisor",
        "tests of the supervisor and the runtime, QEMU",
        Level::Quick,
        BootWork { cpus: 2, subject: Subject::Supervisor, ..QEMU },
    ),
    boot(
        "qemu-devices",
        "the card's drivers on virtio devices, QEMU",
        Level::Quick,
        BootWork { cpus: 2, clock: Clock::Wall, subject: Subject::Devices, ..QEMU },
    ),
    boot(
        "card-domain",
        "tests of the card as a domain, without guests, QEMU",
        Level::Quick,
        BootWork { cpus: 2, subject: Subject::Card, ..QEMU },
    ),
    boot("bochs-2cpu", "kernel tests, Bochs", Level::Whole, BootWork { cpus: 2, ..BOCHS }),
    boot("qemu-1cpu", "kernel tests, QEMU", Level::Whole, QEMU),
    boot("qemu-4cpu", "kernel tests, QEMU", Level::Whole, BootWork { cpus: 4, ..QEMU }),
    boot(
        "qemu-4cpu-parallel",
        "kernel tests, QEMU, CPUs truly at the same time",
        // Time-outs of its tests are of the host's clock: it wants a machine of its own.
        Level::Soak,
        BootWork { cpus: 4, clock: Clock::Wall, ..QEMU },
    ),
    // OVMF gives up a read of the CD when an idle machine's time runs ahead of the host's disk.
    boot(
        "qemu-uefi",
        "boot by UEFI, QEMU",
        Level::Whole,
        BootWork { cpus: 2, firmware: Firmware::Uefi, clock: Clock::Wall, subject: Subject::Boot, ..QEMU },
    ),
    boot("qemu-8cpu", "boot with 8 CPUs, QEMU", Level::Whole, BootWork { cpus: 8, subject: Subject::Boot, ..QEMU }),
    boot("bochs-4cpu", "boot with 4 CPUs, Bochs", Level::Whole, BootWork { cpus: 4, subject: Subject::Boot, ..BOCHS }),
    boot(
        "bochs-dirty-log",
        "pages that guests write, by the processor's log, Bochs",
        Level::Whole,
        BootWork { cpus: 2, subject: Subject::DirtyLog("vmx.pml=on"), ..BOCHS },
    ),
    boot(
        "bochs-dirty-flags",
        "pages that guests write, by dirty flags alone, Bochs",
        Level::Whole,
        BootWork { cpus: 2, subject: Subject::DirtyLog("vmx.pml=off"), ..BOCHS },
    ),
    boot(
        "bochs-dirty-faults",
        "pages that guests write, by what faults, Bochs",
        Level::Soak,
        BootWork { cpus: 2, subject: Subject::DirtyLog("vmx.ept-ad=off"), ..BOCHS },
    ),
    boot("qemu-panic", "a kernel panic, QEMU", Level::Whole, BootWork { cpus: 2, subject: Subject::Panic, ..QEMU }),
    boot("bochs-panic", "a kernel panic, Bochs", Level::Whole, BootWork { subject: Subject::Panic, ..BOCHS }),
    Stage {
        name: "bench-qemu",
        about: "figures repeat exactly and meet their goals, QEMU",
        from: Level::Whole,
        work: Work::Bench(Emulator::Qemu),
    },
    Stage {
        name: "bench-exits-qemu",
        about: "exits of virtual machines have not become dearer and meet their goals, QEMU",
        from: Level::Whole,
        work: Work::Exits(Emulator::Qemu),
    },
    Stage {
        name: "bench-card-requests",
        about: "a card that is awake causes its guests no exits, and requests have not become dearer, QEMU",
        from: Level::Whole,
        work: Work::Requests,
    },
    Stage {
        name: "bench-requests-kvm",
        about: "requests to the card cost no more than on KVM with vhost-net and QEMU's disk, QEMU",
        from: Level::Soak,
        work: Work::RequestsOnKvm,
    },
    bare("qemu-conformance-2vcpu", "the machine from inside, QEMU", Level::Quick, &bare::CONFORMANCE_2),
    bare("qemu-conformance-1vcpu", "the machine from inside, QEMU", Level::Whole, &bare::CONFORMANCE_1),
    bare("qemu-conformance-4vcpu", "more vCPUs than CPUs from inside, QEMU", Level::Whole, &bare::CONFORMANCE_4),
    bare("bochs-conformance-1vcpu", "the machine from inside, Bochs", Level::Whole, &bare::BOCHS_CONFORMANCE_1),
    bare("bochs-conformance-bare", "without what VT-x may lack, Bochs", Level::Whole, &bare::BOCHS_BARE),
    bare("qemu-reset", "a guest that resets its machine, QEMU", Level::Whole, &bare::RESET),
    bare("qemu-hostile", "attackers beside a neighbour, QEMU", Level::Whole, &bare::HOSTILITY),
    guests("linux-2vcpu", "Debian 12 at work, QEMU", Level::Quick, &scenario::DEBIAN_12),
    guests("linux-boots", "Debian 12, five boots in a row, QEMU", Level::Whole, &scenario::BOOTS),
    guests("linux-neighbours", "Debian 12 beside a crash and an exhaustion, QEMU", Level::Whole, &scenario::NEIGHBOURS),
    guests("linux-4vcpu", "Debian 12, more vCPUs than CPUs, QEMU", Level::Whole, &scenario::OVERCOMMITTED),
    guests("linux13-2vcpu", "Debian 13 at work, QEMU", Level::Whole, &scenario::DEBIAN_13),
    guests("linux-devices", "Debian 12 on the card's disk and network, QEMU", Level::Whole, &scenario::DEVICES),
    guests("linux-peers", "two guests on the card's network, QEMU", Level::Whole, &scenario::PEERS),
    guests("linux-security", "groups, identities and limits of guests, QEMU", Level::Soak, &scenario::SECURITY),
    guests("linux-queues", "all queues and offloads of two guests, QEMU", Level::Whole, &scenario::QUEUES),
    guests(
        "linux-hostile-driver",
        "a guest beside one whose driver lies, QEMU",
        Level::Whole,
        &scenario::HOSTILE_DRIVER,
    ),
    Stage {
        name: "card-qemu",
        about: "a disk of the card's process in QEMU",
        from: Level::Whole,
        work: Work::Card(Devices::Disks),
    },
    Stage {
        name: "card-qemu-network",
        about: "networks of the card's process in QEMU",
        from: Level::Whole,
        work: Work::Card(Devices::Networks),
    },
    Stage {
        name: "card-dpdk",
        about: "networks of the card's process under DPDK",
        from: Level::Whole,
        work: Work::CardUnderDpdk,
    },
    Stage { name: "run-status", about: "exit status of `cargo xtask run`", from: Level::Whole, work: Work::RunStatus },
    Stage { name: "run-access", about: "`cargo xtask run`, entered by SSH", from: Level::Whole, work: Work::RunAccess },
    guests("linux-restarts-100", "the same a hundred times, QEMU", Level::Soak, &scenario::CARD_RESTARTS_100),
    guests("linux-1vcpu", "Debian 12 at work, QEMU", Level::Soak, &scenario::DEBIAN_12_1),
    guests("linux-50-boots", "Debian 12, fifty boots in a row, QEMU", Level::Soak, &scenario::BOOTS_50),
    guests("linux13-1vcpu", "Debian 13 at work, QEMU", Level::Soak, &scenario::DEBIAN_13_1),
    guests("linux13-4vcpu", "Debian 13, more vCPUs than CPUs, QEMU", Level::Soak, &scenario::DEBIAN_13_4),
    guests("generic-1vcpu", "Debian 12's generic kernel, QEMU", Level::Soak, &scenario::GENERIC_12_1),
    guests("generic-2vcpu", "Debian 12's generic kernel, QEMU", Level::Soak, &scenario::GENERIC_12_2),
    guests("generic-4vcpu", "Debian 12's generic kernel, QEMU", Level::Soak, &scenario::GENERIC_12_4),
    guests("generic13-1vcpu", "Debian 13's generic kernel, QEMU", Level::Soak, &scenario::GENERIC_13_1),
    guests("generic13-2vcpu", "Debian 13's generic kernel, QEMU", Level::Soak, &scenario::GENERIC_13_2),
    guests("generic13-4vcpu", "Debian 13's generic kernel, QEMU", Level::Soak, &scenario::GENERIC_13_4),
    guests("bochs-linux-1vcpu", "Debian 12 at work, Bochs", Level::Whole, &scenario::BOCHS),
    guests("bochs-linux-2vcpu", "Debian 12 at work, Bochs", Level::Whole, &scenario::BOCHS_2),
    guests("bochs-linux-2cpu", "Debian 12 on two CPUs, Bochs", Level::Soak, &scenario::BOCHS_2_CPUS),
    Stage {
        name: "linux-power-cut",
        about: "what Debian's disk holds after a power cut, QEMU",
        from: Level::Whole,
        work: Work::PowerCut(1),
    },
    Stage {
        name: "linux-power-cut-20",
        about: "the same twenty times in a row, QEMU",
        from: Level::Soak,
        work: Work::PowerCut(20),
    },
    guests("linux-restarts", "a card that is started anew under load, QEMU", Level::Whole, &scenario::CARD_RESTARTS),
    guests("bochs-devices", "the card's disk and network on VT-x, Bochs", Level::Whole, &scenario::BOCHS_DEVICES),
    bare("bochs-conformance-2vcpu", "the machine from inside, Bochs", Level::Soak, &bare::BOCHS_CONFORMANCE_2),
    bare("bochs-without-vpid", "address spaces without tags, Bochs", Level::Soak, &bare::BOCHS_WITHOUT_VPID),
    bare("bochs-without-ad", "no accessed and dirty flags, Bochs", Level::Soak, &bare::BOCHS_WITHOUT_AD),
    bare("bochs-without-1g", "no pages of 1 GiB, Bochs", Level::Soak, &bare::BOCHS_WITHOUT_1G),
    bare("bochs-without-2m", "pages of 4 KiB only, Bochs", Level::Soak, &bare::BOCHS_WITHOUT_2M),
    bare("bochs-without-ple", "no exits of loops that wait, Bochs", Level::Soak, &bare::BOCHS_WITHOUT_PLE),
    bare("bochs-without-timer", "no preemption timer, Bochs", Level::Soak, &bare::BOCHS_WITHOUT_TIMER),
    bare("bochs-vid", "interrupts that the processor delivers, Bochs", Level::Soak, &bare::BOCHS_VID),
    bare(
        "bochs-vid-without-apic-registers",
        "reads of the APIC by exits, Bochs",
        Level::Soak,
        &bare::BOCHS_WITHOUT_APIC_REGISTERS,
    ),
    bare("bochs-vid-without-posted", "no posted interrupts, Bochs", Level::Soak, &bare::BOCHS_WITHOUT_POSTED),
    bare("bochs-hostile", "attackers beside a neighbour, Bochs", Level::Whole, &bare::BOCHS_HOSTILITY),
    bare("qemu-hostile-long", "a million attacks beside a neighbour, QEMU", Level::Soak, &bare::HOSTILITY_LONG),
    bare("bochs-hostile-long", "100,000 attacks beside a neighbour, Bochs", Level::Soak, &bare::BOCHS_HOSTILITY_LONG),
];

/// The stages of a level in these emulators, and those of other levels that are called by their `names`.
pub fn stages<'a>(
    level: Level,
    emulators: Emulators,
    names: &'a [String],
) -> impl Iterator<Item = &'static Stage> + use<'a> {
    let is_wanted = move |emulator| match emulators {
        Emulators::All => true,
        Emulators::Qemu => emulator == Emulator::Qemu,
        Emulators::Bochs => emulator == Emulator::Bochs,
    };
    let is_called = |stage: &Stage| names.iter().any(|name| name.split('/').next() == Some(stage.name));
    STAGES.iter().filter(move |stage| stage.from <= level || is_called(stage)).filter(move |stage| match stage.work {
        Work::Host(_) => true,
        Work::Boot(BootWork { emulator, .. }) | Work::Bench(emulator) | Work::Exits(emulator) => is_wanted(emulator),
        Work::Guests(scenario) => is_wanted(scenario.emulator),
        Work::BareGuests(scenario) => is_wanted(scenario.emulator),
        Work::CardUnderDpdk => true,
        Work::Requests
        | Work::RequestsOnKvm
        | Work::Card(_)
        | Work::PowerCut(_)
        | Work::RunStatus
        | Work::RunAccess => is_wanted(Emulator::Qemu),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_holds_the_one_below() {
        let names = |level| stages(level, Emulators::All, &[]).map(|stage| stage.name).collect::<Vec<_>>();
        assert!(names(Level::Quick).iter().all(|name| names(Level::Whole).contains(name)));
        assert!(names(Level::Whole).iter().all(|name| names(Level::Soak).contains(name)));
    }

    #[test]
    fn a_stage_that_is_called_by_its_name_is_run_at_each_level() {
        let is_there = |name: &str| {
            stages(Level::Quick, Emulators::All, &[name.into()]).any(|stage| stage.name == "generic-1vcpu")
        };
        assert!(is_there("generic-1vcpu") && is_there("generic-1vcpu/boot"));
        assert!(!is_there("generic") && !is_there("qemu-1cpu"));
    }

    #[test]
    fn one_emulator_leaves_the_other_out_and_the_host_in() {
        let names: Vec<_> = stages(Level::Whole, Emulators::Bochs, &[]).map(|stage| stage.name).collect();
        assert!(names.contains(&"host") && names.contains(&"bochs-1cpu"));
        assert!(!names.iter().any(|name| name.starts_with("qemu")));
    }

    #[test]
    fn stage_names_are_unique() {
        let mut names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STAGES.len());
    }

    #[test]
    fn bochs_machines_are_ones_that_bochs_can_be() {
        for stage in STAGES {
            if let Work::Boot(work) = stage.work
                && work.emulator == Emulator::Bochs
            {
                assert!(work.firmware == Firmware::Bios && work.clock == Clock::Exact && work.cpus <= 4, "{stage:?}");
            }
        }
    }
}
