//! `cargo xtask run --bundle`: a bundle of test programs, its log in front of the user.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Result;

use super::{cpus, hypervisor_line, limits, machine, report};
use crate::{
    bad_input::BadInput,
    build::{Project, bundle::BundleFile, cargo::Profile, iso},
    cli::Run,
    emulator::{self, End, Machine, Watcher, interrupt::TerminalSettings},
    size::MemorySize,
    tools::Tools,
};

/// Builds and boots the bundle `name`, shows the serial log, and tells how it ended by the exit status.
///
/// # Errors
/// Fails when a tool is missing, a build fails or the emulator does not start.
pub fn run(tools: &Tools, project: &Project, arguments: &Run, name: &str) -> Result<ExitCode> {
    BundleFile::read(&project.root, name).map_err(|error| BadInput(format!("{error:#}")))?;
    let parts = project.build(tools, name, Profile::from_debug(arguments.debug))?;
    let image = iso::make(project, &tools.iso()?, &parts, &hypervisor_line(arguments))?;
    let memory = arguments.host_memory.unwrap_or(MemorySize::DEFAULT);
    let machine = Machine {
        interactive: std::io::stdin().is_terminal(),
        ..machine(arguments, cpus(arguments, false), memory, &parts)
    };
    let settings = TerminalSettings::remember();
    let boot = emulator::boot(tools, &machine, &image, limits(arguments), &mut Echo);
    drop(settings);
    let boot = boot?;
    report(&boot, &parts);
    eprintln!("xtask: {} after {:.1} s", boot.end, boot.duration.as_secs_f64());
    Ok(ExitCode::from(exit_status(boot.end)))
}

/// Exit status of `run`, as its help says.
fn exit_status(end: End) -> u8 {
    match end {
        End::Exit(0) => 0,
        End::Exit(_) => 1,
        End::Panic | End::Died => 3,
        End::TimedOut(_) | End::Silent(_) => 4,
        End::Interrupted => 130,
    }
}

/// Copies the serial line to the terminal.
struct Echo;

impl Watcher for Echo {
    fn bytes(&mut self, bytes: &[u8]) {
        let mut stdout = std::io::stdout().lock();
        // A reader that has gone (`run | head`) is no reason to stop the machine.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_kind_of_end_has_its_exit_status() {
        for (end, status) in [
            (End::Exit(0), 0),
            (End::Exit(7), 1),
            (End::Panic, 3),
            (End::Died, 3),
            (End::TimedOut(Duration::from_secs(1)), 4),
            (End::Interrupted, 130),
        ] {
            assert_eq!(exit_status(end), status, "{end}");
        }
    }
}
