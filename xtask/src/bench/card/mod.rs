//! `cargo xtask bench card`: what the card's switch and disks do on one CPU of this machine, beside its peers, and what a
//! request costs a guest of the hypervisor ([`requests`]).
//!
//! [`cases`] says what is measured, [`back_end`] starts who is measured, [`disks`] measures disks over vhost-user, [`library`] runs
//! what needs no rings.

mod back_end;
mod cases;
mod disks;
mod library;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Number, Value, json};

use self::{
    back_end::{BackEnd, CardProcess, OpenVswitch, Testpmd},
    cases::{Case, POLICIES, Policy},
};
use crate::{
    bench::requests,
    build::{
        Project,
        cargo::{self, Profile, Program},
    },
    cli::{BenchCard, CardPart},
    process::first_lines,
    tools::{Tools, peers::Peers, rust},
};

const CARD: Program<'_> = Program { package: "dragonfly-offload-card", bin: "offload-card", features: &[] };
const LOAD: Program<'_> = Program { package: "dragonfly-peer-front-end", bin: "card-load", features: &[] };

const DISK_LOAD: Program<'_> = Program { package: "dragonfly-peer-front-end", bin: "disk-load", features: &[] };

/// The CPU of the guests; the switch has CPU 0.
const LOAD_CPU: &str = "1";

/// Figures by name.
type Figures = BTreeMap<String, Number>;

