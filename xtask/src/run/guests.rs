//! `cargo xtask run`: guests, one VMM each, and their consoles.

use std::{
    fs::{self, File},
    io::IsTerminal,
    process::ExitCode,
};

use anyhow::{Context, Result};

use super::{
    access::{Access, root_disk},
    cpus, hypervisor_line, limits, machine, report,
    session::{Session, Settings},
};
use crate::{
    bad_input::BadInput,
    build::{Project, cargo::Profile, iso},
    cli::{Emulator, Run},
    emulator::{self, Boot, End, Machine, interrupt, qemu},
    guest::{
        bundle::{self, memory_of_card, memory_of_vmm},
        description::{self, Extras, Guest, UserTerminal},
        devices,
        stream::GuestEnd,
        terminal::{self, RawTerminal},
    },
    size::MemorySize,
    tools::{Tools, progress::Progress},
};

/// Lines of the hypervisor's log that are shown when something failed.
const LAST_LINES: usize = 40;

/// Exit status for a fault of what the user gave.
const BAD_INPUT: u8 = 2;

/// Builds, boots, and connects the user with the guests until they end.
///
/// # Errors
/// See [`run`](super::run).
pub fn run(tools: &Tools, project: &Project, arguments: &Run) -> Result<ExitCode> {
    let has_terminal = RawTerminal::is_there() && !arguments.headless;
    let terminal = user_terminal(has_terminal);
    let disk = root_disk(tools, arguments)?;
    let image = disk.as_ref().map(|disk| (disk.path.as_path(), disk.is_kept));
    let extras = Extras { image, terminal: terminal.as_ref() };
    let guests = description::guests(&arguments.guests, tools, &project.root, &extras)?;
    let cpus = cpus(arguments, devices::any(&guests));
    description::check(&guests, cpus)?;
    if let Some(console) = arguments.console.filter(|console| *console >= guests.len()) {
        return Err(BadInput(format!("--console {console}: the last guest is {}", guests.len() - 1)).into());
    }
    let access = Access::find(arguments, &guests, disk.and_then(|disk| disk.keys))?;
    leave_for_inspection(project, &guests, cpus)?;
    let parts = project.build_for_guests(tools, &guests, cpus, Profile::from_debug(arguments.debug))?;
    let image = iso::make(project, &tools.iso()?, &parts, &hypervisor_line(arguments))?;
    let memory = arguments.host_memory.unwrap_or_else(|| host_memory(&guests, parts.bundle.len()));
    let devices = access.devices(arguments.emulator, &guests)?;
    let machine = Machine { guests: true, devices, ..machine(arguments, cpus, memory, &parts) };

    let log = project.build_folder("logs")?.join("run.log");
    // Before the terminal is changed: from here on signals end this process in order.
    interrupt::listen()?;
    eprintln!("{}", describe(&machine, &guests));
    access.tell(project)?;
    if has_terminal {
        eprintln!("Ctrl-] ? shows the keys, Ctrl-] q quits.");
    }
    let progress = Progress::waiting("booting");
    let raw = if has_terminal { RawTerminal::enter() } else { None };
    let mut session = Session::new(Settings {
        names: guests.iter().map(|guest| guest.machine.name.clone()).collect(),
        files: guests.iter().map(|guest| guest.source.clone()).collect(),
        console: arguments.console,
        terminal: raw.is_some(),
        input: !arguments.headless && (raw.is_some() || !std::io::stdin().is_terminal()),
        shows_log: arguments.log_console,
        log: File::create(&log).with_context(|| format!("cannot write {}", log.display()))?,
        progress,
    });
    let boot = emulator::boot(tools, &machine, &image, limits(arguments), &mut session);
    let ends = session.finish();
    drop(raw);
    let boot = boot?;

    let status = exit_status(boot.end, &ends);
    if status == BAD_INPUT {
        show_errors(&boot, &guests);
    } else if status != 0 && boot.end != End::Interrupted {
        show_log(&boot, &guests);
        report(&boot, &parts);
        eprintln!("xtask: the whole log is in {}", log.display());
    }
    eprintln!("xtask: {} after {:.1} s", outcome(boot.end, &ends), boot.duration.as_secs_f64());
    Ok(ExitCode::from(status))
}

fn user_terminal(has_terminal: bool) -> Option<UserTerminal> {
    let (rows, columns) = if has_terminal { terminal::size()? } else { return None };
    Some(UserTerminal { rows, columns, kind: std::env::var("TERM").unwrap_or_default() })
}

/// Writes what the bundle is made of to where the user can look at it.
fn leave_for_inspection(project: &Project, guests: &[Guest], cpus: u32) -> Result<()> {
    let folder = project.build_folder("guests")?;
    let write = |name: &str, contents: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
    };
    write("bundle.toml", bundle::plan(guests, cpus.into())?.as_bytes())?;
    for (number, guest) in guests.iter().enumerate() {
        write(&format!("{number}.toml"), guest.text.as_bytes())?;
        if let Some((name, contents)) = guest.files.iter().find(|(name, _)| name == "initramfs") {
            write(name, contents)?;
        }
    }
    Ok(())
}

/// What the guests need, the bundle where the loader puts it, and something for kernel and supervisor.
#[must_use]
pub fn host_memory(guests: &[Guest], bundle: usize) -> MemorySize {
    const OWN: u64 = 256 << 20;
    let card = memory_of_card(guests);
    let guests: u64 = guests.iter().map(|guest| memory_of_vmm(guest.machine.memory)).sum();
    let mebibytes = (guests + card + bundle as u64 + OWN).div_ceil(1 << 20);
    MemorySize { mebibytes: mebibytes.max(MemorySize::DEFAULT.mebibytes) }
}

