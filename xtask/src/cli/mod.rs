//! The command line. [`bench`] has that of the benchmarks.

mod bench;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::bench::{Bench, BenchCard, BenchExits, BenchIpc, BenchRequests, CardPart, Peer};
use crate::{guest::devices::Wish, size::MemorySize, tools::guests::GuestLinux};

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
  cargo xtask run                      build everything and go to the prompt of a Debian guest (AMD SVM, in QEMU)
  cargo xtask run --emulator bochs     the same on Intel VT-x, in Bochs
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
    #[command(after_help = "Examples:\n  cargo xtask doctor\n  cargo xtask doctor --size")]
    Doctor(Doctor),
    /// Build kernel, loader and the programs that run guests.
    #[command(after_help = "Example:\n  cargo xtask build --debug")]
    Build(Build),
    /// Build and write a bootable ISO image (BIOS and UEFI) that runs guests.
    #[command(after_help = IMAGE_HELP)]
    Image(Image),
    /// Build, boot in an emulator, and give the terminal to a guest.
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

const IMAGE_HELP: &str = "\
Guests' consoles are on the machine's second serial port (115200 baud), the hypervisor's log on the first.

Example:
  cargo xtask image --machine guest.toml --out dragonfly.iso";

const RUN_HELP: &str = "\
Without options: Debian 12 with 2 vCPUs and 256 MiB, on a disk and a network that the offload card serves; each boot begins
with the same disk, unless --disk keeps one. A line says how to get in by SSH. In Bochs: a small system in memory. Several
guests reach each other by name. On a terminal, keys go to the guest; Ctrl-] and then
  q       quits
  m       shows the hypervisor's log, and goes back
  :       begins an order about that guest: link NAME up, or link NAME down, for a network device of it;
          vcpu N cpu M lets a vCPU go on on another CPU
  0 to 9  shows the console of that guest
  ?       shows these keys
Input from a pipe is given to the guest when it shows a prompt. The hypervisor's log is in build/logs/run.log.
--machine describes guests by files: docs/machine-file.md. Several guests whose output is no terminal are shown line by
line with their names, or only the one that --console chooses.

Exit status:
  0    all guests switched themselves off (with --bundle: the software said that all was well)
  1    something could not be built or started
  2    bad arguments, machine file or kernel
  3    crash: of a guest, of the hypervisor, or the emulator stopped without a word
  4    time-out
  130  interrupted, or quit by Ctrl-] q

Examples:
  cargo xtask run --vcpus 4 --memory 1G --debian 13
  cargo xtask run --guests 2 --forward 8080:80:1
  cargo xtask run --disk mine.img        a disk that stays
  cargo xtask run --kernel bzImage --initrd initrd.img --cmdline 'console=ttyS0'
  cargo xtask run --machine one.toml two.toml --console 1
  echo 'uname -a; exit' | cargo xtask run --emulator bochs --timeout 600
  cargo xtask run --bundle demo          no guests: two programs that talk to each other
  cargo xtask run --debug --gdb          then: gdb -ex 'target remote :1234' KERNEL";

const TEST_HELP: &str = "\
NAME filters by substring of `stage/test`; --list shows the stages. A boot whose name matches runs whole; a name
like `qemu-2cpu/ipc` boots that machine and runs the tests there whose names contain `ipc`.
A stage called by its whole name is run at each level.

Logs of all boots are kept in build/logs/. The last line is `N passed, N failed`; the exit status is 1 if
anything failed or nothing ran.

Examples:
  cargo xtask test --quick
  cargo xtask test host
  cargo xtask test qemu-2cpu/ipc
  cargo xtask test --emulator bochs --soak";

/// Arguments of `doctor`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Doctor {
    /// Count the kernel's lines instead, logic and definitions apart.
    #[arg(long)]
    pub size: bool,
}

/// Arguments of `build`.
#[derive(Args, Clone, Debug)]
pub struct Build {
    /// Build without optimisation and with all checks.
    #[arg(long)]
    pub debug: bool,
    /// Build the programs of a bundle in place of those that run guests: a file name in tests/bundles without `.toml`.
    #[arg(long, value_name = "NAME")]
    pub bundle: Option<String>,
}

