//! What all stages with guests share: one boot of an emulator with guests in it, and what is kept of it.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::Result;

use super::console::{Console, Consoles};
use crate::{
    build::{Parts, Project, cargo::Profile, iso},
    emulator::{self, Boot, GuestLine, Limits, Machine, Watcher, backtrace},
    guest::{
        bundle::Host,
        description::{self, Guest},
        devices,
    },
    run::host_memory,
    test::{
        report::{Outcome, StageResult},
        select::is_wanted,
    },
    tools::Tools,
};

/// What a stage with guests needs to know, whatever the guests are.
#[derive(Debug)]
pub struct GuestHost<'a> {
    /// Finds emulators, kernels and busybox.
    pub tools: &'a Tools,
    /// The workspace.
    pub project: &'a Project,
    /// The stage's name.
    pub name: &'static str,
    /// Substrings of outcomes to show; none for all.
    pub filters: Vec<String>,
    /// Folder for logs.
    pub logs: &'a Path,
    /// How often the card is started anew under the guests.
    pub card_restarts: u32,
}

/// A boot that has come to its end.
pub struct Booted {
    /// What each guest printed.
    pub consoles: Consoles,
    /// How the machine ran.
    pub boot: Boot,
    parts: Parts,
}

impl GuestHost<'_> {
    /// Boots a machine with guests, which have these consoles, and with words for the kernel's command line. It is ended when
    /// `is_over` says so of what guests have printed, and given up after `at_most_s` seconds of wall time, or after a quarter of
    /// them in which nobody has said anything.
    ///
    /// # Errors
    /// Fails when something cannot be had or built, or the emulator does not start.
    pub fn boot(
        &self,
        machine: Machine,
        options: impl IntoIterator<Item = &'static str>,
        at_most_s: u64,
        guests: &[Guest],
        consoles: Consoles,
        is_over: impl FnMut(&Consoles) -> bool,
    ) -> Result<Booted> {
        description::check(guests, machine.cpus)?;
        let host = Host { card_restarts: self.card_restarts, ..machine.cpus.into() };
        let parts = self.project.build_for_guests(self.tools, guests, host, Profile::Release)?;
        let mut command_line = format!("log=info exit={}", machine.emulator.word());
        options.into_iter().for_each(|option| command_line.extend([" ", option]));
        let image = iso::make(self.project, &self.tools.iso()?, &parts, &command_line)?;
        let devices = devices::emulated(machine.emulator, guests, &[])?;
        let memory = host_memory(guests, parts.bundle.len());
        let machine = Machine { guests: true, memory, devices, ..machine };
        let at_most = Duration::from_secs(at_most_s);
        let limits = Limits { total: Some(at_most), silence: Some(at_most / 4) };
        let mut watched = Watched { consoles, is_over };
        let boot = emulator::boot(self.tools, &machine, &image, limits, &mut watched)?;
        Ok(Booted { consoles: watched.consoles, parts, boot })
    }

    /// The stage's result, after writing the log with what the guests printed.
    ///
    /// # Errors
    /// Fails when the log cannot be written.
    pub fn finish(
        &self,
        booted: &Booted,
        mut outcomes: Vec<Outcome>,
        notes: Vec<String>,
        printed: impl IntoIterator<Item = String>,
    ) -> Result<StageResult> {
        let Booted { boot, parts, .. } = booted;
        outcomes.retain(|outcome| is_wanted(&outcome.name, &self.filters));
        let mut text = boot.log.clone();
        text.extend(backtrace::explain(boot, &parts.kernel));
        text.extend(printed);
        text.push(format!("xtask: {}", boot.end));
        let log = self.logs.join(format!("{}.log", self.name));
        fs::write(&log, format!("{}\n{}", text.join("\n"), boot.emulator_messages))?;
        Ok(StageResult {
            stage: self.name,
            excerpt: excerpt(&text, boot, &outcomes),
            outcomes,
            notes,
            log: Some(log),
            duration: boot.duration,
        })
    }
}

/// Consoles, and what they must show for the machine to be ended.
struct Watched<F> {
    consoles: Consoles,
    is_over: F,
}

impl<F: FnMut(&Consoles) -> bool> Watcher for Watched<F> {
    fn started(&mut self, line: GuestLine) {
        self.consoles.started(line);
    }

    fn guests(&mut self, bytes: &[u8]) {
        self.consoles.guests(bytes);
    }

    fn wants_end(&mut self) -> bool {
        (self.is_over)(&self.consoles)
    }
}

impl Booted {
    /// The card was started anew so many times, and once more as it hung, and each time a guest's devices went on with the next one.
    pub fn judge_card(&self, restarts: u32) -> Outcome {
        const NAME: &str = "the card is started anew under load";
        let count = |text: &str| self.boot.log.iter().filter(|line| line.contains(text)).count();
        let (started, resumed) = (count("started card again, as card-restarter asked"), count("go on with the next"));
        let hung = count("card does not answer");
        if started == restarts as usize && hung == 1 && resumed == started + hung {
            Outcome::passed(NAME)
        } else {
            let why = format!(
                "{started} times in place of {restarts}; it hung {hung} times; devices went on {resumed} times"
            );
            Outcome::failed(NAME, &why)
        }
    }

    /// The vCPUs of a guest, called so on the log, are where they were ordered to go last; none if there was no order.
    pub fn judge_moves(&self, guest: &str, console: &Console) -> Option<Outcome> {
        let name = format!("{guest}: vCPUs go on on other CPUs");
        let ordered: BTreeMap<_, _> = console.moves.iter().copied().collect();
        let is_elsewhere = |(vcpu, cpu): &(&u8, &u8)| {
            let said = format!("{guest}: vCPU {vcpu} goes on on CPU ");
            let last = self.boot.log.iter().rev().find_map(|line| Some(line.split_once(&said)?.1));
            last != Some(&cpu.to_string())
        };
        let elsewhere = ordered.iter().filter(is_elsewhere);
        let elsewhere: Vec<_> = elsewhere.map(|(vcpu, cpu)| format!("vCPU {vcpu} is not on CPU {cpu}")).collect();
        match (ordered.is_empty(), elsewhere.is_empty()) {
            (true, _) => None,
            (_, true) => Some(Outcome::passed(&name)),
            _ => Some(Outcome::failed(&name, &elsewhere.join(", "))),
        }
    }

    /// What attackers do is told, but not each time that they do it.
    pub fn judge_log(&self) -> Outcome {
        const NAME: &str = "the log is not flooded";
        const MAX_LINES: usize = 400;
        let lines = self.boot.log.len();
        if lines <= MAX_LINES { Outcome::passed(NAME) } else { Outcome::failed(NAME, &format!("it has {lines} lines")) }
    }

    /// The hypervisor ends well if all of its guests do; it never panics.
    pub fn judge_host(&self, all_guests_end_well: bool) -> Outcome {
        const NAME: &str = "hypervisor";
        match self.boot.end {
            emulator::End::Exit(code) if (code == 0) == all_guests_end_well => Outcome::passed(NAME),
            end => Outcome::failed(NAME, &end.to_string()),
        }
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
