//! The stages that boot the test domain in an emulator.

use std::{fs, path::Path, time::Duration};

use anyhow::Result;

use super::{
    devices::Scratch,
    plan::Level,
    protocol,
    report::{Outcome, StageResult},
    work::{BootWork, Clock, Subject},
};
use crate::{
    build::{Parts, Project, iso},
    cli::Emulator,
    emulator::{self, End, Limits, Machine, Watcher, backtrace},
    tools::Tools,
};

/// Everything that a boot stage needs to know.
#[derive(Debug)]
pub struct BootStage<'a> {
    /// Finds the emulators.
    pub tools: &'a Tools,
    /// The workspace.
    pub project: &'a Project,
    /// What is booted.
    pub parts: &'a Parts,
    /// The stage's name.
    pub name: &'static str,
    /// The machine, and what is tested on it.
    pub work: BootWork,
    /// How much is tested.
    pub level: Level,
    /// Substrings of test names; none for all.
    pub filters: Vec<String>,
    /// Folder for logs.
    pub logs: &'a Path,
}

impl BootStage<'_> {
    /// Boots and judges.
    ///
    /// # Errors
    /// Fails when the image cannot be made or the emulator does not start.
    pub fn run(&self) -> Result<StageResult> {
        let image = iso::make(self.project, &self.tools.iso()?, self.parts, &self.command_line())?;
        let scratch = (self.work.subject == Subject::Devices).then(Scratch::new).transpose()?;
        let devices = scratch.as_ref().map(Scratch::devices).unwrap_or_default();
        let machine = Machine { devices, ..self.work.machine() };
        let boot = emulator::boot(self.tools, &machine, &image, self.limits(), &mut Silent)?;
        let mut verdict = protocol::judge(&boot.log, boot.end);
        if let Some(scratch) = scratch.filter(|_| self.filters.is_empty()) {
            verdict.outcomes.push(scratch.judge()?);
        }
        let trace = backtrace::explain(&boot, &self.parts.kernel);
        if self.work.subject == Subject::Panic {
            verdict.outcomes = judge_panic(&boot.log, boot.end, &trace);
        }

        let mut excerpt = Vec::new();
        let mut failed: Vec<_> = verdict.outcomes.iter().filter(|outcome| outcome.failure.is_some()).collect();
        if failed.len() > 1 {
            // What goes wrong in a test mostly shows in the boot as a whole too.
            failed.retain(|outcome| outcome.name != protocol::BOOT);
        }
        for outcome in failed {
            excerpt.push(format!("--- {} ---", outcome.name));
            excerpt.extend_from_slice(protocol::excerpt(&boot.log, &outcome.name));
        }
        if !trace.is_empty() {
            excerpt.push("--- where it ended ---".into());
            excerpt.extend(trace.iter().cloned());
        }
        if !boot.emulator_messages.is_empty() {
            excerpt.push("--- the emulator's own messages ---".into());
            excerpt.extend(boot.emulator_messages.lines().map(str::to_string));
        }
        let log = self.logs.join(format!("{}.log", self.name));
        let text = [boot.log.join("\n"), trace.join("\n"), format!("xtask: {}\n", boot.end)].join("\n");
        fs::write(&log, text)?;
        Ok(StageResult {
            stage: self.name,
            outcomes: verdict.outcomes,
            notes: verdict.notes,
            excerpt,
            log: Some(log),
            duration: boot.duration,
        })
    }

    fn command_line(&self) -> String {
        let mut words = vec![
            "log=info".to_string(),
            format!("exit={}", self.work.emulator.word()),
            format!("test.level={}", self.length().word()),
            format!("test.deterministic={}", u8::from(self.keeps_time())),
        ];
        let filters = match self.work.subject {
            // Bochs takes a minute for what QEMU does in seconds.
            Subject::Everything if self.is_short() => SHORT_TESTS.map(str::to_string).to_vec(),
            Subject::Everything | Subject::Supervisor | Subject::Devices | Subject::Card => self.filters.clone(),
            Subject::Boot => vec![BOOT_TESTS.to_string()],
            Subject::DirtyLog(words_of_kernel) => {
                words.push(words_of_kernel.to_string());
                DIRTY_LOG_TESTS.map(str::to_string).to_vec()
            }
            Subject::Panic => {
                words.push("panic=test".to_string());
                Vec::new()
            }
        };
        if !filters.is_empty() {
            // Tests are named by sentences, but a word of the command line has no blanks.
            words.push(format!("test.filter={}", filters.join(",").replace(' ', "_")));
        }
        words.join(" ")
    }

    /// How long the tests are: what is long runs in its short form but in a soak.
    fn length(&self) -> Level {
        if self.level == Level::Whole { Level::Quick } else { self.level }
    }

    /// Whether what tests measure is exact. CPUs of a QEMU that counts instructions take turns, each while the others'
    /// time passes too.
    fn keeps_time(&self) -> bool {
        self.work.clock == Clock::Exact && (self.work.cpus == 1 || self.work.emulator == Emulator::Bochs)
    }

    fn is_short(&self) -> bool {
        self.level != Level::Soak && self.work.emulator == Emulator::Bochs && self.filters.is_empty()
    }

    fn limits(&self) -> Limits {
        match self.work.subject {
            Subject::Everything | Subject::Supervisor | Subject::Devices | Subject::Card => self.level.boot_limits(),
            Subject::Boot | Subject::DirtyLog(_) | Subject::Panic => {
                Limits { total: Some(BOOT_AT_MOST), silence: Some(BOOT_SILENCE) }
            }
        }
    }
}

/// What of the tests runs in Bochs for a first answer.
const SHORT_TESTS: [&str; 5] = ["boot", "registers", "handles", "ipc", "faults"];
/// Filter for the tests about booting: each CPU is up, each CPU runs threads.
pub const BOOT_TESTS: &str = "boot";
/// Filters for the tests of the log of pages that a guest writes.
const DIRTY_LOG_TESTS: [&str; 3] =
    ["pages that a guest writes", "no write is lost while several vCPUs", "a log of written pages is"];
const BOOT_AT_MOST: Duration = Duration::from_secs(900);
const BOOT_SILENCE: Duration = Duration::from_secs(180);

/// What a kernel that was told to panic must leave behind.
fn judge_panic(log: &[String], end: End, trace: &[String]) -> Vec<Outcome> {
    let judge =
        |name: &str, holds: bool| if holds { Outcome::passed(name) } else { Outcome::failed(name, "it is not so") };
    let said = |text: &str| log.iter().any(|line| line.contains(text));
    vec![
        judge("the emulator ends by a panic", end == End::Panic),
        judge("the panic says its reason", said("panic: CPU 0: asked for on the command line")),
        judge(
            "the back-trace leads to the function and line",
            trace.iter().any(|line| line.contains("go_on"))
                && trace.iter().any(|line| line.contains("kernel/src/arch/x86_64/boot.rs:")),
        ),
    ]
}

struct Silent;

impl Watcher for Silent {}
