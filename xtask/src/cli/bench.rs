//! The command line of `cargo xtask bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Emulator;

/// The benchmarks.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// System calls, IPC, notifications, faults, mapping and domain creation, in instructions.
    #[command(after_help = "Example:\n  cargo xtask bench ipc --json build/ipc.json")]
    Ipc(BenchIpc),
    /// Exits of virtual machines, in instructions, beside KVM's in the same emulated machine.
    #[command(after_help = BENCH_EXITS_HELP)]
    Exits(BenchExits),
    /// Requests of guests to the card, in exits and instructions, in QEMU.
    #[command(after_help = BENCH_REQUESTS_HELP)]
    Requests(BenchRequests),
    /// The card's switch and disks on this machine's own CPU, beside their peers, and as a guest's in QEMU.
    #[command(after_help = BENCH_CARD_HELP)]
    Card(BenchCard),
}

const BENCH_EXITS_HELP: &str = "\
The same guest measures on Dragonfly and, with --vs kvm, on KVM with the smallest user-space machine there can be, in
Debian 12's kernel. Without --vs KVM's figures are those of tests/figures.

Examples:
  cargo xtask bench exits
  cargo xtask bench exits --vs kvm --json tests/figures/exits-qemu.json
  cargo xtask bench exits --emulator bochs --vs kvm";

const BENCH_REQUESTS_HELP: &str = "\
A guest without an operating system reads from a disk and sends packets to itself, one or 32 at a time, while the card
looks at its rings all the time. With --vs kvm it does so on KVM too, with vhost-net and QEMU's disk, in Debian 12's
kernel. Without --vs KVM's figures are those of tests/figures.

Examples:
  cargo xtask bench requests
  cargo xtask bench requests --vs kvm --json tests/figures/requests-qemu.json";

const BENCH_CARD_HELP: &str = "\
Two guests without a kernel send each other frames through the switch over vhost-user, on one CPU; the switch has another.
The card, testpmd (which forwards without looking) and Open vSwitch on DPDK take turns, several times, and the median
counts. So do its disks and those of qemu-storage-daemon, if that is in PATH. Nothing else should run: the host of a
virtual machine disturbs enough.

Then a guest of the hypervisor makes requests to the card, as with `bench requests`.

Examples:
  cargo xtask bench card
  cargo xtask bench card --only guest
  cargo xtask bench card --alone --rounds 1
  cargo xtask bench card --json card.json";

/// What Dragonfly is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// KVM in Debian 12's kernel.
    Kvm,
}

/// Arguments of `bench exits`.
#[derive(Args, Clone, Debug)]
pub struct BenchExits {
    /// Emulator to measure in: SVM in QEMU, VT-x in Bochs.
    #[arg(long, value_enum, default_value_t = Emulator::Qemu)]
    pub emulator: Emulator,
    /// Measure this too.
    #[arg(long, value_enum, value_name = "PEER")]
    pub vs: Option<Peer>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A part of `bench card`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CardPart {
    /// The card's process on this machine's CPU.
    Host,
    /// The card in the hypervisor.
    Guest,
}

/// Arguments of `bench card`.
#[derive(Args, Clone, Debug)]
pub struct BenchCard {
    /// Measure nothing else.
    #[arg(long, value_enum, value_name = "PART")]
    pub only: Option<CardPart>,
    /// Leave the peers out.
    #[arg(long)]
    pub alone: bool,
    /// How often each takes its turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Milliseconds that are counted in each turn.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=60000))]
    pub time: u32,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of `bench requests`.
#[derive(Args, Clone, Debug)]
pub struct BenchRequests {
    /// Measure this too.
    #[arg(long, value_enum, value_name = "PEER")]
    pub vs: Option<Peer>,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Arguments of `bench ipc`.
#[derive(Args, Clone, Debug)]
pub struct BenchIpc {
    /// Emulator to measure in.
    #[arg(long, value_enum, default_value_t = Emulator::Qemu)]
    pub emulator: Emulator,
    /// Also write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}
