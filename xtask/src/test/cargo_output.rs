//! Reads the results of single tests out of what cargo-nextest and `cargo test` print.

use super::report::Outcome;

/// What test programs reported.
#[derive(Debug, Default)]
pub struct Results {
    /// One for each test.
    pub outcomes: Vec<Outcome>,
    /// Tests that were not run because they are marked so.
    pub ignored: Vec<String>,
}

/// Reads the output of `cargo nextest run --status-level all` or of `cargo test`.
#[must_use]
pub fn read(output: &str) -> Results {
    let mut results = Results::default();
    let mut program = "";
    for line in output.lines() {
        if let Some(name) = test_program(line) {
            program = name;
        }
        match nextest_line(line).or_else(|| libtest_line(line)) {
            Some((name, Status::Passed)) => results.outcomes.push(Outcome::passed(&full_name(program, name))),
            Some((name, Status::Failed(how))) => {
                let name = full_name(program, name);
                if !results.outcomes.iter().any(|outcome| outcome.name == name && outcome.failure.is_some()) {
                    results.outcomes.push(Outcome::failed(&name, how));
                }
            }
            Some((name, Status::Ignored)) => results.ignored.push(full_name(program, name)),
            None => {}
        }
    }
    results
}

/// Lines of the output that explain a failure.
#[must_use]
pub fn excerpt(output: &str) -> Vec<String> {
    const LAST_LINES: usize = 120;
    const NOISE: [&str; 12] = [
        "PASS ",
        "Compiling ",
        "Checking ",
        "Downloaded ",
        "Downloading ",
        "Running ",
        "Fresh ",
        "Locking ",
        "Updating ",
        "running ",
        "Finished ",
        "Blocking ",
    ];
    let is_telling = |line: &&str| {
        let text = line.trim_start();
        !text.is_empty() && !NOISE.iter().any(|noise| text.starts_with(noise)) && !text.ends_with("... ok")
    };
    let lines: Vec<_> = output.lines().filter(is_telling).map(str::to_string).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
}

enum Status<'a> {
    Passed,
    Failed(&'a str),
    Ignored,
}

/// A line like `        PASS [   0.010s] ( 1/52) xtask size::tests::sizes_are_read`.
fn nextest_line(line: &str) -> Option<(&str, Status<'_>)> {
    let (word, rest) = line.trim_start().split_once(" [")?;
    let status = match word {
        "PASS" | "LEAK" => Status::Passed,
        "FAIL" => Status::Failed("failed"),
        "TIMEOUT" => Status::Failed("took too long"),
        "ABORT" | "EXECFAIL" | "LEAK-FAIL" => Status::Failed("ended abnormally"),
        word if word.starts_with("SIG") => Status::Failed("was killed by a signal"),
        _ => return None,
    };
    let (_, rest) = rest.split_once("s] ")?;
    let rest = rest.trim_start();
    let name = if rest.starts_with('(') { rest.split_once(") ")?.1 } else { rest };
    Some((name.trim(), status))
}

/// A line like `test size::tests::sizes_are_read ... ok`.
fn libtest_line(line: &str) -> Option<(&str, Status<'_>)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.trim_end_matches(" - should panic");
    match result.split([',', ' ']).next()? {
        "ok" => Some((name, Status::Passed)),
        "FAILED" => Some((name, Status::Failed("failed"))),
        "ignored" => Some((name, Status::Ignored)),
        _ => None,
    }
}

/// The program that the following `test …` lines come from.
fn test_program(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(name);
    }
    let (_, path) = line.strip_prefix("Running ")?.rsplit_once('(')?;
    let file = path.trim_end_matches(')').rsplit('/').next()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _)| name))
}

fn full_name(program: &str, test: &str) -> String {
    let test = test.replace(' ', "/");
    if program.is_empty() { test } else { format!("{program}/{test}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(outcomes: &[Outcome]) -> Vec<(&str, bool)> {
        outcomes.iter().map(|outcome| (outcome.name.as_str(), outcome.failure.is_none())).collect()
    }

    #[test]
    fn nextests_lines_are_read() {
        let output = "   Compiling xtask v0.1.0\n\
                      \u{20}       PASS [   0.010s] ( 1/52) xtask size::tests::good\n\
                      \u{20}       FAIL [   0.010s] (10/52) acpi::fuzz_acpi bad\n\
                      \u{20}       SLOW [> 60.000s] ( 2/52) acpi slow\n\
                      \u{20}    SIGABRT [   1.010s] rt aborts\n\
                      \u{20}       FAIL [   0.010s] (10/52) acpi::fuzz_acpi bad\n\
                      \u{20}    Summary [   0.347s] 52 tests run: 52 passed, 0 skipped\n";
        let results = read(output);
        assert_eq!(
            names(&results.outcomes),
            [("xtask/size::tests::good", true), ("acpi::fuzz_acpi/bad", false), ("rt/aborts", false)]
        );
    }

    #[test]
    fn cargo_tests_lines_are_read() {
        let output = "     Running unittests src/lib.rs (target/debug/deps/xtask-1a2b)\n\
                      test size::tests::good ... ok\n\
                      test size::tests::bad ... FAILED\n\
                      test size::tests::later ... ignored, no time\n\
                      test result: FAILED. 1 passed; 1 failed\n\
                      \u{20}  Doc-tests dragonfly_abi\n\
                      test kernel/abi/src/lib.rs - (line 12) ... ok\n";
        let results = read(output);
        assert_eq!(
            names(&results.outcomes),
            [
                ("xtask/size::tests::good", true),
                ("xtask/size::tests::bad", false),
                ("dragonfly_abi/kernel/abi/src/lib.rs/-/(line/12)", true)
            ]
        );
        assert_eq!(results.ignored, ["xtask/size::tests::later"]);
    }

    #[test]
    fn what_a_test_prints_is_no_result() {
        assert!(read("PASS: everything\ntest the water ... later\n").outcomes.is_empty());
    }

    #[test]
    fn the_excerpt_leaves_out_what_went_well() {
        let output = "  Compiling a v1\n  PASS [ 0.1s] a b\ntest c ... ok\nthread panicked\n\n  FAIL [ 0.1s] a d\n";
        assert_eq!(excerpt(output), ["thread panicked", "  FAIL [ 0.1s] a d"]);
    }
}
