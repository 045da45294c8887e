//! Starting a helper program that is expected to succeed and has nothing to show.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `command` to its end.
///
/// # Errors
/// Fails when it cannot be started or ends with an error; the message has what it said about that.
pub fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", first_lines(&output.stderr));
    }
    Ok(())
}

/// The first lines of an error output, on one line.
#[must_use]
pub fn first_lines(error_output: &[u8]) -> String {
    const LINES: usize = 4;
    let text = String::from_utf8_lossy(error_output);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(LINES).collect();
    if lines.is_empty() { "it gave no reason".into() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_the_program_said() {
        let error = run(Command::new("sh").args(["-c", "echo no disk >&2; exit 1"])).unwrap_err();
        assert_eq!(error.to_string(), "sh failed: no disk");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/program"), "{error}");
    }

    #[test]
    fn silence_is_told_as_such() {
        assert_eq!(first_lines(b"\n  \n"), "it gave no reason");
    }
}
