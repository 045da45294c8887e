//! What a test domain says on the serial line.
//!
//! One line each, with or without a log prefix: `[test] start NAME`, `[test] pass NAME`, `[test] fail NAME: MESSAGE`,
//! `[test] note NAME: TEXT`, and last `[test] end PASSED FAILED`.

use super::report::Outcome;
use crate::emulator::End;

/// One line of the protocol.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Start(&'a str),
    Pass(&'a str),
    Fail(&'a str, &'a str),
    Note(&'a str, &'a str),
    End(usize, usize),
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (_, rest) = line.split_once("[test] ")?;
    let (word, rest) = rest.split_once(' ')?;
    let rest = rest.trim();
    let split = || rest.split_once(": ").unwrap_or((rest.trim_end_matches(':'), ""));
    match word {
        "start" => Some(Line::Start(rest)),
        "pass" => Some(Line::Pass(rest)),
        "fail" => {
            let (name, message) = split();
            Some(Line::Fail(name, message))
        }
        "note" => {
            let (name, text) = split();
            Some(Line::Note(name, text))
        }
        "end" => {
            let (passed, failed) = rest.split_once(' ')?;
            Some(Line::End(passed.parse().ok()?, failed.parse().ok()?))
        }
        _ => None,
    }
}

/// Name of the outcome that stands for the boot as a whole.
pub const BOOT: &str = "boot";

/// What the domain's tests and the boot itself came to.
#[derive(Debug, Default)]
pub struct Verdict {
    /// One for each test, and one for the boot.
    pub outcomes: Vec<Outcome>,
    /// Figures that tests report, as `NAME: TEXT`.
    pub notes: Vec<String>,
}

/// Judges a boot of the test domain by its log and its end.
///
/// The boot itself fails when the machine crashed, hung or lied: ended without `[test] end`, left a test without a
/// result, counted other than what it showed, or left with an exit code that does not fit.
#[must_use]
pub fn judge(log: &[String], end: End) -> Verdict {
    let mut verdict = Verdict::default();
    let mut running: Option<&str> = None;
    let mut counted = None;
    let mut problems = Vec::new();
    for line in log.iter().filter_map(|line| parse(line)) {
        match line {
            Line::Start(name) => {
                if let Some(name) = running.replace(name) {
                    verdict.outcomes.push(Outcome::failed(name, "the next test began before this one had a result"));
                }
            }
            Line::Pass(name) if running != Some(name) => {
                problems.push(format!("{name} passed, but was not running"));
            }
            Line::Pass(name) => {
                running = None;
                verdict.outcomes.push(Outcome::passed(name));
            }
            Line::Fail(name, message) => {
                // What keeps tests from starting at all is reported without a start.
                running = running.filter(|running| *running != name);
                verdict.outcomes.push(Outcome::failed(name, message));
            }
            Line::Note(name, text) => verdict.notes.push(format!("{name}: {text}")),
            Line::End(passed, failed) => counted = Some((passed, failed)),
        }
    }
    if let Some(name) = running {
        verdict.outcomes.push(Outcome::failed(name, &format!("no result: {end}")));
    }
    let failed = verdict.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
    let shown = (verdict.outcomes.len() - failed, failed);
    match counted {
        None => problems.push(format!("no `[test] end`: {end}")),
        Some(counted) if counted != shown => problems.push(format!(
            "`[test] end` counts {} passed and {} failed, the log shows {} and {}",
            counted.0, counted.1, shown.0, shown.1
        )),
        Some(_) if !matches!(end, End::Exit(_)) => problems.push(format!("after the last test: {end}")),
        Some((_, 0)) if end != End::Exit(0) => problems.push(format!("all tests passed, and yet: {end}")),
        Some((_, failed)) if failed > 0 && end == End::Exit(0) => {
            problems.push("tests failed, and yet: clean exit".into())
        }
        Some(_) => {}
    }
    verdict.outcomes.push(if problems.is_empty() {
        Outcome::passed(BOOT)
    } else {
        Outcome::failed(BOOT, &problems.join("; "))
    });
    verdict
}

