//! `cargo xtask run`: guests in front of the user, or a bundle of test programs.
//!
//! [`guests`] does the former with a [`session`] between the user and the guests' consoles, [`bundle`] the latter. [`access`]
//! is the guests' disk and the way to their networks.

mod access;
mod bundle;
mod guests;
mod session;

pub use access::free_port;
pub use guests::host_memory;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;

use crate::{
    bad_input::BadInput,
    build::{Parts, Project, iso},
    cli::{Emulator, Firmware, Run},
    emulator::{self, Boot, Limits, Machine, backtrace},
    size::MemorySize,
    tools::Tools,
};

/// Builds and boots what `arguments` say, and tells how it ended by the exit status.
///
/// # Errors
/// [`BadInput`] for a fault of the arguments or of a file that they name; else when a tool is missing, a build fails or
/// the emulator does not start.
pub fn run(tools: &Tools, arguments: &Run) -> Result<ExitCode> {
    check(arguments)?;
    let project = Project::load()?;
    match &arguments.bundle {
        Some(name) => bundle::run(tools, &project, arguments, name),
        None => guests::run(tools, &project, arguments),
    }
}

fn check(arguments: &Run) -> Result<(), BadInput> {
    let wrong = |message: &str| Err(BadInput(message.into()));
    if arguments.emulator == Emulator::Bochs && arguments.firmware == Firmware::Uefi {
        return wrong("Bochs boots by BIOS only: leave out --firmware uefi, or use --emulator qemu");
    }
    if arguments.emulator == Emulator::Bochs
        && (arguments.cpus.is_some_and(|cpus| cpus > emulator::bochs::CPUS_AT_MOST) || arguments.gdb)
    {
        return wrong("Bochs has at most 8 CPUs and no --gdb: use --emulator qemu");
    }
    iso::check_command_line(&arguments.append).map_err(|error| BadInput(format!("--append: {error:#}")))
}

/// Number of the host's CPUs unless the user wants others: some for guests, and one more for the card.
fn cpus(arguments: &Run, has_card: bool) -> u32 {
    let for_guests = match arguments.emulator {
        Emulator::Qemu => 2,
        // With more it may go on with a guest at a wrong instruction (docs/CAVEATS.md).
        Emulator::Bochs => 1,
    };
    arguments.cpus.unwrap_or(for_guests + u32::from(has_card))
}

/// The hypervisor's command line.
fn hypervisor_line(arguments: &Run) -> String {
    let line = format!("log={} exit={} {}", arguments.log.word(), arguments.emulator.word(), arguments.append);
    line.trim_end().into()
}

/// The machine to boot; says what a user may have to do about it.
fn machine(arguments: &Run, cpus: u32, memory: MemorySize, parts: &Parts) -> Machine {
    if arguments.gdb {
        eprintln!("Waiting for a debugger: gdb -ex 'target remote :1234' {}", parts.kernel.display());
    }
    Machine {
        memory,
        firmware: arguments.firmware,
        acceleration: arguments.accel,
        debugger: arguments.gdb,
        ..Machine::new(arguments.emulator, cpus)
    }
}

fn limits(arguments: &Run) -> Limits {
    Limits { total: arguments.timeout.map(Duration::from_secs), silence: None }
}

/// Shows where a boot ended that did not end well, and what the emulator has to say about that.
fn report(boot: &Boot, parts: &Parts) {
    for line in backtrace::explain(boot, &parts.kernel) {
        eprintln!("{line}");
    }
    if !boot.emulator_messages.is_empty() {
        eprintln!("The emulator said:\n{}", boot.emulator_messages);
    }
}
