//! The stages that boot Linux guests, as `run` does, and see what they do.
//!
//! [`scenario`] is the table of guests, [`console`] takes down what they print and answers what they ask, [`judge`] reads
//! it, [`messages`] finds kernel messages that tell of trouble, [`direct`] learns which of those mean nothing.
//! [`bare`] are the guests without an operating system. [`run_status`] tests the exit status of `run` itself.

pub mod bare;
pub mod console;
pub mod direct;
pub mod judge;
pub mod messages;
pub mod run_status;
pub mod scenario;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use dragonfly_machine_file::MachineFile;

use self::{
    console::Consoles,
    direct::DirectBoots,
    scenario::{INITRD, KERNEL, LinuxGuest, Scenario},
};
use super::report::{Outcome, StageResult};
use crate::{
    build::{Project, cargo::Profile, iso},
    cli::Emulator,
    emulator::{self, Boot, Limits, Machine, backtrace},
    guest::{
        description::{self, Guest},
        initramfs,
    },
    run::host_memory,
    tools::Tools,
};

/// Everything that a stage with guests needs to know.
#[derive(Debug)]
pub struct GuestStage<'a> {
    /// Finds emulators, kernels and busybox.
    pub tools: &'a Tools,
    /// The workspace.
    pub project: &'a Project,
    /// The stage's name.
    pub name: &'static str,
    /// The guests, and what they are to do.
    pub scenario: &'a Scenario,
    /// What kernels say on an emulator.
    pub direct: &'a DirectBoots,
    /// Substrings of outcomes to show; none for all.
    pub filters: Vec<String>,
    /// Folder for logs.
    pub logs: &'a Path,
}

impl GuestStage<'_> {
    /// Boots and judges.
    ///
    /// # Errors
    /// Fails when something cannot be had or built, or an emulator does not start.
    pub fn run(&self) -> Result<StageResult> {
        let Scenario { emulator, cpus, guests: plans, at_most_s } = *self.scenario;
        let guests = plans.iter().map(|plan| self.guest(plan)).collect::<Result<Vec<_>>>()?;
        description::check(&guests, cpus)?;
        let parts = self.project.build_for_guests(self.tools, &guests, Profile::Release)?;
        let command_line = format!("log=info exit={}", emulator.word());
        let image = iso::make(self.project, &self.tools.iso()?, &parts, &command_line)?;
        let memory = host_memory(&guests, parts.bundle.len());
        let machine = Machine { guests: true, memory, ..Machine::new(emulator, cpus) };
        let limits = Limits { total: Some(Duration::from_secs(at_most_s)), silence: None };
        let mut consoles = Consoles::new(plans.iter().map(|plan| plan.boots));
        let boot = emulator::boot(self.tools, &machine, &image, limits, &mut consoles)?;

        let mut outcomes = vec![judge_host(plans, &boot)];
        let mut notes = Vec::new();
        for (plan, console) in plans.iter().zip(&consoles.guests) {
            let known = self.direct.messages(self.tools, self.project, plan.linux, emulator)?;
            // Bochs counts its instructions, whatever time they take.
            outcomes.extend(judge::judge(plan, console, &known, emulator == Emulator::Qemu));
            let start = judge::start_s(console);
            notes.extend(start.map(|seconds| format!("{}: first program after {seconds} s", plan.name)));
        }
        let is_wanted = |outcome: &Outcome| self.filters.iter().any(|filter| outcome.name.contains(filter.as_str()));
        outcomes.retain(|outcome| self.filters.is_empty() || is_wanted(outcome));

        let mut text = boot.log.clone();
        text.extend(backtrace::explain(&boot, &parts.kernel));
        for (plan, console) in plans.iter().zip(&consoles.guests) {
            let lines = console.lines.iter();
            text.extend(lines.map(|line| format!("{:9.3} {}: {}", line.at.as_secs_f64(), plan.name, line.text)));
        }
        text.push(format!("xtask: {}", boot.end));
        let log = self.logs.join(format!("{}.log", self.name));
        fs::write(&log, text.join("\n") + "\n")?;
        Ok(StageResult {
            stage: self.name,
            excerpt: excerpt(&text, &boot, &outcomes),
            outcomes,
            notes,
            log: Some(log),
            duration: boot.duration,
        })
    }

    fn guest(&self, plan: &LinuxGuest) -> Result<Guest> {
        let kernel = self.tools.guest_kernel(plan.linux)?.image;
        let kernel = fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
        let initrd = initramfs::build(&self.tools.busybox()?, &self.project.root)?;
        let text = plan.machine_file();
        let machine = MachineFile::parse(plan.name, &text)?;
        Ok(Guest { machine, text, files: vec![(KERNEL.into(), kernel), (INITRD.into(), initrd)], source: None })
    }
}

/// The hypervisor ends well if all of its guests do; it never panics.
fn judge_host(plans: &[LinuxGuest], boot: &Boot) -> Outcome {
    const NAME: &str = "hypervisor";
    let is_clean = plans.iter().all(|plan| plan.script.end() == crate::guest::stream::GuestEnd::PoweredOff);
    match boot.end {
        emulator::End::Exit(code) if (code == 0) == is_clean => Outcome::passed(NAME),
        end => Outcome::failed(NAME, &end.to_string()),
    }
}

/// What explains a failure: the end of the log and what the emulator had to say.
fn excerpt(text: &[String], boot: &Boot, outcomes: &[Outcome]) -> Vec<String> {
    const LAST_LINES: usize = 60;
    if outcomes.iter().all(|outcome| outcome.failure.is_none()) {
        return Vec::new();
    }
    let mut excerpt = text[text.len().saturating_sub(LAST_LINES)..].to_vec();
    excerpt.extend(boot.emulator_messages.lines().map(str::to_string));
    excerpt
}