/// Arguments of `image`.
#[derive(Args, Clone, Debug)]
pub struct Image {
    /// The guests that the image runs.
    #[command(flatten)]
    pub guests: Guests,
    /// Put a bundle of test programs into the image in place of guests: a file name in tests/bundles without `.toml`.
    #[arg(long, value_name = "NAME", conflicts_with = "Guests")]
    pub bundle: Option<String>,
    /// File to write.
    #[arg(long, value_name = "FILE", default_value = "build/dragonfly.iso")]
    pub out: PathBuf,
    /// Number of the host's CPUs, if guests have disks or networks: the last is the card's.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,
    /// Build without optimisation and with all checks.
    #[arg(long, help_heading = "Hypervisor")]
    pub debug: bool,
    /// The hypervisor's command line, for example `log=debug`.
    #[arg(long, value_name = "WORDS", default_value = "", help_heading = "Hypervisor")]
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
    /// What guests to run.
    #[command(flatten)]
    pub guests: Guests,
    /// Run a bundle of test programs in place of guests: a file name in tests/bundles without `.toml`.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["Guests", "console", "headless", "log_console", "disk", "no_devices", "forward"]
    )]
    pub bundle: Option<String>,
    /// A raw image that is the guest's disk, /dev/vda there, and is written to; made as a copy of Debian's if it is not there
    /// [default: Debian's, and what is written goes with the machine].
    #[arg(long, value_name = "FILE", conflicts_with = "machine", help_heading = "Guests")]
    pub disk: Option<PathBuf>,
    /// No disk and no network, but a small system in memory; always so in Bochs.
    #[arg(long, visible_alias = "initramfs-only", conflicts_with_all = ["machine", "disk", "forward"], help_heading = "Guests")]
    pub no_devices: bool,
    /// Let a TCP port of this machine lead to one of the first guest, or of guest N; each Debian has one for SSH anyway.
    #[arg(long, value_name = "PORT:PORT[:N]", value_parser = forward, help_heading = "Guests")]
    pub forward: Vec<Wish>,
    /// Number of the guest whose console is shown first, or alone where the output is no terminal.
    #[arg(long, value_name = "N", help_heading = "Consoles")]
    pub console: Option<usize>,
    /// Leave the terminal alone: no input, output line by line.
    #[arg(long, help_heading = "Consoles")]
    pub headless: bool,
    /// Show the hypervisor's log on standard error.
    #[arg(long, help_heading = "Consoles")]
    pub log_console: bool,
    /// Emulator to boot in.
    #[arg(long, value_enum, default_value_t = Emulator::Qemu, help_heading = "Host")]
    pub emulator: Emulator,
    /// How QEMU runs instructions.
    #[arg(long, value_enum, default_value_t = Acceleration::Auto, help_heading = "Host")]
    pub accel: Acceleration,
    /// Number of the host's CPUs: at most 64 in QEMU, 8 in Bochs. With disks or networks the last is the card's [default: 2
    /// for guests, 1 in Bochs, and one for the card].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Host")]
    pub cpus: Option<u32>,
    /// The host's memory, with the unit M or G [default: what the guests need and 256M, at least 1G].
    #[arg(long, value_name = "SIZE", help_heading = "Host")]
    pub host_memory: Option<MemorySize>,
    /// Firmware of the host.
    #[arg(long, value_enum, default_value_t = Firmware::Bios, help_heading = "Host")]
    pub firmware: Firmware,
    /// Stop after this many seconds; without it the machine runs until it stops itself or is stopped.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Build without optimisation and with all checks.
    #[arg(long, help_heading = "Hypervisor")]
    pub debug: bool,
    /// More words for the hypervisor's command line.
    #[arg(long, value_name = "WORDS", default_value = "", help_heading = "Hypervisor")]
    pub append: String,
    /// Log level of kernel and domains.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LogLevel::Info, help_heading = "Hypervisor")]
    pub log: LogLevel,
    /// Make QEMU wait for a debugger on port 1234 of this machine.
    #[arg(long, help_heading = "Hypervisor")]
    pub gdb: bool,
}

/// Reads `HOSTPORT:GUESTPORT[:N]`.
fn forward(text: &str) -> Result<Wish, String> {
    let wrong = || format!("`{text}` is not like 8080:80, or 8080:80:1 for guest 1");
    let mut numbers = text.split(':').map(|part| part.parse::<u16>().map_err(|_| wrong()));
    let mut next = || numbers.next().transpose();
    let (host, guest, number) = (next()?.ok_or_else(wrong)?, next()?.ok_or_else(wrong)?, next()?.unwrap_or(0));
    if host == 0 || guest == 0 || text.split(':').count() > 3 {
        return Err(wrong());
    }
    Ok(Wish { host, guest, number: number.into() })
}

