//! Bochs' configuration.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, atomic::AtomicBool, mpsc::channel},
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{
    GuestLine, Machine, Messages, Running,
    pseudo_terminal::{self, PseudoTerminal},
    serial,
};
use crate::{cli::Firmware, tools::Bochs};

/// The most CPUs that Debian's Bochs takes.
pub const CPUS_AT_MOST: u32 = 8;
/// One instruction takes one nanosecond, as in a deterministic QEMU, so that tests may hold both to the same limits.
const INSTRUCTIONS_PER_SECOND: u32 = 1_000_000_000;
/// The machine's clock starts at the same second of Unix time in each boot, so that boots repeat exactly.
const CLOCK_AT_START: u32 = 1_700_000_000;

/// Starts Bochs with `image` as its CD.
///
/// # Errors
/// Fails when Bochs does not start or the machine is one that it cannot be.
pub fn start(bochs: &Bochs, machine: &Machine, image: &Path) -> Result<Running> {
    ensure!(machine.firmware == Firmware::Bios, "Bochs boots by BIOS only: leave out --firmware uefi");
    ensure!(machine.cpus <= CPUS_AT_MOST, "Bochs has at most {CPUS_AT_MOST} CPUs");
    ensure!(machine.devices.is_empty(), "Bochs has no virtio devices: leave out disk images and networks' ways out");
    ensure!(!machine.debugger, "--gdb works with QEMU only; Bochs has a debugger of its own");
    let folder = tempfile::tempdir()?;
    let guests = if machine.guests { Some(pseudo_terminal::open()?) } else { None };
    let device = guests.as_ref().map(|guests| guests.device.as_path());
    let configuration = folder.path().join("bochsrc");
    fs::write(&configuration, self::configuration(bochs, machine, image, folder.path(), device))?;
    // The debugger that Debian builds in stops at the first instruction; `c` is "continue".
    let commands = folder.path().join("commands");
    fs::write(&commands, "c\n")?;
    let child = Command::new(&bochs.program.path)
        .arg("-q")
        .arg("-f")
        .arg(&configuration)
        .arg("-rc")
        .arg(&commands)
        .stdin(Stdio::null())
        .stdout(File::create(folder.path().join("console"))?)
        .stderr(File::create(folder.path().join("errors"))?)
        .spawn()
        .with_context(|| format!("cannot start {}", bochs.program.path.display()))?;
    let ended = Arc::new(AtomicBool::new(false));
    let (sender, events) = channel();
    serial::follow_file(folder.path().join("serial"), ended.clone(), sender.clone());
    let (guests, held) = guests
        .map(|PseudoTerminal { reader, writer, held, .. }| {
            let (input, to_write) = channel();
            serial::read_guests(reader, sender.clone());
            thread::spawn(move || serial::write_guests(writer, &to_write));
            (GuestLine { input, events: sender }, held)
        })
        .unzip();
    let messages = Messages(["messages", "errors", "console"].map(|name| folder.path().join(name)).into());
    Ok(Running { child, events, guests, held, ended: Some(ended), messages, monitor: None, _folder: folder })
}

/// The text of a `bochsrc`.
///
/// Of the displays that Debian builds, `rfb` is the one that needs no terminal; it takes a free port by itself.
fn configuration(bochs: &Bochs, machine: &Machine, image: &Path, folder: &Path, guests: Option<&Path>) -> String {
    let memory = machine.memory.mebibytes;
    let com2 = guests.map_or("com2: enabled=0".to_string(), |device| {
        format!("com2: enabled=1, mode=term, dev=\"{}\"", device.display())
    });
    format!(
        "cpu: model={model}, count={cpus}, ips={INSTRUCTIONS_PER_SECOND}, reset_on_triple_fault=0\n\
         memory: guest={memory}, host={memory}\n\
         romimage: file=\"{bios}\"\n\
         vgaromimage: file=\"{vga_bios}\"\n\
         ata0-master: type=cdrom, path=\"{image}\", status=inserted\n\
         boot: cdrom\n\
         com1: enabled=1, mode=file, dev=\"{folder}/serial\"\n\
         {com2}\n\
         display_library: rfb, options=\"timeout=0\"\n\
         plugin_ctrl: speaker=0, gameport=0, parallel=0\n\
         clock: sync=none, time0={CLOCK_AT_START}\n\
         log: \"{folder}/messages\"\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=ignore\n\
         debug: action=ignore\n",
        model = if machine.kvm { "corei7_haswell_4770" } else { "corei7_icelake_u" },
        cpus = machine.cpus,
        bios = bochs.bios.display(),
        vga_bios = bochs.vga_bios.display(),
        image = image.display(),
        folder = folder.display(),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        cli::Emulator,
        emulator::devices::Devices,
        tools::{Origin, Program, version::Version},
    };

    fn bochs() -> Bochs {
        let program = Program { path: "/bin/true".into(), version: Version(3, 0, 0), origin: Origin::Path };
        Bochs { program, bios: PathBuf::from("/share/bios"), vga_bios: PathBuf::from("/share/vga bios") }
    }

    #[test]
    fn the_machine_is_as_asked_for() {
        let machine = Machine::new(Emulator::Bochs, 2);
        let text =
            configuration(&bochs(), &machine, Path::new("/x.iso"), Path::new("/tmp/y"), Some(Path::new("/dev/pts/7")));
        for line in [
            "cpu: model=corei7_icelake_u, count=2, ips=1000000000, reset_on_triple_fault=0",
            "memory: guest=1024, host=1024",
            "vgaromimage: file=\"/share/vga bios\"",
            "com1: enabled=1, mode=file, dev=\"/tmp/y/serial\"",
            "com2: enabled=1, mode=term, dev=\"/dev/pts/7\"",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn machines_that_bochs_cannot_be_are_refused_before_it_starts() {
        let usual = || Machine::new(Emulator::Bochs, 1);
        for machine in [
            Machine { firmware: Firmware::Uefi, ..usual() },
            Machine { cpus: CPUS_AT_MOST + 1, ..usual() },
            Machine { debugger: true, ..usual() },
            Machine { devices: Devices { uplink: Some(Vec::new()), ..Devices::default() }, ..usual() },
        ] {
            assert!(start(&bochs(), &machine, Path::new("/x.iso")).is_err(), "{machine:?}");
        }
    }
}
