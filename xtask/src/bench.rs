//! `cargo xtask bench`: figures in instructions, the same in every run.
//!
//! The domain that measures prints `[bench] NAME VALUE`, one line a figure.

use std::{collections::BTreeMap, fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::{Number, json};

use crate::{
    build::{Parts, Project, cargo::Profile, iso},
    cli::{BenchIpc, Emulator},
    emulator::{self, Limits, Machine, Watcher, backtrace},
    tools::Tools,
};

/// The bundle with the domain that measures.
const BUNDLE: &str = "bench";

/// Figures with a goal: what must not be exceeded, in instructions, and what others need.
const GOALS: [(&str, u64, &str); 2] = [("null_syscall", 60, "L4Re 148"), ("one_way_same_cpu", 300, "L4Re 587")];

type Figures = BTreeMap<String, Number>;

/// Measures IPC and its kin; exit status 1 if a goal is missed.
///
/// # Errors
/// Fails when a build fails or a machine does not end cleanly with figures.
pub fn ipc(tools: &Tools, arguments: &BenchIpc) -> Result<ExitCode> {
    let project = Project::load()?;
    let parts = project.build(tools, BUNDLE, Profile::Release)?;
    let mut figures = measure(&project, tools, &parts, arguments.emulator, 1)?;
    match arguments.emulator {
        Emulator::Qemu => {
            // What needs a second CPU; all else is as measured alone.
            for (name, value) in measure(&project, tools, &parts, arguments.emulator, 2)? {
                figures.entry(name).or_insert(value);
            }
        }
        // Its time-stamp counters count the instructions of both CPUs.
        Emulator::Bochs => println!("Bochs measures on one CPU only: no figures across CPUs"),
    }
    let met = print(&figures);
    if let Some(path) = &arguments.json {
        write_json(path, &figures)?;
    }
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(project: &Project, tools: &Tools, parts: &Parts, emulator: Emulator, cpus: u32) -> Result<Figures> {
    const LIMITS: Limits = Limits { total: Some(Duration::from_secs(600)), silence: Some(Duration::from_secs(180)) };
    let image = iso::make(project, &tools.iso()?, parts, &format!("log=warn exit={} bench=ipc", emulator.word()))?;
    let machine = Machine { deterministic: true, ..Machine::new(emulator, cpus) };
    eprintln!("Measuring in {} with {cpus} CPU(s)", emulator.word());
    let boot = emulator::boot(tools, &machine, &image, LIMITS, &mut Silent)?;
    let figures: Figures = boot.log.iter().filter_map(|line| figure(line)).collect();
    if !boot.end.is_clean() || figures.is_empty() {
        let trace = backtrace::resolve(&boot.log, &parts.kernel);
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

/// Prints the table; false if a goal is missed.
fn print(figures: &Figures) -> bool {
    let mut met = true;
    println!("{:<32} {:>12}", "instructions", "");
    for (name, value) in figures {
        let goal = GOALS.iter().find(|(goal, ..)| goal == name);
        let remark = goal.map_or(String::new(), |(_, most, others)| {
            let reached = value.as_f64().is_some_and(|value| value <= *most as f64);
            met &= reached;
            format!("goal {most}: {}; {others}", if reached { "met" } else { "MISSED" })
        });
        println!("{}", format!("{name:<32} {value:>12}  {remark}").trim_end());
    }
    met
}

fn write_json(path: &Path, figures: &Figures) -> Result<()> {
    let text = serde_json::to_string_pretty(&json!({ "ipc": figures }))?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}

struct Silent;

impl Watcher for Silent {}

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
    fn a_missed_goal_is_told() {
        let figures = |value: u64| Figures::from([("null_syscall".into(), value.into())]);
        assert!(print(&figures(60)));
        assert!(!print(&figures(61)));
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
