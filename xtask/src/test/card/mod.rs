//! The card's process under an unmodified QEMU: Debian's own virtio drivers have disks or networks of the card.

mod disks;
mod networks;
mod running;

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

pub(super) use self::running::Running;
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
/// Socket of the server of a guest that has one.
const SERVER_SOCKET: &str = "nbd.sock";
const DISK_BYTES: u64 = 64 << 20;
const AT_MOST: Duration = Duration::from_secs(240);

/// Which devices of the card a stage is about.
#[derive(Clone, Copy, Debug)]
pub enum Devices {
    /// Disks: what is written is read.
    Disks,
    /// Networks: what is sent arrives.
    Networks,
}

/// One run of a guest with devices of the card.
struct Guest {
    name: &'static str,
    /// What it says of each check.
    checks: &'static [&'static str],
    /// The card's machine file.
    machine_file: String,
    /// QEMU's options for the devices; paths are below the run's folder.
    options: Vec<String>,
    cpus: usize,
    /// Words of the kernel's command line, above all which script the guest runs.
    words: String,
    /// Whether there is a server, `qemu-nbd`, that the card is a client of.
    has_server: bool,
    /// How often the card dies while the guest is at work, or the server if there is one.
    deaths: usize,
}

/// Builds the card's program for the host.
///
/// # Errors
/// Fails when it cannot be built.
pub fn program(tools: &Tools, project: &Project) -> Result<PathBuf> {
    cargo::build_bin_for(project, tools.is_offline(), &CARD, Profile::Release, rust::HOST_TARGET)
}

/// Runs each guest of a stage.
///
/// # Errors
/// Fails when something cannot be had, built or started, or the user interrupts.
pub fn run(
    tools: &Tools,
    project: &Project,
    stage: &'static str,
    devices: Devices,
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
    let guests = match devices {
        Devices::Disks => disks::guests(),
        Devices::Networks => networks::guests(),
    };
    for guest in guests {
        if !is_wanted(guest.name, filters) {
            continue;
        }
        let ran = parts.run(&guest)?;
        let judged = judge(&guest, &ran);
        if judged.iter().any(|outcome| outcome.failure.is_some()) {
            excerpt.extend(ran.guest.output.lines().map(str::to_string));
        }
        outcomes.extend(judged);
    }
    let duration = start.elapsed();
    Ok(StageResult { stage, outcomes, notes: Vec::new(), excerpt, log: Some(log), duration })
}

/// What became of a run.
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
    fn run(&self, guest: &Guest) -> Result<Ran> {
        fs::write(self.folder.join("card.toml"), &guest.machine_file)?;
        File::create(self.folder.join("disk.img"))?.set_len(DISK_BYTES)?;
        let mut server = if guest.has_server { Some(self.start_server()?) } else { None };
        let mut card = Some(self.start_card()?);
        let mut qemu = self.qemu(guest)?;
        let console = self.folder.join("console");
        fs::write(&console, "")?;
        let mut deaths = 0;
        let finished = thread::scope(|scope| -> Result<Finished> {
            let running = scope.spawn(|| command::run(&mut qemu, &console, AT_MOST));
            while !running.is_finished() {
                let rounds = fs::read_to_string(&console).map_or(0, |text| text.matches("note round").count());
                if deaths < guest.deaths && rounds > 2 * deaths {
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
        let output = format!("{}\n", finished.output);
        std::io::Write::write_all(&mut File::options().append(true).open(self.log)?, output.as_bytes())?;
        Ok(Ran { guest: finished, deaths, card: card.map_or(Ok(None), |mut card| card.stop())? })
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

    fn qemu(&self, guest: &Guest) -> Result<Command> {
        let mut command = Command::new(&self.tools.qemu()?.program.path);
        command.current_dir(self.folder);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
        command.args(["-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-m", "256M"]);
        command.args(["-machine", "q35,memory-backend=ram", "-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-smp", &guest.cpus.to_string()]).args(&guest.options);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&self.initrd);
        let words = format!("console=ttyS0 quiet panic=-1 no_timer_check {}", guest.words);
        command.args(["-append", &format!("{words} df.rounds={}", 2 * guest.deaths + 2)]);
        Ok(command)
    }
}

fn judge(guest: &Guest, ran: &Ran) -> Vec<Outcome> {
    let said = |what: &str| ran.guest.output.lines().any(|line| line.trim_end() == what);
    let mut outcomes: Vec<_> = guest
        .checks
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
        _ if ran.deaths != guest.deaths => Outcome::failed("end", &format!("there were {} deaths", ran.deaths)),
        Some(0) if ran.guest.success => Outcome::passed("end"),
        status => Outcome::failed("end", &format!("the guest {:?}, the card {status:?}", ran.guest.status)),
    });
    for outcome in &mut outcomes {
        outcome.name = format!("{}: {}", guest.name, outcome.name);
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(guest: &Guest, output: &str, card: Option<i32>) -> Vec<Outcome> {
        let finished = Finished { success: true, status: Some(0), timed_out: false, output: output.into() };
        judge(guest, &Ran { guest: finished, deaths: 0, card })
    }

    #[test]
    fn a_guest_that_says_that_all_is_well_passes_with_a_card_that_ends() {
        let guest = &disks::guests()[0];
        let all: String = guest.checks.iter().map(|check| format!("[check] ok {check}\r\n")).collect();
        assert!(judged(guest, &all, Some(0)).iter().all(|outcome| outcome.failure.is_none()));
        assert_eq!(judged(guest, &all, None).iter().filter(|outcome| outcome.failure.is_some()).count(), 1);
    }

    #[test]
    fn what_fails_says_why_and_what_is_not_said_fails() {
        let guest = &disks::guests()[0];
        let outcomes = judged(guest, "[check] fail it is as described: 7\r\n", Some(0));
        let failures: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.failure.as_deref()).collect();
        assert_eq!(failures.len(), guest.checks.len());
        assert!(failures.contains(&"7"));
    }
}
