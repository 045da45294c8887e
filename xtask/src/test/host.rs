//! The stages that run on the host: format, lints, tests, Miri, loom, fuzzing.

use std::{
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use anyhow::{Result, ensure};
use cargo_metadata::{Package, Target};

use super::{
    cargo_output,
    command::{self, Finished},
    plan::Level,
    report::{Outcome, StageResult},
    select::is_wanted,
    work::HostWork,
};
use crate::{
    build::Project,
    tools::{Tools, on_path, rust},
};

/// Everything that a host stage needs to know.
#[derive(Debug)]
pub struct HostStage<'a> {
    /// Finds cargo.
    pub tools: &'a Tools,
    /// The workspace.
    pub project: &'a Project,
    /// The stage's name.
    pub name: &'static str,
    /// What it does.
    pub work: HostWork,
    /// How much is tested.
    pub level: Level,
    /// Substrings of test names; none for all.
    pub filters: Vec<String>,
    /// Folder for logs.
    pub logs: &'a Path,
}

impl HostStage<'_> {
    /// Runs the stage.
    ///
    /// # Errors
    /// Fails when a program cannot be started, or the user interrupts.
    pub fn run(&self) -> Result<StageResult> {
        let start = Instant::now();
        let mut result = StageResult::start(self.name, self.logs.join(format!("{}.log", self.name)))?;
        match self.work {
            HostWork::Format => {
                rust::ensure_components(self.tools.is_offline())?;
                let mut command = self.cargo();
                self.one_check(
                    &mut result,
                    "all",
                    command.args(["fmt", "--all", "--check", "--", "--color", "never"]),
                )?;
            }
            HostWork::LintHost => {
                rust::ensure_components(self.tools.is_offline())?;
                let mut command = self.cargo();
                command.args(["clippy", "--all-targets"]);
                for package in self.packages() {
                    command.args(["--package", &package.name]);
                }
                self.one_check(&mut result, "all", command.args(["--", "--deny", "warnings"]))?;
            }
            HostWork::LintBare => self.lint_bare(&mut result)?,
            HostWork::Tests => self.host_tests(&mut result)?,
            HostWork::DocTests => self.doc_tests(&mut result)?,
            HostWork::Loom => self.loom(&mut result)?,
            HostWork::Miri => self.miri(&mut result)?,
            HostWork::Fuzz => self.fuzz(&mut result)?,
            HostWork::Network => self.network(&mut result)?,
        }
        result.duration = start.elapsed();
        Ok(result)
    }

    fn packages(&self) -> impl Iterator<Item = &Package> {
        self.project.metadata.workspace_packages().into_iter()
    }

    fn cargo(&self) -> Command {
        rust::cargo(self.tools.is_offline())
    }

    /// Every crate that runs on metal, in the shape in which it runs there.
    fn lint_bare(&self, result: &mut StageResult) -> Result<()> {
        rust::ensure_components(self.tools.is_offline())?;
        rust::ensure_bare_target(self.tools.is_offline())?;
        for package in self.packages().filter(|package| !is_host_only(package)) {
            let mut command = self.cargo();
            command.args(["clippy", "--bins", "--target", rust::BARE_TARGET, "--package", &package.name]);
            if package.targets.iter().any(Target::is_lib) {
                command.arg("--lib");
            }
            if package.features.contains_key("image") {
                command.args(["--features", "image"]);
            }
            self.one_check(result, &package.name, command.args(["--", "--deny", "warnings"]))?;
        }
        Ok(())
    }

    fn host_tests(&self, result: &mut StageResult) -> Result<()> {
        let mut command = self.test_runner();
        for package in self.packages() {
            command.args(["--package", &package.name]);
        }
        command.arg("--lib");
        for target in self.packages().flat_map(test_targets).filter(|target| kind(target) == Kind::Plain) {
            command.args(["--test", &target.name]);
        }
        self.many_tests(result, "all", &mut command, Ignored::Fails)
    }

    fn doc_tests(&self, result: &mut StageResult) -> Result<()> {
        let mut command = self.cargo();
        command.args(["test", "--no-fail-fast", "--doc"]);
        for package in self.packages() {
            command.args(["--package", &package.name]);
        }
        self.many_tests(result, "all", &mut command, Ignored::Fails)
    }

    /// Models live in test targets whose names begin with `loom`; only they are built with `--cfg loom`.
    fn loom(&self, result: &mut StageResult) -> Result<()> {
        for package in self.packages().filter(|package| flag(package, "loom")) {
            let targets: Vec<_> = test_targets(package).filter(|target| kind(target) == Kind::Loom).collect();
            ensure!(!targets.is_empty(), "{} says `loom = true` but has no tests/loom*.rs", package.name);
            let mut command = self.cargo();
            command.args(["test", "--release", "--no-fail-fast", "--package", &package.name]);
            for target in targets {
                command.args(["--test", &target.name]);
            }
            // Optimised, or the number of interleavings takes minutes; unwinding, which loom reports failures by.
            command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", self.target_folder("loom"));
            command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
            command.env("CARGO_PROFILE_RELEASE_PANIC", "unwind");
            self.many_tests(result, &package.name, &mut command, Ignored::Fails)?;
        }
        Ok(())
    }

    /// Packages go side by side, as the interpreter has one CPU for all threads of a program.
    fn miri(&self, result: &mut StageResult) -> Result<()> {
        rust::ensure_miri(self.tools.is_offline())?;
        let parts = thread::scope(|scope| {
            let packages = self.packages().filter_map(|package| Some((package, miri_tests(package)?)));
            let threads: Vec<_> =
                packages.map(|(package, only)| scope.spawn(move || self.miri_of(package, only))).collect();
            let ends = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            ends.collect::<Result<Vec<_>>>()
        })?;
        for part in parts {
            result.take(part)?;
        }
        Ok(())
    }

    /// A test may be marked as too slow for the interpreter, as it runs on the host all the same.
    fn miri_of(&self, package: &Package, only: Option<Vec<String>>) -> Result<StageResult> {
        let mut result = StageResult::start(self.name, self.logs.join(format!("{}-{}.log", self.name, package.name)))?;
        let mut command = rust::nightly_cargo(self.tools.is_offline());
        command.args(["miri", "test", "--no-fail-fast", "--package", &package.name, "--lib"]);
        for target in test_targets(package).filter(|target| kind(target) == Kind::Plain) {
            command.args(["--test", &target.name]);
        }
        let cases = if self.level == Level::Soak { "64" } else { "4" };
        command.env("PROPTEST_CASES", cases).env("MIRIFLAGS", "-Zmiri-disable-isolation");
        command.env("CARGO_TARGET_DIR", self.target_folder("miri"));
        match only {
            None => self.many_tests(&mut result, &package.name, &mut command, Ignored::Passes)?,
            Some(mut only) => {
                only.retain(|name| is_wanted(name, &self.filters));
                if !only.is_empty() {
                    self.filtered_tests(&mut result, &package.name, &mut command, Ignored::Passes, &only)?;
                }
            }
        }
        Ok(result)
    }

    fn fuzz(&self, result: &mut StageResult) -> Result<()> {
        let mut command = self.test_runner();
        let mut found = Vec::new();
        for package in self.packages() {
            let targets: Vec<_> = test_targets(package).filter(|target| kind(target) == Kind::Fuzz).collect();
            if !targets.is_empty() {
                command.args(["--package", &package.name]);
            }
            for target in targets {
                command.args(["--test", &target.name]);
                found.push(target.name.as_str());
            }
        }
        for name in self.packages().flat_map(declared_fuzz_targets) {
            ensure!(
                found.contains(&name),
                "fuzz target {name} is declared in a manifest but there is no tests/{name}.rs"
            );
        }
        if found.is_empty() {
            return Ok(());
        }
        command.env("DRAGONFLY_FUZZ_SECONDS", self.level.fuzz_seconds().to_string());
        self.many_tests(result, "all", &mut command, Ignored::Fails)
    }

    /// Tests in network namespaces, where this machine permits some, live in test targets whose names begin with `network`;
    /// they are told where tools are.
    fn network(&self, result: &mut StageResult) -> Result<()> {
        if let Some(why) = why_no_namespaces() {
            result.notes.push(format!("NOT RUN, so nothing is known of it: {why}"));
            return Ok(());
        }
        let peers = self.tools.peers()?;
        let mut command = self.test_runner();
        for package in self.packages() {
            for target in test_targets(package).filter(|target| kind(target) == Kind::Network) {
                command.args(["--package", &package.name, "--test", &target.name]);
            }
        }
        command.env("DRAGONFLY_OVS", peers.bin()).env("DRAGONFLY_OVS_SCHEMA", &peers.schema);
        self.many_tests(result, "all", &mut command, Ignored::Fails)
    }

    /// cargo-nextest where there is one, else `cargo test`.
    fn test_runner(&self) -> Command {
        let mut command = self.cargo();
        if on_path("cargo-nextest").is_some() {
            command.args(["nextest", "run", "--no-fail-fast", "--color", "never", "--status-level", "all"]);
            command.args(["--final-status-level", "none", "--no-tests", "pass"]);
        } else {
            command.args(["test", "--no-fail-fast"]);
        }
        command
    }

    fn target_folder(&self, name: &str) -> PathBuf {
        self.project.metadata.target_directory.join(name).into()
    }

    /// A command that is one test.
    fn one_check(&self, result: &mut StageResult, name: &str, command: &mut Command) -> Result<()> {
        if !is_wanted(name, &self.filters) {
            return Ok(());
        }
        let finished = self.start(result, command)?;
        result.outcomes.push(match why_failed(&finished) {
            None => Outcome::passed(name),
            Some(why) => {
                result.excerpt.extend(cargo_output::excerpt(&finished.output));
                Outcome::failed(name, why)
            }
        });
        Ok(())
    }

    /// A command that runs many tests; `name` stands for them if they do not get as far as that.
    fn many_tests(&self, result: &mut StageResult, name: &str, command: &mut Command, ignored: Ignored) -> Result<()> {
        self.filtered_tests(result, name, command, ignored, &self.filters)
    }

    fn filtered_tests(
        &self,
        result: &mut StageResult,
        name: &str,
        command: &mut Command,
        ignored: Ignored,
        filters: &[String],
    ) -> Result<()> {
        if !filters.is_empty() {
            command.arg("--").args(filters);
        }
        let finished = self.start(result, command)?;
        let mut results = cargo_output::read(&finished.output);
        if ignored == Ignored::Fails {
            let names = results.ignored.iter();
            results
                .outcomes
                .extend(names.map(|name| Outcome::failed(name, "is marked to be ignored: nothing may be skipped")));
        }
        let explained = results.outcomes.iter().any(|outcome| outcome.failure.is_some());
        if let Some(why) = why_failed(&finished).filter(|_| !explained) {
            results.outcomes.push(Outcome::failed(name, why));
        }
        if results.outcomes.iter().any(|outcome| outcome.failure.is_some()) {
            result.excerpt.extend(cargo_output::excerpt(&finished.output));
        }
        result.outcomes.extend(results.outcomes);
        Ok(())
    }

    fn start(&self, result: &StageResult, command: &mut Command) -> Result<Finished> {
        let log = result.log.as_deref().unwrap_or(self.logs);
        command::run(command.current_dir(&self.project.root), log, self.level.command_limit())
    }
}