/// The guests to run.
#[derive(Args, Clone, Debug)]
#[group(multiple = true)]
pub struct Guests {
    /// Run the guests that these machine files describe.
    #[arg(
        long,
        value_name = "FILE.toml",
        num_args = 1..,
        conflicts_with_all = ["debian", "kernel", "initrd", "cmdline", "vcpus", "memory", "guests"],
        help_heading = "Guests"
    )]
    pub machine: Vec<PathBuf>,
    /// Debian's kernel to run [default: 12-cloud].
    #[arg(long, value_enum, value_name = "RELEASE", conflicts_with = "kernel", help_heading = "Guests")]
    pub debian: Option<GuestLinux>,
    /// Kernel to run: a Linux bzImage, a PVH ELF file or a Multiboot 1 ELF file.
    #[arg(long, value_name = "FILE", help_heading = "Guests")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk [default: busybox with Debian's kernels, none with --kernel].
    #[arg(long, value_name = "FILE", help_heading = "Guests")]
    pub initrd: Option<PathBuf>,
    /// The guest kernel's command line [default: console=ttyS0 and what suits the initial RAM disk].
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = "Guests")]
    pub cmdline: Option<String>,
    /// Number of the guest's vCPUs, at most 32.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=32),
        help_heading = "Guests"
    )]
    pub vcpus: u32,
    /// The guest's memory, with the unit M or G.
    #[arg(long, value_name = "SIZE", default_value = "256M", help_heading = "Guests")]
    pub memory: MemorySize,
    /// Number of guests like this.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=32),
        help_heading = "Guests"
    )]
    pub guests: u32,
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

    fn run(options: &[&str]) -> Result<Run, clap::Error> {
        match Cli::try_parse_from([&["xtask", "run"], options].concat())?.command {
            Task::Run(run) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_default_guest_has_two_vcpus_and_256_mib() {
        let run = run(&[]).unwrap();
        assert_eq!((run.guests.vcpus, run.guests.memory.mebibytes, run.guests.guests), (2, 256, 1));
        assert!(run.guests.machine.is_empty() && run.bundle.is_none() && run.host_memory.is_none());
    }

    #[test]
    fn ports_lead_to_the_first_guest_unless_another_is_named() {
        let wishes = run(&["--forward", "8080:80", "--forward", "2200:22:3"]).unwrap().forward;
        let expected = [(8080, 80, 0), (2200, 22, 3)].map(|(host, guest, number)| Wish { host, guest, number });
        assert_eq!(wishes, expected);
    }

    #[test]
    fn several_machine_files_may_follow_one_option_or_several() {
        for options in [&["--machine", "a.toml", "b.toml"][..], &["--machine", "a.toml", "--machine", "b.toml"]] {
            assert_eq!(run(options).unwrap().guests.machine, [PathBuf::from("a.toml"), PathBuf::from("b.toml")]);
        }
    }

    #[test]
    fn a_command_line_for_the_guest_may_look_like_an_option() {
        assert_eq!(
            run(&["--cmdline", "-x console=ttyS0"]).unwrap().guests.cmdline.as_deref(),
            Some("-x console=ttyS0")
        );
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for options in [
            &["--machine", "a.toml", "--vcpus", "2"][..],
            &["--machine", "a.toml", "--kernel", "k"],
            &["--debian", "13", "--kernel", "k"],
            &["--bundle", "demo", "--kernel", "k"],
            &["--bundle", "demo", "--machine", "a.toml"],
            &["--bundle", "demo", "--headless"],
            &["--vcpus", "33"],
            &["--guests", "0"],
            &["--memory", "63M"],
            &["--machine", "a.toml", "--disk", "d"],
            &["--no-devices", "--disk", "d"],
            &["--bundle", "demo", "--forward", "1:2"],
            &["--forward", "80"],
            &["--forward", "1:2:3:4"],
            &["--forward", "0:22"],
            &["--forward", "70000:22"],
        ] {
            assert!(run(options).is_err(), "{options:?}");
        }
    }

    #[test]
    fn quick_and_soak_exclude_each_other() {
        assert!(Cli::try_parse_from(["xtask", "test", "--quick", "--soak"]).is_err());
    }
}
