//! `cargo xtask bench ipc`: what system calls cost.
//!
//! The domain that measures prints `[bench] NAME VALUE`, one line a figure.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Number, json};

use super::Silent;
use crate::{
    build::{Parts, Project, cargo::Profile, iso},
    cli::{BenchIpc, Emulator},
    emulator::{self, Limits, Machine, backtrace},
    tools::Tools,
};

/// The bundle with the domain that measures.
const BUNDLE: &str = "bench";

/// A figure that must not be exceeded.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Its name.
    pub figure: &'static str,
    /// The limit, in instructions.
    pub at_most: u64,
    /// What others need.
    pub others: &'static str,
}

/// The figures with a goal.
pub const GOALS: [Goal; 2] = [
    Goal { figure: "null_syscall", at_most: 60, others: "L4Re 148" },
    Goal { figure: "one_way_same_cpu", at_most: 300, others: "L4Re 587" },
];

impl Goal {
    /// Whether the figure is there and does not exceed the limit.
    #[must_use]
    pub fn is_met(&self, figures: &Figures) -> bool {
        figures.get(self.figure).and_then(Number::as_f64).is_some_and(|value| value <= self.at_most as f64)
    }
}

/// Figures by name.
pub type Figures = BTreeMap<String, Number>;

/// Measures IPC and its kin, prints the figures and writes them where asked to.
///
/// # Errors
/// Fails when a build fails or a machine does not end cleanly with figures. A missed goal is told, and fails the tests.
pub fn run(tools: &Tools, arguments: &BenchIpc) -> Result<()> {
    let project = Project::load()?;
    let figures = figures(&project, tools, arguments.emulator)?;
    print(&figures);
    if let Some(path) = &arguments.json {
        write_json(path, &figures)?;
    }
    Ok(())
}

/// Measures in `emulator`.
///
/// # Errors
/// See [`run`].
pub fn figures(project: &Project, tools: &Tools, emulator: Emulator) -> Result<Figures> {
    let parts = project.build(tools, BUNDLE, Profile::Release)?;
    let mut figures = measure(project, tools, &parts, emulator, 1)?;
    match emulator {
        Emulator::Qemu => {
            // What needs a second CPU; all else is as measured alone.
            for (name, value) in measure(project, tools, &parts, emulator, 2)? {
                figures.entry(name).or_insert(value);
            }
        }
        // Its time-stamp counters count the instructions of both CPUs.
        Emulator::Bochs => eprintln!("Bochs measures on one CPU only: no figures across CPUs"),
    }
    Ok(figures)
}

/// Boots a bundle whose domain prints figures, with so many CPUs.
///
/// # Errors
/// Fails when the machine does not end cleanly with figures.
pub fn measure(project: &Project, tools: &Tools, parts: &Parts, emulator: Emulator, cpus: u32) -> Result<Figures> {
    const LIMITS: Limits = Limits { total: Some(Duration::from_secs(600)), silence: Some(Duration::from_secs(180)) };
    let image = iso::make(project, &tools.iso()?, parts, &format!("log=warn exit={} bench=ipc", emulator.word()))?;
    let machine = Machine { deterministic: true, ..Machine::new(emulator, cpus) };
    eprintln!("Measuring in {} with {cpus} CPU(s)", emulator.word());
    let boot = emulator::boot(tools, &machine, &image, LIMITS, &mut Silent)?;
    let figures: Figures = boot.log.iter().filter_map(|line| figure(line)).collect();
    if !boot.end.is_clean() || figures.is_empty() {
        let trace = backtrace::explain(&boot, &parts.kernel);
        for line in boot.log.iter().chain(&trace) {
            eprintln!("{line}");
        }
        bail!("{} figures, then: {}", figures.len(), boot.end);
    }
    Ok(figures)
}

/// A line `[bench] NAME VALUE`, with or without a log prefix.
fn figure(line: &str) -> Option<(String, Number)> {
    let (_, rest) = line.split_once("[bench] ")?;
    let mut words = rest.split_whitespace();
    let name = words.next()?.trim_end_matches(':');
    let value = words.next()?;
    let number = match value.parse::<u64>() {
        Ok(number) => Number::from(number),
        Err(_) => Number::from_f64(value.parse().ok()?)?,
    };
    words.next().is_none().then(|| (name.to_string(), number))
}

fn print(figures: &Figures) {
    println!("{:<32} {:>12}", "", "instructions");
    for (name, value) in figures {
        let goal = GOALS.iter().find(|goal| goal.figure == name);
        let remark = goal.map_or(String::new(), |goal| {
            let verdict = if goal.is_met(figures) { "met" } else { "MISSED" };
            format!("goal {}: {verdict}; {}", goal.at_most, goal.others)
        });
        println!("{}", format!("{name:<32} {value:>12}  {remark}").trim_end());
    }
}

fn write_json(path: &Path, figures: &Figures) -> Result<()> {
    let text = serde_json::to_string_pretty(&json!({ "ipc": figures }))?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_behind_a_log_prefix() {
        assert_eq!(figure("[bench] null_syscall 57"), Some(("null_syscall".into(), 57_u64.into())));
        assert_eq!(figure("[  1.0] INFO bench: [bench] a 1.5"), Some(("a".into(), Number::from_f64(1.5).unwrap())));
    }

    #[test]
    fn what_is_no_figure_is_left_out() {
        for line in ["", "[bench]", "[bench] a", "[bench] a b", "[bench] a 1 2", "[bench] a NaN", "bench a 1"] {
            assert_eq!(figure(line), None, "{line}");
        }
    }

    #[test]
    fn a_goal_is_missed_by_a_larger_figure_or_none() {
        let figures = |value: u64| Figures::from([(GOALS[0].figure.into(), value.into())]);
        assert!(GOALS[0].is_met(&figures(GOALS[0].at_most)));
        assert!(!GOALS[0].is_met(&figures(GOALS[0].at_most + 1)));
        assert!(!GOALS[0].is_met(&Figures::new()));
    }

    #[test]
    fn the_json_has_one_object_of_figures() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ipc.json");
        write_json(&path, &Figures::from([("null_syscall".into(), 57_u64.into())])).unwrap();
        let read: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(read, json!({ "ipc": { "null_syscall": 57 } }));
    }
}