/// What an ignored test means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ignored {
    Fails,
    Passes,
}

fn why_failed(finished: &Finished) -> Option<&'static str> {
    match finished {
        Finished { timed_out: true, .. } => Some("took too long and was ended"),
        Finished { success: false, .. } => Some("the command failed"),
        _ => None,
    }
}

/// Test targets by the way they are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Fuzz,
    Loom,
    Network,
}

fn kind(target: &Target) -> Kind {
    if target.name.starts_with("fuzz_") {
        Kind::Fuzz
    } else if target.name.starts_with("loom") {
        Kind::Loom
    } else if target.name.starts_with("network") {
        Kind::Network
    } else {
        Kind::Plain
    }
}

fn test_targets(package: &Package) -> impl Iterator<Item = &Target> {
    package.targets.iter().filter(|target| target.is_test())
}

/// A value of the manifest's `[package.metadata.dragonfly]`.
fn setting<'a>(package: &'a Package, name: &str) -> Option<&'a serde_json::Value> {
    package.metadata.get("dragonfly")?.get(name)
}

fn flag(package: &Package, name: &str) -> bool {
    setting(package, name).and_then(serde_json::Value::as_bool).unwrap_or(false)
}

/// Which tests of a package run under Miri: none, all, or those whose names are given, where all would take too long.
fn miri_tests(package: &Package) -> Option<Option<Vec<String>>> {
    match setting(package, "miri")? {
        serde_json::Value::Array(names) => {
            Some(Some(names.iter().filter_map(|name| name.as_str().map(str::to_string)).collect()))
        }
        value => value.as_bool()?.then_some(None),
    }
}

fn declared_fuzz_targets(package: &Package) -> impl Iterator<Item = &str> {
    setting(package, "fuzz")
        .and_then(serde_json::Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_str)
}

/// Whether a package is never built for the bare target: this tool is not.
fn is_host_only(package: &Package) -> bool {
    package.name == env!("CARGO_PKG_NAME") || flag(package, "host-only")
}

/// Why nobody here can make a network namespace with a TAP device; nothing if somebody can.
fn why_no_namespaces() -> Option<String> {
    if let Some(name) = ["ip", "unshare"].into_iter().find(|name| on_path(name).is_none()) {
        return Some(format!("`{name}` is missing: install the packages iproute2 and util-linux"));
    }
    let try_it = ["--user", "--map-root-user", "--net", "ip", "tuntap", "add", "mode", "tap", "name", "tap0"];
    match Command::new("unshare").args(try_it).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "this machine permits no network namespace with a TAP device: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        )),
        Err(error) => Some(format!("cannot start `unshare`: {error}")),
    }
}