/// What is being started, in a line.
fn describe(machine: &Machine, guests: &[Guest]) -> String {
    let host = match machine.emulator {
        Emulator::Qemu => format!("QEMU ({})", qemu::acceleration(machine)),
        Emulator::Bochs => "Bochs".into(),
    };
    let guests = guests.iter().map(|Guest { machine, .. }| {
        format!("{} with {} vCPUs and {} MiB", machine.name, machine.vcpus, machine.memory >> 20)
    });
    let guests = guests.collect::<Vec<_>>().join(", ");
    format!("Booting in {host} with {} CPUs and {} MiB: {guests}", machine.cpus, machine.memory.mebibytes)
}

/// What the hypervisor's log says is wrong with what the user gave.
fn show_errors(boot: &Boot, guests: &[Guest]) {
    let errors = boot.log.iter().filter_map(|line| line.split_once("] error "));
    for (_, error) in errors {
        eprintln!("error: {}", with_users_names(error, guests));
    }
}

/// The end of the hypervisor's log, with the names that the user has for machine files.
fn show_log(boot: &Boot, guests: &[Guest]) {
    eprintln!("The end of the hypervisor's log:");
    for line in &boot.log[boot.log.len().saturating_sub(LAST_LINES)..] {
        eprintln!("  {}", with_users_names(line, guests));
    }
}

fn with_users_names(line: &str, guests: &[Guest]) -> String {
    let mut line = line.to_string();
    for (number, guest) in guests.iter().enumerate() {
        if let Some(source) = &guest.source {
            line = line.replace(&format!("machines/{number}.toml:"), &format!("{}:", source.display()));
        }
    }
    line
}

/// Exit status of `run`, as its help says.
fn exit_status(end: End, guests: &[Option<GuestEnd>]) -> u8 {
    let any = |end: Option<GuestEnd>| guests.contains(&end);
    match end {
        End::Interrupted => 130,
        End::TimedOut(_) | End::Silent(_) => 4,
        End::Panic | End::Died => 3,
        // A guest of whose end nobody was told went down with its VMM.
        End::Exit(_) if any(Some(GuestEnd::Crashed)) => 3,
        End::Exit(_) if any(Some(GuestEnd::BadInput)) => BAD_INPUT,
        End::Exit(_) if any(None) => 3,
        End::Exit(0) => 0,
        End::Exit(_) => 1,
    }
}

/// How it all ended, in a few words.
fn outcome(end: End, guests: &[Option<GuestEnd>]) -> String {
    match end {
        End::Exit(_) if guests.iter().all(|guest| *guest == Some(GuestEnd::PoweredOff)) => end.to_string(),
        End::Exit(_) => {
            let count = |end: Option<GuestEnd>| guests.iter().filter(|guest| **guest == end).count();
            let parts = [
                (count(Some(GuestEnd::PoweredOff)), "switched off"),
                (count(Some(GuestEnd::Crashed)), "crashed"),
                (count(Some(GuestEnd::BadInput)), "not started"),
                (count(None), "lost with its VMM"),
            ];
            let parts = parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
            format!("guests: {}", parts.collect::<Vec<_>>().join(", "))
        }
        end => end.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use dragonfly_machine_file::MachineFile;

    use super::*;

    fn guest(memory: &str) -> Guest {
        let text = format!("name = \"a\"\nkernel = \"k\"\nmemory = \"{memory}\"\n");
        let machine = MachineFile::parse("m.toml", &text).unwrap();
        Guest {
            machine,
            text,
            files: Vec::new(),
            source: Some(PathBuf::from("my/guest.toml")),
            devices: Default::default(),
        }
    }

    #[test]
    fn each_kind_of_end_has_its_exit_status() {
        const OFF: Option<GuestEnd> = Some(GuestEnd::PoweredOff);
        const CRASH: Option<GuestEnd> = Some(GuestEnd::Crashed);
        const BAD: Option<GuestEnd> = Some(GuestEnd::BadInput);
        for (end, guests, status) in [
            (End::Exit(0), &[OFF, OFF][..], 0),
            (End::Exit(1), &[OFF], 1),
            (End::Exit(1), &[OFF, CRASH, BAD], 3),
            (End::Exit(1), &[OFF, BAD], 2),
            (End::Exit(1), &[OFF, None], 3),
            (End::Panic, &[OFF], 3),
            (End::Died, &[OFF], 3),
            (End::TimedOut(Duration::from_secs(1)), &[None], 4),
            (End::Interrupted, &[None], 130),
        ] {
            assert_eq!(exit_status(end, guests), status, "{end} {guests:?}");
        }
    }

    #[test]
    fn the_host_has_room_for_all_guests_and_a_gibibyte_at_least() {
        assert_eq!(host_memory(&[guest("256MiB")], 1 << 20).mebibytes, 1024);
        assert!(host_memory(&[guest("1GiB"), guest("2GiB")], 30 << 20).mebibytes >= 3 * 1024 + 256 + 30);
    }

    #[test]
    fn the_log_names_the_users_machine_file() {
        let guests = [guest("64MiB")];
        assert_eq!(
            with_users_names("[ 1.0] ERROR a: machines/0.toml:2: `kernel` is no kernel", &guests),
            "[ 1.0] ERROR a: my/guest.toml:2: `kernel` is no kernel"
        );
        assert_eq!(with_users_names("machines/1.toml:2", &guests), "machines/1.toml:2");
    }

    #[test]
    fn the_outcome_counts_guests_that_did_not_end_well() {
        let ends = [Some(GuestEnd::PoweredOff), Some(GuestEnd::Crashed), None];
        assert_eq!(outcome(End::Exit(1), &ends), "guests: 1 switched off, 1 crashed, 1 lost with its VMM");
        assert_eq!(outcome(End::Exit(0), &ends[..1]), "clean exit");
    }
}