/// Measures, prints the figures and writes them where asked to.
///
/// # Errors
/// Fails when a build fails, a peer does not start, or somebody loses the connection.
pub fn run(tools: &Tools, arguments: &BenchCard) -> Result<()> {
    let project = Project::load()?;
    let mut figures = Figures::new();
    if arguments.only != Some(CardPart::Guest) {
        measure_host(tools, &project, arguments, &mut figures)?;
    }
    if arguments.only != Some(CardPart::Host) {
        let requests = requests::measure(tools, &project)?;
        for line in requests.table() {
            println!("{line}");
        }
        for (name, value) in requests.named() {
            insert(&mut figures, &name, value);
        }
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&json!({ "card": figures }))?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Measures what needs no hypervisor.
fn measure_host(tools: &Tools, project: &Project, arguments: &BenchCard, figures: &mut Figures) -> Result<()> {
    let cpus = thread::available_parallelism()?.get();
    ensure!(cpus >= 2, "this machine has one CPU, and the switch and its guests need one each");
    let build =
        |program| cargo::build_bin_for(project, tools.is_offline(), program, Profile::Release, rust::HOST_TARGET);
    let (card, load, disk_load) = (build(&CARD)?, build(&LOAD)?, build(&DISK_LOAD)?);
    let peers = if arguments.alone { None } else { Some(tools.peers()?) };
    if let Some(Peers { versions: [dpdk, ovs], .. }) = &peers {
        println!("DPDK {dpdk}, Open vSwitch {ovs}, one CPU for each switch");
    }
    println!("{:<28} {:>10} {:>10} {:>10}", "Mpps, both directions", "Dragonfly", "testpmd", "OVS-DPDK");
    for policy in POLICIES {
        measure_policy(policy, &card, &load, peers.as_ref(), arguments, figures)?;
    }
    for (name, value) in disks::measure(&card, &disk_load, arguments)? {
        println!("{name:<28} {value:>10.4e}");
        insert(figures, &name, value);
    }
    for (name, value) in library::measure(project, tools.is_offline())? {
        println!("{name:<28} {value:>10.4e}");
        insert(figures, &name, value);
    }
    Ok(())
}

/// Measures all cases of a policy, with everybody who has it taking turns.
fn measure_policy(
    policy: Policy,
    card: &Path,
    load: &Path,
    peers: Option<&Peers>,
    arguments: &BenchCard,
    figures: &mut Figures,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut switches: Vec<(&str, Box<dyn BackEnd>)> =
        vec![("vswitch", Box::new(CardProcess::start(card, folder.path(), policy)?))];
    if let Some(peers) = peers {
        if policy == Policy::None {
            switches.push(("testpmd", Box::new(Testpmd::start(peers, folder.path())?)));
        }
        switches.push(("ovs_dpdk", Box::new(OpenVswitch::start(peers, folder.path(), policy)?)));
    }
    switches.iter().try_for_each(|(_, switch)| switch.process().pause())?;
    for case in policy.cases() {
        let mut results = vec![Vec::new(); switches.len()];
        for _ in 0..arguments.rounds {
            for ((name, switch), results) in switches.iter().zip(&mut results) {
                switch.process().go_on()?;
                let answer = load_once(load, switch.as_ref(), case, arguments.time, &[]);
                let answer = answer.with_context(|| format!("{name}, {}", case.name))?;
                switch.process().pause()?;
                results.push(answer["mpps"].as_f64().context("the load gave no figure")?);
            }
        }
        let mut cells = BTreeMap::new();
        for ((name, _), results) in switches.iter().zip(results) {
            let median = median(results);
            insert(figures, &format!("{name}_{}_mpps", case.name), median);
            cells.insert(*name, median);
        }
        let cell = |name| cells.get(name).map_or("-".into(), |value| format!("{value:.2}"));
        println!("{:<28} {:>10} {:>10} {:>10}", case.name, cell("vswitch"), cell("testpmd"), cell("ovs_dpdk"));
    }
    if let Some(case) = policy.cases().first() {
        measure_latency(case, load, &switches, arguments, figures)?;
    }
    Ok(())
}

/// Measures how long a frame takes where there is no other.
fn measure_latency(
    case: &Case,
    load: &Path,
    switches: &[(&str, Box<dyn BackEnd>)],
    arguments: &BenchCard,
    figures: &mut Figures,
) -> Result<()> {
    for (name, switch) in switches {
        switch.process().go_on()?;
        let answers =
            (0..arguments.rounds).map(|_| load_once(load, switch.as_ref(), case, arguments.time, &["--latency"]));
        let answers = answers.collect::<Result<Vec<_>>>().with_context(|| format!("{name}, one frame at a time"))?;
        switch.process().pause()?;
        let mut line = format!("{:<28}", format!("{name}, {}, one at a time", case.name));
        for percentile in ["p50_ns", "p99_ns", "p999_ns"] {
            let value = median(answers.iter().filter_map(|answer| answer[percentile].as_f64()).collect());
            insert(figures, &format!("{name}_{}_{percentile}", case.name), value);
            line += &format!(" {percentile} {value}");
        }
        println!("{line}");
    }
    Ok(())
}

/// One turn, as the load tells of it.
fn load_once(load: &Path, switch: &dyn BackEnd, case: &Case, time: u32, options: &[&str]) -> Result<Value> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", LOAD_CPU]).arg(load).args(switch.sockets());
    command.args(["--frame", &case.frame.to_string(), "--flows", &case.flows.to_string()]);
    if case.is_packed {
        command.arg("--packed");
    }
    command.args(["--time", &time.to_string()]).args(options);
    let output = command.stdin(Stdio::null()).output().context("cannot start taskset (util-linux)")?;
    ensure!(output.status.success(), "the load has failed: {}", first_lines(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Adds a figure; with four digits, as more of them mean nothing.
fn insert(figures: &mut Figures, name: &str, value: f64) {
    let digits = 3 - value.abs().max(1e-9).log10().floor() as i32;
    let factor = 10_f64.powi(digits);
    if let Some(number) = Number::from_f64((value * factor).round() / factor) {
        figures.insert(name.into(), number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn figures_have_four_digits() {
        let mut figures = Figures::new();
        insert(&mut figures, "a", 12.345_67);
        insert(&mut figures, "b", 1_234_567.0);
        assert_eq!(serde_json::to_string(&figures).unwrap(), r#"{"a":12.35,"b":1235000.0}"#);
    }
}
