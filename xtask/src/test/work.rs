//! What a stage does: a command on the host, a boot of the test domain, a boot with guests.

use super::{
    card::Devices,
    guests::{bare::BareScenario, scenario::Scenario},
};
use crate::{
    cli::{Emulator, Firmware},
    emulator::Machine,
};

/// What a stage does.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// Runs a command on the host.
    Host(HostWork),
    /// Boots the test domain.
    Boot(BootWork),
    /// Measures twice: figures must repeat and meet their goals.
    Bench(Emulator),
    /// Measures exits of virtual machines: figures must not rise and meet their goals.
    Exits(Emulator),
    /// Measures what requests to the card cost guests: figures must not rise, and a card that is awake causes no exits.
    Requests,
    /// Measures the same on KVM.
    RequestsOnKvm,
    /// Boots Linux guests.
    Guests(&'static Scenario),
    /// Cuts the power of a Linux guest so many times.
    PowerCut(u64),
    /// Boots guests without an operating system.
    BareGuests(&'static BareScenario),
    /// Tests the card's process with QEMU.
    Card(Devices),
    /// Tests the card's process with DPDK.
    CardUnderDpdk,
    /// Tests the exit status of `run`.
    RunStatus,
    /// Enters the guest of `run` by SSH.
    RunAccess,
}

impl Work {
    /// Whether the time of its machines is that of instructions, whatever the host does meanwhile.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        match self {
            Self::Bench(_) | Self::Exits(_) | Self::Requests | Self::RequestsOnKvm => true,
            Self::BareGuests(scenario) => scenario.is_exact,
            Self::Guests(scenario) => scenario.emulator == Emulator::Bochs,
            Self::Host(_)
            | Self::Boot(_)
            | Self::PowerCut(_)
            | Self::Card(_)
            | Self::CardUnderDpdk
            | Self::RunStatus
            | Self::RunAccess => false,
        }
    }
}

/// Commands on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostWork {
    /// `cargo fmt --check`.
    Format,
    /// Clippy for host code.
    LintHost,
    /// Clippy for the bare target, package by package.
    LintBare,
    /// Unit and property tests.
    Tests,
    /// Examples in the documentation.
    DocTests,
    /// Models of concurrent code.
    Loom,
    /// Tests of unsafe code in an interpreter that finds undefined behaviour.
    Miri,
    /// Mutated input for every parser of foreign bytes.
    Fuzz,
    /// Tests in network namespaces.
    Network,
}

/// A boot of the test domain.
#[derive(Clone, Copy, Debug)]
pub struct BootWork {
    /// Emulator.
    pub emulator: Emulator,
    /// Number of CPUs.
    pub cpus: u32,
    /// Firmware.
    pub firmware: Firmware,
    /// How the machine's time passes.
    pub clock: Clock,
    /// What is looked at.
    pub subject: Subject,
}

/// What a boot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All tests of the domain.
    Everything,
    /// Only the tests about booting itself, whatever else the domain has.
    Boot,
    /// Only the tests of the log of pages that a guest writes, with these words on the kernel's command line.
    DirtyLog(&'static str),
    /// The end of the kernel: it is told to panic, and must say where.
    Panic,
    /// All tests of the supervisor and the runtime, which have a bundle of their own.
    Supervisor,
    /// All tests of the card's drivers, which have a bundle of their own, disks and a network.
    Devices,
    /// All tests of the card as a domain, which have a bundle of their own.
    Card,
}

/// How a machine's time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// A nanosecond for each instruction: what tests measure repeats exactly, and CPUs take turns.
    Exact,
    /// With the host's clock: CPUs run at the same time, and the host's load shows in what tests measure.
    Wall,
}

impl BootWork {
    /// The bundle to boot with.
    #[must_use]
    pub fn bundle(&self) -> &'static str {
        match self.subject {
            Subject::Supervisor => "supervisor",
            Subject::Devices => "devices",
            Subject::Card => "card",
            Subject::Everything | Subject::Boot | Subject::DirtyLog(_) | Subject::Panic => "tests",
        }
    }

    /// The machine to boot.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine {
            firmware: self.firmware,
            deterministic: self.clock == Clock::Exact,
            ..Machine::new(self.emulator, self.cpus)
        }
    }
}