/// The part of the log that belongs to the test `name`, or its last lines if none does.
#[must_use]
pub fn excerpt<'a>(log: &'a [String], name: &str) -> &'a [String] {
    const LAST_LINES: usize = 60;
    let is_start = |line: &String| parse(line) == Some(Line::Start(name));
    let is_end = |line: &String| match parse(line) {
        Some(Line::Pass(found) | Line::Fail(found, _)) => found == name,
        _ => false,
    };
    match log.iter().position(is_start) {
        Some(start) => {
            let end = log[start..].iter().position(is_end).map_or(log.len(), |length| start + length + 1);
            &log[start..end]
        }
        None => &log[log.len().saturating_sub(LAST_LINES)..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Vec<String> {
        text.lines().map(str::to_string).collect()
    }

    fn failures(text: &str, end: End) -> Vec<String> {
        let outcomes = judge(&log(text), end).outcomes.into_iter();
        outcomes.filter_map(|outcome| Some(format!("{}: {}", outcome.name, outcome.failure?))).collect()
    }

    const GOOD: &str = "[test] start ipc/call\n[  1.2] INFO kernel-tests: [test] pass ipc/call\n\
                        [test] start budget\n[test] note budget: 0.3 % off\n[test] pass budget\n[test] end 2 0\n";

    #[test]
    fn lines_are_found_behind_a_log_prefix() {
        assert_eq!(parse("[   1.250] INFO tests: [test] pass ipc/call"), Some(Line::Pass("ipc/call")));
        assert_eq!(parse("[test] fail a: left: 1, right: 2"), Some(Line::Fail("a", "left: 1, right: 2")));
        assert_eq!(parse("[test] fail a"), Some(Line::Fail("a", "")));
        assert_eq!(parse("[test] end 12 3"), Some(Line::End(12, 3)));
    }

    #[test]
    fn other_lines_mean_nothing() {
        for line in ["", "[test]", "[test] end", "[test] end 1", "[test] end x y", "[test] pause a", "test start a"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_good_boot_passes_with_all_its_tests() {
        let verdict = judge(&log(GOOD), End::Exit(0));
        assert!(verdict.outcomes.iter().all(|outcome| outcome.failure.is_none()), "{:?}", verdict.outcomes);
        assert_eq!(verdict.outcomes.len(), 3);
        assert_eq!(verdict.notes, ["budget: 0.3 % off"]);
    }

    #[test]
    fn a_failed_test_fails_alone_when_the_domain_says_so_itself() {
        let text = "[test] start a\n[test] fail a: too late\n[test] end 0 1\n";
        assert_eq!(failures(text, End::Exit(1)), ["a: too late"]);
    }

    #[test]
    fn a_test_that_hangs_is_a_failure_of_test_and_boot() {
        let hang = End::Silent(std::time::Duration::from_secs(60));
        let failures = failures("[test] start a\n", hang);
        assert_eq!(failures.len(), 2);
        assert!(failures[0].starts_with("a: no result: hang"), "{failures:?}");
        assert!(failures[1].starts_with("boot: no `[test] end`"), "{failures:?}");
    }

    #[test]
    fn a_boot_that_says_nothing_is_a_failure() {
        assert_eq!(failures("", End::Exit(0)), ["boot: no `[test] end`: clean exit"]);
    }

    #[test]
    fn a_lost_result_is_a_failure() {
        let text = "[test] start a\n[test] start b\n[test] pass b\n[test] end 1 1\n";
        assert_eq!(failures(text, End::Exit(1)), ["a: the next test began before this one had a result"]);
    }

    #[test]
    fn counts_that_differ_from_what_was_shown_are_a_failure() {
        let text = GOOD.replace("end 2 0", "end 3 0");
        assert_eq!(failures(&text, End::Exit(0)).len(), 1);
    }

    #[test]
    fn a_test_that_passes_without_running_is_a_failure() {
        assert!(!failures("[test] pass a\n[test] end 1 0\n", End::Exit(0)).is_empty());
    }

    #[test]
    fn tests_that_could_not_be_started_are_a_failure_with_its_reason() {
        let text = "[test] fail runner/start: no memory\n[test] end 0 1\n";
        assert_eq!(failures(text, End::Exit(1)), ["runner/start: no memory"]);
    }

    #[test]
    fn an_end_that_does_not_fit_the_results_is_a_failure() {
        for end in [End::Exit(1), End::Panic, End::Died] {
            assert_eq!(failures(GOOD, end).len(), 1, "{end}");
        }
        assert_eq!(failures("[test] start a\n[test] fail a: x\n[test] end 0 1\n", End::Exit(0)).len(), 2);
    }

    #[test]
    fn the_excerpt_is_what_the_test_said() {
        let log = log(&format!("boot\n{GOOD}rest"));
        assert_eq!(excerpt(&log, "budget").len(), 3);
        assert_eq!(excerpt(&log, "unknown").len(), log.len());
    }
}
