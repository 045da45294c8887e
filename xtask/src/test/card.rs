//! The card's process under an unmodified QEMU: Debian's own virtio driver reads and writes a disk of the card, or of a server that
//! the card is a client of.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    command::{self, Finished},
    report::{Outcome, StageResult},
    select::is_wanted,
};
use crate::{
    build::{
        Project,
        cargo::{self, Profile, Program},
    },
    guest::initramfs,
    tools::{
        Tools,
        guests::{GuestKernel, GuestLinux},
        rust,
    },
};

const CARD: Program<'_> = Program { package: "dragonfly-offload-card", bin: "offload-card", features: &[] };
/// What the guest says of each check.
const CHECKS: [&str; 5] = [
    "the disk is found",
    "it is as described",
    "what is written is read",
    "each round is whole",
    "what is discarded is gone",
];
/// A disk of 131,072 sectors, but for where it is.
const MACHINE_FILE: &str = "[[disk]]\nname = \"disk\"\nsocket = \"disk.sock\"\nserial = \"card-test\"\nqueues = 2\n";
const SERVER_SOCKET: &str = "nbd.sock";
const DISK_BYTES: u64 = 64 << 20;
const AT_MOST: Duration = Duration::from_secs(240);

/// One run of the guest.
struct Case {
    name: &'static str,
    /// Options of QEMU's device.
    device: &'static str,
    /// Whether the disk is at a server, `qemu-nbd`, and not in a file of the card's.
    is_remote: bool,
    /// How often the card dies while the guest writes, or the server if there is one.
    deaths: usize,
}

const CASES: [Case; 4] = [
    Case { name: "split rings", device: "num-queues=2", is_remote: false, deaths: 0 },
    Case { name: "packed rings", device: "num-queues=2,packed=on", is_remote: false, deaths: 0 },
    Case { name: "a card that dies", device: "num-queues=2", is_remote: false, deaths: 5 },
    Case { name: "a server that dies", device: "num-queues=2,packed=on", is_remote: true, deaths: 5 },
];

/// Builds the card's program for the host.
///
/// # Errors
/// Fails when it cannot be built.
pub fn program(tools: &Tools, project: &Project) -> Result<PathBuf> {
    cargo::build_bin_for(project, tools.is_offline(), &CARD, Profile::Release, rust::HOST_TARGET)
}

/// Runs each case.
///
/// # Errors
/// Fails when something cannot be had, built or started, or the user interrupts.
pub fn run(
    tools: &Tools,
    project: &Project,
    stage: &'static str,
    logs: &Path,
    filters: &[String],
) -> Result<StageResult> {
    let start = Instant::now();
    let program = program(tools, project)?;
    let kernel = tools.guest_kernel(GuestLinux::Debian12Cloud)?;
    let folder = tempfile::tempdir()?;
    let initrd = folder.path().join("initrd");
    fs::write(&initrd, initramfs::build_with_devices(&tools.busybox()?, &kernel, &project.root)?)?;
    let log = logs.join(format!("{stage}.log"));
    fs::write(&log, "")?;
    let parts = Parts { tools, program, kernel, initrd, folder: folder.path(), log: &log };
    let mut outcomes = Vec::new();
    let mut excerpt = Vec::new();
    for case in CASES {
        if !is_wanted(case.name, filters) {
            continue;
        }
        let ran = parts.run(&case)?;
        let judged = judge(&case, &ran);
        if judged.iter().any(|outcome| outcome.failure.is_some()) {
            excerpt.extend(ran.guest.output.lines().map(str::to_string));
        }
        outcomes.extend(judged);
    }
    let duration = start.elapsed();
    Ok(StageResult { stage, outcomes, notes: Vec::new(), excerpt, log: Some(log), duration })
}

/// What became of a case.
struct Ran {
    guest: Finished,
    /// How often the card or the server was killed.
    deaths: usize,
    /// Status of the last card; none if it did not end when it was asked to.
    card: Option<i32>,
}

struct Parts<'a> {
    tools: &'a Tools,
    program: PathBuf,
    kernel: GuestKernel,
    initrd: PathBuf,
    folder: &'a Path,
    log: &'a Path,
}

