//! What it takes to start a guest, from the command that does it to a line that the guest prints.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::ticks::now;

/// Starts `command`, waits for a line with `marker` on its standard output, ends it, and returns the ticks up to that
/// line.
///
/// # Errors
/// Fails when the command cannot be started or ends without such a line; its last lines are in the error.
pub fn measure(command: &mut Command, marker: &str) -> Result<u64> {
    let start = now();
    run_until(command, marker, |_| now() - start)
}

/// Starts `command`, waits for a line with `marker` on its standard output, asks `at_marker`, who sees the lines before,
/// and only then ends it.
///
/// # Errors
/// As of [`measure`].
pub fn run_until<T>(command: &mut Command, marker: &str, at_marker: impl FnOnce(&[String]) -> T) -> Result<T> {
    const SHOWN_LINES: usize = 20;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut reader = BufReader::new(child.stdout.take().context("no standard output")?);
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line).trim_end().to_string();
        if text.contains(marker) {
            let result = at_marker(&lines);
            child.kill()?;
            child.wait()?;
            return Ok(result);
        }
        lines.push(text);
        line.clear();
    }
    let status = child.wait()?;
    let last = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n");
    bail!("{} ended ({status}) without a line that holds {marker:?}\n{last}", command.get_program().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_time_ends_with_the_marker_and_so_does_the_command() {
        let ticks = measure(&mut shell("echo first; echo now: ready; exec sleep 1000"), "ready").unwrap();
        assert!(ticks > 0);
    }

    #[test]
    fn lines_before_the_marker_are_seen_while_the_command_runs() {
        let script = "echo first; echo second; echo ready; exec sleep 1000";
        assert_eq!(run_until(&mut shell(script), "ready", <[String]>::to_vec).unwrap(), ["first", "second"]);
    }

    #[test]
    fn a_command_that_ends_before_is_reported_with_its_last_lines() {
        let error = measure(&mut shell("echo no kernel; exit 3"), "ready").unwrap_err().to_string();
        assert!(error.contains("no kernel") && error.contains("ready") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_command_that_does_not_exist_is_reported() {
        assert!(measure(&mut Command::new("/nowhere/qemu"), "ready").unwrap_err().to_string().contains("nowhere"));
    }
}
