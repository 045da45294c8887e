//! A process that a test has started.

use std::{
    path::PathBuf,
    process::{Child, ChildStdin, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A running card, or its server or client; dropping it kills it.
pub struct Running(Child);

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().display().to_string();
        Ok(Self(command.spawn().with_context(|| format!("cannot start {program}"))?))
    }

    /// Waits until it has made all of these.
    pub fn wait_for(&mut self, files: &[PathBuf]) -> Result<()> {
        let start = Instant::now();
        while !files.iter().all(|file| file.exists()) {
            ensure!(self.0.try_wait()?.is_none(), "it has ended");
            ensure!(start.elapsed() < Duration::from_secs(10), "it does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What it reads.
    pub fn input(&mut self) -> Result<&mut ChildStdin> {
        self.0.stdin.as_mut().context("it reads nothing")
    }

    /// Its status; none if it does not end in time.
    pub fn status(&mut self, at_most: Duration) -> Result<Option<i32>> {
        let start = Instant::now();
        while start.elapsed() < at_most {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.code());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Asks it to end; gives its status.
    pub fn stop(&mut self) -> Result<Option<i32>> {
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
