//! QEMU's command line.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{Sender, channel},
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{
    GuestLine, Machine, Messages, Running,
    serial::{self, Event},
};
use crate::{
    cli::{Acceleration, Firmware},
    tools::Qemu,
};

/// I/O port of QEMU's `isa-debug-exit`: writing N ends QEMU with status 2 N + 1.
const DEBUG_EXIT: &str = "isa-debug-exit,iobase=0xf4,iosize=4";

/// How QEMU will run instructions on `machine`, and why.
#[must_use]
pub fn acceleration(machine: &Machine) -> &'static str {
    match machine.acceleration {
        Acceleration::Kvm => "KVM",
        Acceleration::Tcg => "emulated",
        Acceleration::Auto if is_accelerated(machine) => "KVM, which can nest here",
        Acceleration::Auto => "emulated, as no KVM here can nest",
    }
}

/// Starts QEMU with `image` as its CD.
///
/// # Errors
/// Fails when QEMU does not start or KVM is asked for where there is none.
pub fn start(qemu: &Qemu, machine: &Machine, image: &Path) -> Result<Running> {
    let folder = tempfile::tempdir()?;
    ensure!(
        machine.acceleration != Acceleration::Kvm || can_nest(),
        "no KVM here that can run a hypervisor: use --accel tcg"
    );
    let accelerated = is_accelerated(machine);
    let mut command = Command::new(&qemu.program.path);
    command.args(arguments(machine, image, accelerated));
    if machine.firmware == Firmware::Uefi {
        let variables = folder.path().join("variables.fd");
        fs::copy(&qemu.ovmf_variables, &variables)
            .with_context(|| format!("cannot copy {}", qemu.ovmf_variables.display()))?;
        command.arg("-drive").arg(flash(&qemu.ovmf_code, true)).arg("-drive").arg(flash(&variables, false));
    }
    let (sender, events) = channel();
    let mut guests = None;
    if machine.guests {
        let socket = folder.path().join("guests");
        guests = Some(UnixListener::bind(&socket).with_context(|| format!("cannot make {}", socket.display()))?);
        command.arg("-chardev").arg(format!("socket,id=guests,path={}", socket.display()));
        command.args(["-serial", "chardev:guests"]);
    }
    let messages = folder.path().join("messages");
    let monitor = folder.path().join("monitor");
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
    let mut child = command
        .stdin(if machine.interactive { Stdio::inherit() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(File::create(&messages)?)
        .spawn()
        .with_context(|| format!("cannot start {}", qemu.program.path.display()))?;
    let stdout = child.stdout.take().context("QEMU has no standard output")?;
    serial::read_pipe(stdout, sender.clone());
    let guests = guests.map(|listener| accept(listener, sender));
    Ok(Running {
        child,
        events,
        guests,
        held: None,
        ended: None,
        messages: Messages(vec![messages]),
        monitor: Some(monitor),
        _folder: folder,
    })
}

/// Takes the call by which QEMU connects the second serial line, which it does before it starts the machine.
///
/// A QEMU that refuses to start never calls, so nobody waits here; the thread's end then is this process's.
fn accept(listener: UnixListener, sender: Sender<Event>) -> GuestLine {
    let (input, to_write) = channel();
    let events = sender.clone();
    thread::spawn(move || {
        let Ok((line, _)) = listener.accept() else { return };
        let Ok(reader) = line.try_clone() else { return };
        serial::read_guests(reader, sender);
        serial::write_guests(line, &to_write);
    });
    GuestLine { input, events }
}

fn is_accelerated(machine: &Machine) -> bool {
    match machine.acceleration {
        Acceleration::Tcg => false,
        Acceleration::Auto => !machine.deterministic && can_nest(),
        Acceleration::Kvm => true,
    }
}

fn arguments(machine: &Machine, image: &Path, accelerated: bool) -> Vec<OsString> {
    let mut line: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| line.extend(words.iter().map(OsString::from));
    add(&["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
    add(&["-machine", "q35", "-smp", &machine.cpus.to_string(), "-m", &machine.memory.to_string()]);
    if accelerated {
        add(&["-accel", "kvm", "-cpu", "host"]);
    } else if machine.deterministic {
        // The x2APIC's registers of time stop QEMU with "Bad icount read": it does not take MSR accesses for I/O.
        // Random numbers and the time of day would reach into how kernels lay their memory out.
        add(&["-accel", "tcg,thread=single", "-cpu", "max,x2apic=off,rdrand=off,rdseed=off"]);
        add(&["-icount", "shift=0,sleep=off", "-rtc", "base=2025-01-01,clock=vm"]);
    } else {
        add(&["-accel", "tcg,thread=multi", "-cpu", "max"]);
    }
    // Ctrl-C is for this tool, so QEMU leaves signals to the terminal.
    add(&["-chardev", "stdio,id=serial,signal=on", "-serial", "chardev:serial", "-device", DEBUG_EXIT]);
    if machine.debugger {
        add(&["-gdb", "tcp:127.0.0.1:1234", "-S"]);
    }
    add(&["-cdrom"]);
    line.push(image.into());
    line.extend(machine.devices.arguments());
    line
}

fn flash(path: &Path, read_only: bool) -> OsString {
    let mut drive =
        OsString::from(format!("if=pflash,format=raw,readonly={},file=", if read_only { "on" } else { "off" }));
    drive.push(path);
    drive
}

/// Whether KVM is there and may run guests that are hypervisors themselves.
fn can_nest() -> bool {
    let nested = |module: &str| {
        fs::read_to_string(format!("/sys/module/{module}/parameters/nested"))
            .is_ok_and(|text| ["Y", "1"].contains(&text.trim()))
    };
    let usable = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    usable && (nested("kvm_intel") || nested("kvm_amd"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Emulator;

    fn words(machine: &Machine, accelerated: bool) -> String {
        let words = arguments(machine, Path::new("/x.iso"), accelerated);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_machine_is_as_asked_for() {
        let line = words(&Machine::new(Emulator::Qemu, 4), false);
        for part in ["-smp 4", "-m 1024M", "-cpu max", "-cdrom /x.iso", "iobase=0xf4"] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("-icount"));
    }

    #[test]
    fn a_deterministic_machine_counts_instructions() {
        let machine = Machine { deterministic: true, ..Machine::new(Emulator::Qemu, 1) };
        assert!(words(&machine, false).contains("-icount shift=0,sleep=off"));
    }

    #[test]
    fn the_debugger_is_reachable_from_this_machine_only() {
        let machine = Machine { debugger: true, ..Machine::new(Emulator::Qemu, 1) };
        assert!(words(&machine, false).contains("-gdb tcp:127.0.0.1:1234 -S"));
    }
}