impl Parts<'_> {
    fn run(&self, case: &Case) -> Result<Ran> {
        let medium = if case.is_remote {
            format!("nbd = \"nbd+unix:///?socket={SERVER_SOCKET}\"\n")
        } else {
            "image = \"disk.img\"\n".into()
        };
        fs::write(self.folder.join("card.toml"), format!("{MACHINE_FILE}{medium}"))?;
        File::create(self.folder.join("disk.img"))?.set_len(DISK_BYTES)?;
        let mut server = if case.is_remote { Some(self.start_server()?) } else { None };
        let mut card = Some(self.start_card()?);
        let mut qemu = self.qemu(case)?;
        let console = self.folder.join("console");
        fs::write(&console, "")?;
        let mut deaths = 0;
        let guest = thread::scope(|scope| -> Result<Finished> {
            let running = scope.spawn(|| command::run(&mut qemu, &console, AT_MOST));
            while !running.is_finished() {
                let rounds = fs::read_to_string(&console).map_or(0, |text| text.matches("note round").count());
                if deaths < case.deaths && rounds > 2 * deaths {
                    deaths += 1;
                    // The next one wants the disk for itself.
                    if let Some(server) = &mut server {
                        server.kill();
                        *server = self.start_server()?;
                    } else {
                        drop(card.take());
                        card = Some(self.start_card()?);
                    }
                }
                thread::sleep(Duration::from_millis(20));
            }
            running.join().ok().context("the thread of QEMU has panicked")?
        })?;
        let output = format!("{}\n", guest.output);
        std::io::Write::write_all(&mut File::options().append(true).open(self.log)?, output.as_bytes())?;
        Ok(Ran { guest, deaths, card: card.map_or(Ok(None), |mut card| card.stop())? })
    }

    /// A card that serves.
    fn start_card(&self) -> Result<Running> {
        let log = File::options().append(true).open(self.log)?;
        let mut command = Command::new(&self.program);
        command.arg("--machine").arg(self.folder.join("card.toml")).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running::start(&mut command)
    }

    /// A server that listens.
    fn start_server(&self) -> Result<Running> {
        let socket = self.folder.join(SERVER_SOCKET);
        // There is none at first.
        let _ = fs::remove_file(&socket);
        let log = File::options().append(true).open(self.log)?;
        let mut command = Command::new(&self.tools.qemu_nbd()?.path);
        command.args(["--persistent", "--shared=0", "--format=raw", "--discard=unmap"]);
        command.arg(format!("--socket={}", socket.display())).arg(self.folder.join("disk.img")).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Running::start(&mut command)?;
        server.wait_for(&[socket]).with_context(|| format!("qemu-nbd: see {}", self.log.display()))?;
        Ok(server)
    }

    fn qemu(&self, case: &Case) -> Result<Command> {
        let mut command = Command::new(&self.tools.qemu()?.program.path);
        let socket = self.folder.join("disk.sock");
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.args(["-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-m", "256M", "-smp", "2"]);
        command.args(["-machine", "q35,memory-backend=ram", "-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.arg("-chardev").arg(format!("socket,id=disk,path={},reconnect-ms=100", socket.display()));
        command.args(["-device", &format!("vhost-user-blk-pci,chardev=disk,{}", case.device)]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&self.initrd);
        let words = "console=ttyS0 quiet panic=-1 no_timer_check df.run=card";
        command.args(["-append", &format!("{words} df.rounds={}", 2 * case.deaths + 2)]);
        Ok(command)
    }
}

/// A running card, or its server or client; dropping it kills it.
pub(super) struct Running(Child);

impl Running {
    /// Starts it.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().display().to_string();
        Ok(Self(command.spawn().with_context(|| format!("cannot start {program}"))?))
    }

    /// Waits until it has made all of these.
    pub(super) fn wait_for(&mut self, files: &[PathBuf]) -> Result<()> {
        let start = Instant::now();
        while !files.iter().all(|file| file.exists()) {
            ensure!(self.0.try_wait()?.is_none(), "it has ended");
            ensure!(start.elapsed() < Duration::from_secs(10), "it does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What it reads.
    pub(super) fn input(&mut self) -> Result<&mut ChildStdin> {
        self.0.stdin.as_mut().context("it reads nothing")
    }

    /// Its status; none if it does not end in time.
    pub(super) fn status(&mut self, at_most: Duration) -> Result<Option<i32>> {
        let start = Instant::now();
        while start.elapsed() < at_most {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.code());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Asks it to end; gives its status.
    pub(super) fn stop(&mut self) -> Result<Option<i32>> {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(id.context("the card has no process number")?, Signal::TERM)?;
        self.status(Duration::from_secs(10))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn judge(case: &Case, ran: &Ran) -> Vec<Outcome> {
    let said = |what: &str| ran.guest.output.lines().any(|line| line.trim_end() == what);
    let mut outcomes: Vec<_> = CHECKS
        .iter()
        .map(|check| {
            let fails = format!("[check] fail {check}: ");
            let why = ran.guest.output.lines().find_map(|line| line.trim_end().strip_prefix(&fails));
            match why {
                None if said(&format!("[check] ok {check}")) => Outcome::passed(check),
                why => Outcome::failed(check, why.unwrap_or("the guest does not say so")),
            }
        })
        .collect();
    outcomes.push(match ran.card {
        _ if ran.guest.timed_out => Outcome::failed("end", "the guest does not come to its end"),
        _ if ran.deaths != case.deaths => Outcome::failed("end", &format!("there were {} deaths", ran.deaths)),
        Some(0) if ran.guest.success => Outcome::passed("end"),
        status => Outcome::failed("end", &format!("the guest {:?}, the card {status:?}", ran.guest.status)),
    });
    for outcome in &mut outcomes {
        outcome.name = format!("{}: {}", case.name, outcome.name);
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(output: &str, card: Option<i32>) -> Vec<Outcome> {
        let guest = Finished { success: true, status: Some(0), timed_out: false, output: output.into() };
        judge(&CASES[0], &Ran { guest, deaths: 0, card })
    }

    #[test]
    fn a_guest_that_says_that_all_is_well_passes_with_a_card_that_ends() {
        let all: String = CHECKS.iter().map(|check| format!("[check] ok {check}\r\n")).collect();
        assert!(judged(&all, Some(0)).iter().all(|outcome| outcome.failure.is_none()));
        assert_eq!(judged(&all, None).iter().filter(|outcome| outcome.failure.is_some()).count(), 1);
    }

    #[test]
    fn what_fails_says_why_and_what_is_not_said_fails() {
        let outcomes = judged("[check] fail it is as described: 7\r\n", Some(0));
        let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.failure.as_deref()).collect();
        assert_eq!(failures.len(), CHECKS.len());
        assert!(failures.contains(&"7"));
    }
}
