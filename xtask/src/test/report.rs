//! Results: one line per stage while it goes, the log of what failed, and the counts at the end.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Name within its stage.
    pub name: String,
    /// Why it failed; none if it passed.
    pub failure: Option<String>,
}

impl Outcome {
    /// A test that passed.
    #[must_use]
    pub fn passed(name: &str) -> Self {
        Self { name: name.into(), failure: None }
    }

    /// A test that failed.
    #[must_use]
    pub fn failed(name: &str, why: &str) -> Self {
        Self { name: name.into(), failure: Some(why.into()) }
    }
}

/// What became of one stage.
#[derive(Debug)]
pub struct StageResult {
    /// The stage's name.
    pub stage: &'static str,
    /// Its tests.
    pub outcomes: Vec<Outcome>,
    /// Figures to show even when all is well.
    pub notes: Vec<String>,
    /// The part of the log that explains the failures.
    pub excerpt: Vec<String>,
    /// The whole log.
    pub log: Option<PathBuf>,
    /// Wall time.
    pub duration: Duration,
}

impl StageResult {
    /// A stage that begins; its log is empty.
    ///
    /// # Errors
    /// Fails when the log cannot be written.
    pub fn start(stage: &'static str, log: PathBuf) -> Result<Self> {
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Self {
            stage,
            outcomes: Vec::new(),
            notes: Vec::new(),
            excerpt: Vec::new(),
            log: Some(log),
            duration: Duration::ZERO,
        })
    }

    /// Takes what a part of the stage has come to, its log too.
    ///
    /// # Errors
    /// Fails when the logs cannot be read or written.
    pub fn take(&mut self, part: Self) -> Result<()> {
        self.outcomes.extend(part.outcomes);
        self.notes.extend(part.notes);
        self.excerpt.extend(part.excerpt);
        if let (Some(log), Some(of_part)) = (&self.log, part.log) {
            let mut log =
                File::options().append(true).open(log).with_context(|| format!("cannot open {}", log.display()))?;
            io::copy(&mut File::open(&of_part)?, &mut log)?;
            fs::remove_file(of_part)?;
        }
        Ok(())
    }

    /// A stage that could not run at all.
    #[must_use]
    pub fn broken(stage: &'static str, why: &anyhow::Error) -> Self {
        Self {
            stage,
            outcomes: vec![Outcome::failed("start", &format!("{why:#}"))],
            notes: Vec::new(),
            excerpt: Vec::new(),
            log: None,
            duration: Duration::ZERO,
        }
    }

    /// Whether no test failed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Whether the whole log has a text.
    #[must_use]
    pub fn log_has(&self, text: &str) -> bool {
        self.log
            .as_ref()
            .and_then(|log| fs::read(log).ok())
            .is_some_and(|log| String::from_utf8_lossy(&log).contains(text))
    }

    fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.outcomes.iter().filter_map(|outcome| Some((outcome.name.as_str(), outcome.failure.as_deref()?)))
    }

    /// Lines for the terminal, once the stage is over.
    fn lines(&self) -> Vec<String> {
        let failed = self.failures().count();
        let passed = self.outcomes.len() - failed;
        let seconds = self.duration.as_secs_f64();
        let mark = if failed == 0 { "ok    " } else { "FAILED" };
        let mut lines =
            vec![format!("{mark} {:<18} {passed:>4} passed {failed:>3} failed {seconds:>7.1} s", self.stage)];
        lines.extend(self.notes.iter().map(|note| format!("         {note}")));
        if failed > 0 {
            for (name, why) in self.failures() {
                lines.push(format!("       {}/{name}: {why}", self.stage));
            }
            lines.extend(self.excerpt.iter().map(|line| format!("       | {line}")));
            if let Some(log) = &self.log {
                lines.push(format!("       whole log: {}", log.display()));
            }
        }
        lines
    }
}

/// The results of all stages.
#[derive(Debug, Default)]
pub struct Report {
    results: Vec<StageResult>,
}

impl Report {
    /// Takes a stage's result and shows it.
    pub fn add(&mut self, result: StageResult) {
        for line in result.lines() {
            println!("{line}");
        }
        self.results.push(result);
    }

    /// Numbers of passed and failed tests.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let failed = self.results.iter().map(|result| result.failures().count()).sum();
        let all: usize = self.results.iter().map(|result| result.outcomes.len()).sum();
        (all - failed, failed)
    }

    /// The closing lines: what failed, by name, and the counts.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for result in &self.results {
            for (name, why) in result.failures() {
                lines.push(format!("failed: {}/{name}: {why}", result.stage));
            }
        }
        let (passed, failed) = self.counts();
        lines.push(format!("{passed} passed, {failed} failed"));
        lines
    }

    /// Whether anything ran and nothing failed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let (passed, failed) = self.counts();
        passed > 0 && failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcomes: Vec<Outcome>) -> Report {
        let mut report = Report::default();
        report.add(StageResult {
            stage: "host",
            outcomes,
            notes: Vec::new(),
            excerpt: Vec::new(),
            log: None,
            duration: Duration::ZERO,
        });
        report
    }

    #[test]
    fn the_last_line_counts_and_stands_alone() {
        let report = report(vec![Outcome::passed("a"), Outcome::failed("b", "x"), Outcome::passed("c")]);
        assert_eq!(report.summary(), ["failed: host/b: x", "2 passed, 1 failed"]);
        assert!(!report.is_success());
    }

    #[test]
    fn a_run_of_no_test_is_no_success() {
        assert!(!report(Vec::new()).is_success());
        assert_eq!(report(Vec::new()).summary(), ["0 passed, 0 failed"]);
    }

    #[test]
    fn a_stage_that_could_not_start_is_a_failure() {
        let mut report = Report::default();
        report.add(StageResult::broken("miri", &anyhow::anyhow!("no nightly")));
        assert_eq!(report.counts(), (0, 1));
    }
}
