//! `cargo xtask run`: the demonstration, or any bundle, in front of the user.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;

use crate::{
    build::{Project, bundle::BundleFile, cargo::Profile, iso},
    cli::{Emulator, Firmware, Run},
    emulator::{self, Boot, End, Limits, Machine, Watcher, backtrace, interrupt::TerminalSettings},
    tools::Tools,
};

/// Builds and boots what `arguments` say, shows the serial log, and tells how it ended by the exit status.
///
/// # Errors
/// Fails when a tool is missing, a build fails or the emulator does not start.
pub fn run(tools: &Tools, arguments: &Run) -> Result<ExitCode> {
    if arguments.emulator == Emulator::Bochs && arguments.firmware == Firmware::Uefi {
        return bad_input("Bochs boots by BIOS only: leave out --firmware uefi, or use --emulator qemu");
    }
    if arguments.emulator == Emulator::Bochs && (arguments.cpus > emulator::bochs::CPUS_AT_MOST || arguments.gdb) {
        return bad_input("Bochs has at most 8 CPUs and no --gdb: use --emulator qemu");
    }
    let project = Project::load()?;
    let wrong = iso::check_command_line(&arguments.append)
        .and_then(|()| BundleFile::read(&project.root, &arguments.build.bundle).map(drop));
    if let Err(error) = wrong {
        return bad_input(&format!("{error:#}"));
    }
    let parts = project.build(tools, &arguments.build.bundle, Profile::from_debug(arguments.build.debug))?;
    let command_line = format!("log={} exit={} {}", arguments.log.word(), arguments.emulator.word(), arguments.append);
    let image = iso::make(&project, &tools.iso()?, &parts, command_line.trim_end())?;
    let machine = Machine {
        emulator: arguments.emulator,
        cpus: arguments.cpus,
        memory: arguments.memory,
        firmware: arguments.firmware,
        acceleration: arguments.accel,
        deterministic: false,
        debugger: arguments.gdb,
        interactive: std::io::stdin().is_terminal(),
    };
    if arguments.gdb {
        eprintln!("Waiting for a debugger: gdb -ex 'target remote :1234' {}", parts.kernel.display());
    }
    let limits = Limits { total: arguments.timeout.map(Duration::from_secs), silence: None };
    let settings = TerminalSettings::remember();
    let boot = emulator::boot(tools, &machine, &image, limits, &mut Echo);
    drop(settings);
    let boot = boot?;

    for line in backtrace::explain(&boot, &parts.kernel) {
        println!("{line}");
    }
    explain(&boot);
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

fn explain(boot: &Boot) {
    if !boot.emulator_messages.is_empty() {
        eprintln!("The emulator said:\n{}", boot.emulator_messages);
    }
    eprintln!("xtask: {} after {:.1} s", boot.end, boot.duration.as_secs_f64());
}

fn bad_input(message: &str) -> Result<ExitCode> {
    eprintln!("error: {message}");
    Ok(ExitCode::from(2))
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
