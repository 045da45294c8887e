//! Runs a command with its output in a file, a time limit, and an end for everything that it started.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::emulator::interrupt;

/// What a command came to.
#[derive(Debug)]
pub struct Finished {
    /// Whether it ended with status 0.
    pub success: bool,
    /// The status that it ended with by itself.
    pub status: Option<i32>,
    /// Whether it was cut off.
    pub timed_out: bool,
    /// Everything that it printed on both outputs.
    pub output: String,
}

/// Runs `command`, appending what it prints to the file `log`.
///
/// # Errors
/// Fails when the command cannot be started, or the user interrupts it.
pub fn run(command: &mut Command, log: &Path, limit: Duration) -> Result<Finished> {
    const TICK: Duration = Duration::from_millis(30);
    interrupt::listen()?;
    let file = File::options().create(true).append(true).open(log);
    let mut file = file.with_context(|| format!("cannot write {}", log.display()))?;
    let start_of_output = usize::try_from(file.metadata()?.len())?;
    std::io::Write::write_all(&mut file, format!("$ {}\n", shown(command)).as_bytes())?;
    // A process group of its own, so that test programs end with the cargo that started them.
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut group = Group(command.spawn().with_context(|| format!("cannot start {}", shown(command)))?);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = group.0.try_wait()? {
            break Some(status);
        }
        if interrupt::requested() {
            bail!("interrupted");
        }
        if start.elapsed() > limit {
            break None;
        }
        thread::sleep(TICK);
    };
    drop(group);
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(Finished {
        success: status.is_some_and(|status| status.success()),
        status: status.and_then(|status| status.code()),
        timed_out: status.is_none(),
        output: String::from_utf8_lossy(&bytes[start_of_output.min(bytes.len())..]).into_owned(),
    })
}

/// A process that leads a group; dropping it kills the whole group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Fails when all of the group has ended, as it should have.
        if let Some(leader) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, limit: Duration) -> Finished {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("sh").args(["-c", script]), &folder.path().join("log"), limit).unwrap()
    }

    #[test]
    fn both_outputs_and_the_status_are_kept() {
        let finished = shell("echo one; echo two >&2; exit 3", LONG);
        assert!(!finished.success && !finished.timed_out);
        assert!(finished.output.ends_with("one\ntwo\n"), "{}", finished.output);
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended_with_what_it_started() {
        let start = Instant::now();
        let finished = shell("sleep 50 & sleep 50", Duration::from_millis(100));
        assert!(finished.timed_out && !finished.success);
        assert!(start.elapsed() < Duration::from_secs(40));
    }

    #[test]
    fn each_run_reads_its_own_part_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        run(Command::new("echo").arg("first"), &log, LONG).unwrap();
        let second = run(Command::new("echo").arg("second"), &log, LONG).unwrap();
        assert!(!second.output.contains("first"));
        assert!(fs::read_to_string(&log).unwrap().contains("first"));
    }
}
