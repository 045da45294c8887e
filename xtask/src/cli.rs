//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::size::MemorySize;

/// Builds, boots, tests and measures Dragonfly. Every command does the set-up that it needs by itself.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 120, after_help = EXAMPLES)]
pub struct Cli {
    /// Never touch the network; what is missing is an error that says how to get it.
    #[arg(long, global = true)]
    pub offline: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Task,
}

const EXAMPLES: &str = "\
First steps:
  cargo xtask run                      build everything and boot the demonstration in QEMU
  cargo xtask run --emulator bochs     the same in Bochs
  cargo xtask test --quick             a first answer from the tests in a minute, all of it in five
  cargo xtask doctor                   what was found, with versions

Tools come from PATH where they are new enough, else from a private set in ~/.cache/dragonfly
(DRAGONFLY_CACHE names another folder); nothing is installed on the system and root is not needed.
Packages come from the Debian servers of the machine's apt; where it has none (Ubuntu), name one in
DRAGONFLY_DEBIAN_MIRROR.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Fetch all tools, so that everything works offline from then on.
    #[command(after_help = "Example:\n  cargo xtask setup && cargo xtask --offline test")]
    Setup,
    /// Show which tools were found, in which version and where; exit 1 if one is missing.
    #[command(after_help = "Example:\n  cargo xtask doctor")]
    Doctor,
    /// Build kernel, loader and the programs of a bundle.
    #[command(after_help = "Example:\n  cargo xtask build --debug")]
    Build(Build),
    /// Build and write a bootable ISO image (BIOS and UEFI).
    #[command(after_help = "Example:\n  cargo xtask image --out dragonfly.iso")]
    Image(Image),
    /// Build, boot in an emulator and show the serial log.
    #[command(after_help = RUN_HELP)]
    Run(Run),
    /// Run the tests: format, lints, host tests, Miri, loom, fuzzing, and the kernel in QEMU and Bochs.
    #[command(after_help = TEST_HELP)]
    Test(Test),
    /// Measure in instructions, which repeat exactly.
    #[command(subcommand)]
    Bench(Bench),
    /// Remove build products, and with --cache the fetched tools.
    #[command(after_help = "Example:\n  cargo xtask clean --cache --yes")]
    Clean(Clean),
}

const RUN_HELP: &str = "\
Exit status:
  0  the software ended by itself and said that all was well
  1  it ended with an error, or could not be built or started
  2  bad arguments
  3  crash: the kernel panicked, or the emulator stopped without a word
  4  time-out
  130  interrupted

Examples:
  cargo xtask run --cpus 4 --memory 2G
  cargo xtask run --firmware uefi --log debug
  cargo xtask run --emulator bochs --timeout 120
  cargo xtask run --debug --gdb        then: gdb -ex 'target remote :1234' KERNEL";

const TEST_HELP: &str = "\
NAME filters by substring of `stage/test`; --list shows the stages. A boot whose name matches runs whole; a name
like `qemu-2cpu/ipc` boots that machine and runs the tests there whose names contain `ipc`.

Logs of all boots are kept in build/logs/. The last line is `N passed, N failed`; the exit status is 1 if
anything failed or nothing ran.

Examples:
  cargo xtask test --quick
  cargo xtask test host
  cargo xtask test qemu-2cpu/ipc
  cargo xtask test --emulator bochs --soak";

/// Arguments of `build`.
#[derive(Args, Clone, Debug)]
pub struct Build {
    /// Build without optimisation and with all checks.
    #[arg(long)]
    pub debug: bool,
    /// Bundle whose programs are built: a file name in tests/bundles without `.toml`.
    #[arg(long, default_value = "demo")]
    pub bundle: String,
}

/// Arguments of `image`.
#[derive(Args, Clone, Debug)]
pub struct Image {
    /// What goes into the image.
    #[command(flatten)]
    pub build: Build,
    /// File to write.
    #[arg(long, default_value = "build/dragonfly.iso")]
    pub out: PathBuf,
    /// Kernel command line, for example `log=debug`.
    #[arg(long, default_value = "")]
    pub append: String,
}

/// An emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emulator {
    /// QEMU: AMD SVM, many CPUs, UEFI.
    Qemu,
    /// Bochs: Intel VT-x.
    Bochs,
}

/// Which emulators to test in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emulators {
    /// QEMU only.
    Qemu,
    /// Bochs only.
    Bochs,
    /// Both.
    All,
}

/// The machine's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// SeaBIOS or Bochs' BIOS.
    Bios,
    /// OVMF; QEMU only.
    Uefi,
}

/// How QEMU runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Acceleration {
    /// KVM where the host's KVM can nest, else emulation.
    Auto,
    /// KVM; fails where there is none.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Severity from which on log lines are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// Warnings too.
    Warn,
    /// What a user wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// Emulator to boot in.
    #[arg(long, value_enum, default_value_t = Emulator::Qemu)]
    pub emulator: Emulator,
    /// Number of CPUs: at most 64 in QEMU, 8 in Bochs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// Memory, with the unit M or G.
    #[arg(long, default_value = "1G")]
    pub memory: MemorySize,
    /// Firmware of the machine.
    #[arg(long, value_enum, default_value_t = Firmware::Bios)]
    pub firmware: Firmware,
    /// How QEMU runs instructions.
    #[arg(long, value_enum, default_value_t = Acceleration::Auto)]
    pub accel: Acceleration,
    /// Stop after this many seconds; without it the machine runs until it stops itself or Ctrl-C.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Make QEMU wait for a debugger on port 1234 of this machine.
    #[arg(long)]
    pub gdb: bool,
    /// What to boot.
    #[command(flatten)]
    pub build: Build,
    /// More words for the kernel command line.
    #[arg(long, default_value = "")]
    pub append: String,
    /// Log level of kernel and domains.
    #[arg(long, value_enum, default_value_t = LogLevel::Info)]
    pub log: LogLevel,
}

/// Arguments of `test`.
#[derive(Args, Clone, Debug)]
pub struct Test {
    /// Run only what matches one of these names.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// At most five minutes: no lints, Miri or loom, little fuzzing, two boots.
    #[arg(long, conflicts_with = "soak")]
    pub quick: bool,
    /// Millions of fuzzing steps and thousands of repetitions: hours.
    #[arg(long)]
    pub soak: bool,
    /// Emulators to boot the kernel in.
    #[arg(long, value_enum, default_value_t = Emulators::All)]
    pub emulator: Emulators,
    /// Name the stages instead of running them.
    #[arg(long)]
    pub list: bool,
}

/// The benchmarks.
#[derive(Clone, Debug, Subcommand)]
pub enum Bench {
    /// System calls, IPC, notifications, faults, mapping and domain creation, in instructions.
    #[command(after_help = "Example:\n  cargo xtask bench ipc --json build/ipc.json")]
    Ipc(BenchIpc),
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

/// Arguments of `clean`.
#[derive(Args, Clone, Debug)]
pub struct Clean {
    /// Remove the fetched tools too.
    #[arg(long)]
    pub cache: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
}

impl LogLevel {
    /// The word for the kernel command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Emulator {
    /// The name as used in test names and on the kernel command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Bochs => "bochs",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn offline_may_stand_before_or_after_the_command() {
        for line in [["xtask", "--offline", "setup"], ["xtask", "setup", "--offline"]] {
            assert!(Cli::try_parse_from(line).unwrap().offline);
        }
    }

    #[test]
    fn quick_and_soak_exclude_each_other() {
        assert!(Cli::try_parse_from(["xtask", "test", "--quick", "--soak"]).is_err());
    }
}
