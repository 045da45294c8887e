//! `cargo xtask run` as its user has it: Debian on the card's devices, entered by SSH through a port of this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    guest::disk,
    run::free_port,
    test::{
        command::{self, Finished},
        report::{Outcome, StageResult},
        select::is_wanted,
    },
    tools::Tools,
};

/// What the guest is asked, and what it must answer.
const QUESTION: &str = "hostname; ip -4 -o address show dev eth0; grep ' / ' /proc/mounts; touch /kept && echo written";
const ANSWERS: [(&str, &str); 4] = [
    ("the guest has the name that DHCP gave it", "debian\n"),
    ("it has the address that leads to it", " 10.0.2.15/24 "),
    ("its root is on the disk", "/dev/vda / ext4 rw"),
    ("its disk can be written to", "\nwritten\n"),
];
const END: &str = "poweroff -f";

/// Starts `run` and enters the guest.
///
/// # Errors
/// Fails when a program cannot be had or started, or the user interrupts.
pub fn run(tools: &Tools, stage: &'static str, logs: &Path, filters: &[String]) -> Result<StageResult> {
    // With the time to build what the guest needs.
    const AT_MOST: Duration = Duration::from_secs(1200);
    let start = Instant::now();
    let log = logs.join(format!("{stage}.log"));
    let entered = logs.join(format!("{stage}-ssh.log"));
    fs::write(&log, "")?;
    fs::write(&entered, "")?;
    let image = disk::ensure(tools)?;
    let before = fs::metadata(&image.image)?.modified()?;
    let port = free_port()?;
    let mut machine = Command::new("/proc/self/exe");
    machine.args(tools.is_offline().then_some("--offline")).args(["run", "--headless", "--timeout", "280"]);
    machine.args(["--forward", &format!("{port}:22")]).stdin(Stdio::null());
    let client = Client { program: tools.disk_tools()?.dbclient, identity: image.keys.dropbear_identity(), port };
    let (answer, machine) = thread::scope(|scope| -> Result<(String, Finished)> {
        let running = scope.spawn(|| command::run(&mut machine, &log, AT_MOST));
        let mut answer = String::new();
        while answer.is_empty() && !running.is_finished() {
            thread::sleep(Duration::from_secs(1));
            answer = client.ask(QUESTION, &entered)?;
        }
        client.ask(END, &entered)?;
        let machine = running.join().ok().context("the thread of `run` has panicked")?;
        Ok((answer, machine?))
    })?;
    let mut outcomes: Vec<_> = ANSWERS
        .iter()
        .map(|(name, words)| {
            if answer.contains(words) {
                Outcome::passed(name)
            } else {
                Outcome::failed(name, &format!("it says {answer:?}"))
            }
        })
        .collect();
    outcomes.push(match machine.status {
        Some(0) => Outcome::passed("end"),
        status => Outcome::failed("end", &format!("exit status {status:?}")),
    });
    let is_untouched = fs::metadata(&image.image)?.modified()? == before;
    let untouched = "the cache's image is as it was";
    outcomes.push(if is_untouched {
        Outcome::passed(untouched)
    } else {
        Outcome::failed(untouched, "it was written to")
    });
    outcomes.retain(|outcome| is_wanted(&outcome.name, filters));
    let has_failed = outcomes.iter().any(|outcome| outcome.failure.is_some());
    let excerpt = if has_failed { machine.output.lines().map(str::to_string).collect() } else { Vec::new() };
    Ok(StageResult { stage, outcomes, notes: Vec::new(), excerpt, log: Some(log), duration: start.elapsed() })
}

/// An SSH client that has the user's key.
struct Client {
    program: PathBuf,
    identity: PathBuf,
    port: u16,
}

impl Client {
    /// What the guest answers; nothing while it cannot be reached.
    fn ask(&self, question: &str, log: &Path) -> Result<String> {
        const AT_MOST: Duration = Duration::from_secs(20);
        let mut command = Command::new(&self.program);
        // The port is one that this program has chosen, so whoever answers there is the guest.
        command.args(["-y", "-y", "-i"]).arg(&self.identity).args(["-p", &self.port.to_string()]);
        let finished = command::run(command.args(["root@127.0.0.1", question]), log, AT_MOST)?;
        Ok(if finished.success { finished.output } else { String::new() })
    }
}
