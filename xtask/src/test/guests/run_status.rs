//! The exit status of `cargo xtask run`, and what it says about the user's faults.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    test::{
        command::{self, Finished},
        report::{Outcome, StageResult},
        select::is_wanted,
    },
    tools::Tools,
};

/// A use of `run`, and what must come of it.
#[derive(Debug)]
struct Case {
    name: &'static str,
    /// Contents of the machine file `m.toml`, if it is to be there.
    machine_file: Option<&'static str>,
    arguments: &'static [&'static str],
    status: u8,
    says: &'static str,
}

const CASES: [Case; 12] = [
    Case {
        name: "a machine file that is not there",
        machine_file: None,
        arguments: &["--machine", "m.toml"],
        status: 2,
        says: "--machine m.toml: cannot be read",
    },
    Case {
        name: "a machine file with an unknown key",
        machine_file: Some("name = \"a\"\nvcpu = 2\nkernel = \"k\"\n"),
        arguments: &["--machine", "m.toml"],
        status: 2,
        says: "m.toml:2: `vcpu` is not a known key: did you mean `vcpus`?",
    },
    Case {
        name: "a machine file whose kernel is not there",
        machine_file: Some("name = \"a\"\nkernel = \"k\"\n"),
        arguments: &["--machine", "m.toml"],
        status: 2,
        says: "m.toml:2: `kernel` is \"k\", but k cannot be read",
    },
    Case {
        name: "a machine file whose disk is not there",
        machine_file: Some("name = \"a\"\nkernel = \"m.toml\"\n[[disk]]\nname = \"d\"\nimage = \"d.img\"\n"),
        arguments: &["--machine", "m.toml"],
        status: 2,
        says: "m.toml:5: `image` is \"d.img\", but d.img cannot be read",
    },
    Case {
        name: "a network with an unknown key",
        machine_file: Some("name = \"a\"\nkernel = \"m.toml\"\n[[net]]\nname = \"n\"\nmacs = \"x\"\n"),
        arguments: &["--machine", "m.toml"],
        status: 2,
        says: "m.toml:5: `macs` is not a known key: did you mean `mac`?",
    },
    Case {
        name: "a port to a guest without a network",
        machine_file: None,
        arguments: &["--kernel", "/proc/version", "--forward", "8080:80"],
        status: 2,
        says: "--forward 8080:80: there is no guest 0 with a network",
    },
    Case {
        name: "a kernel that is not there",
        machine_file: None,
        arguments: &["--kernel", "none"],
        status: 2,
        says: "--kernel none: cannot be read",
    },
    Case {
        name: "an option that there is not",
        machine_file: None,
        arguments: &["--vcpu", "2"],
        status: 2,
        says: "--vcpu",
    },
    Case {
        name: "a file that is no kernel",
        machine_file: Some("name = \"a\"\nkernel = \"m.toml\"\n"),
        arguments: &["--machine", "m.toml", "--timeout", "120"],
        status: 2,
        says: "m.toml:2: `kernel`",
    },
    Case {
        name: "a frequency of the time-stamp counter that the processor does not have",
        machine_file: Some("name = \"a\"\nkernel = \"m.toml\"\ntsc_khz = 123457\n"),
        arguments: &["--machine", "m.toml", "--timeout", "120"],
        status: 2,
        says: "m.toml:3: `tsc_khz` is 123457, but this processor does not scale time-stamp counters: leave it out",
    },
    Case {
        name: "a guest that crashes",
        machine_file: None,
        arguments: &[
            "--no-devices",
            "--timeout",
            "120",
            "--cmdline",
            "console=ttyS0 quiet df.run=crash panic=-1 reboot=t",
        ],
        status: 3,
        says: "guest debian crashed",
    },
    Case {
        name: "a time-out",
        machine_file: None,
        arguments: &["--timeout", "4"],
        status: 4,
        says: "time-out after 4 s",
    },
];

/// Runs each case with this very program.
///
/// # Errors
/// Fails when the program cannot be started, or the user interrupts.
pub fn run(tools: &Tools, stage: &'static str, logs: &Path, filters: &[String]) -> Result<StageResult> {
    const AT_MOST: Duration = Duration::from_secs(300);
    let start = Instant::now();
    let log = logs.join(format!("{stage}.log"));
    fs::write(&log, "")?;
    // The file may have been built anew since this program was started.
    let program = std::path::PathBuf::from("/proc/self/exe");
    let mut result = StageResult {
        stage,
        outcomes: Vec::new(),
        notes: Vec::new(),
        excerpt: Vec::new(),
        log: Some(log.clone()),
        duration: Duration::ZERO,
    };
    for case in CASES {
        if !is_wanted(case.name, filters) {
            continue;
        }
        let folder = tempfile::tempdir()?;
        if let Some(text) = case.machine_file {
            fs::write(folder.path().join("m.toml"), text)?;
        }
        let mut command = Command::new(&program);
        command.args(tools.is_offline().then_some("--offline"));
        command.args(["run", "--headless"]).args(case.arguments);
        command.current_dir(folder.path()).stdin(Stdio::null());
        let finished = command::run(&mut command, &log, AT_MOST)?;
        let outcome = judge(&case, &finished);
        if outcome.failure.is_some() {
            result.excerpt.extend(finished.output.lines().map(str::to_string));
        }
        result.outcomes.push(outcome);
    }
    result.duration = start.elapsed();
    Ok(result)
}

fn judge(case: &Case, finished: &Finished) -> Outcome {
    let status = finished.status;
    if status != Some(case.status.into()) {
        let shown = status.map_or("none".into(), |status| status.to_string());
        Outcome::failed(case.name, &format!("exit status {shown}, not {}", case.status))
    } else if !finished.output.contains(case.says) {
        Outcome::failed(case.name, &format!("it did not say: {}", case.says))
    } else {
        Outcome::passed(case.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: Option<i32>, output: &str) -> Option<String> {
        let finished = Finished { success: status == Some(0), timed_out: false, status, output: output.into() };
        judge(&CASES[0], &finished).failure
    }

    #[test]
    fn both_status_and_words_count() {
        assert_eq!(judged(Some(2), "error: --machine m.toml: cannot be read: no such file"), None);
        assert_eq!(judged(Some(1), "--machine m.toml: cannot be read").as_deref(), Some("exit status 1, not 2"));
        assert_eq!(judged(None, "").as_deref(), Some("exit status none, not 2"));
        assert!(judged(Some(2), "error").is_some());
    }
}
